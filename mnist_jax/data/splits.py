"""The examples of a run: training, validation and test."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped, UInt8
from ml_collections import ConfigDict

from mnist_jax import tasks
from mnist_jax.data import datasets
from mnist_jax.types import UserError


class Split(NamedTuple):
    """Examples on the host."""

    images: UInt8[np.ndarray, "n 28 28 1"]
    # Classes; for a multilabel task rows of 0s and 1s; to learn from also probabilities of classes.
    labels: Shaped[np.ndarray, "n ..."]


class Splits(NamedTuple):
    """The training, validation and test examples of a run."""

    name: str  # of the data set
    class_names: tuple[str, ...]
    fingerprint: str
    train: Split
    val: Split  # of no examples when config.data.val_size is 0
    test: Split
    requested: str | None = None  # the data set that was asked for, if it is another one
    kind: str = "digits"  # of the images, see `datasets.Dataset`


def load(config: ConfigDict, log: Callable[[str], object] = lambda line: None) -> Splits:
    """Load a config's data set for its task and split validation off, by config.data.split_seed.

    Raises:
      UserError: the data cannot be had, the config asks for more of it than there is, or all
        training examples have the same label.
    """
    data = config.data
    form = datasets.Format(**{key: data[key] for key in datasets.Format._fields})
    found = datasets.load(data.name, form, data_dir=data.data_dir, archives=data.archives, log=log)
    images, classes = found.train_images, found.train_labels
    # In cross-validation every example is held out once, by the trials.
    val_size = 0 if config.sweep.folds else data.val_size
    train_index, val_index = datasets.split(classes, val_size, data.split_seed)
    if config.train.batch_size > len(train_index):
        raise UserError(
            f"config.train.batch_size: {config.train.batch_size} is more than the "
            f"{len(train_index):,} training examples of {found.name}"
        )
    labels, class_names = tasks.relabel(config.task, classes, found.class_names)
    if config.task.name != "denoise":  # which learns from images alone
        _check_labels(found.name, labels[train_index], class_names)
    test_labels, _ = tasks.relabel(config.task, found.test_labels, found.class_names)
    return Splits(
        name=found.name,
        class_names=class_names,
        fingerprint=found.fingerprint,
        train=Split(images[train_index], labels[train_index]),
        val=Split(images[val_index], labels[val_index]),
        test=Split(found.test_images, test_labels),
        kind=found.kind,
    )


def _check_labels(
    name: str, labels: Int32[np.ndarray, "n ..."], class_names: Sequence[str]
) -> None:
    """Check that each label, of one or several, has two values at least."""
    constant = (labels == labels[0]).all(axis=0)
    if not constant.any():
        return
    if labels.ndim == 1:
        what = f"are of the class {class_names[labels[0]]!r}"
    else:
        column = int(constant.argmax())
        what = f"{'have' if labels[0, column] else 'lack'} the label {class_names[column]!r}"
    raise UserError(
        f"{name}: all training examples {what}; there is nothing to learn: choose other classes"
    )


def outer_folds(splits: Splits, count: int, seed: int) -> Iterator[Splits]:
    """Yield each fold of the training examples as the test split, with the others to train on.

    Raises:
      DataError: there are more folds than examples of a class.
    """
    images, labels = splits.train
    for held_out in datasets.folds(labels, count, seed):
        rest = np.delete(np.arange(len(labels)), held_out)
        train, test = (Split(images[index], labels[index]) for index in (rest, held_out))
        yield splits._replace(train=train, test=test)
