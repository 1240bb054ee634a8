"""The data sets: `load` a name into numpy arrays, `split` off validation examples, make `folds`.

Nothing here depends on a run's configuration, except through arguments.
"""

import contextlib
import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

from mnist_jax.data import csv_reader, image_folder
from mnist_jax.data.tfds_reader import PUBLISHED, DataError, Examples, find_builder, read_tfds
from mnist_jax.data.tfds_reader import DataNotFound as DataNotFound
from mnist_jax.runtime import atomic, paths
from mnist_jax.types import UserError

DIGITS = tuple("0123456789")
# Images of digits and letters, prepared as MNIST's; other data sets show objects.
_CHARACTERS = ("mnist", "digits", "kmnist", "emnist", "csv")
_TRANSPOSED = ("emnist",)
_DAY = 24 * 60 * 60  # seconds


class Format(NamedTuple):
    """The form in which a data set is stored; None: as is known of it."""

    label_column: str | None = None  # of a CSV file: "first" or "last"
    pixel_max: int | None = None  # of a CSV file: the value of white
    transposed: bool | None = None  # rows are stored as columns
    class_names: tuple[str, ...] | None = None  # in the order of the labels
    kind: str | None = None  # "digits" or "objects", see `Dataset`


_AS_KNOWN = Format()


class Dataset(NamedTuple):
    """Every example of a data set, in a fixed order."""

    name: str  # the data set really read: 'mnist', 'csv:/path/x.csv', ...
    train_images: UInt8[np.ndarray, "train 28 28 1"]
    train_labels: Int32[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test 28 28 1"]
    test_labels: Int32[np.ndarray, " test"]
    class_names: tuple[str, ...]
    fingerprint: str  # sha256 over the four arrays, their dtypes and shapes included
    # "digits": light characters on black, sized and centred as MNIST's; or "objects".
    kind: str = "objects"


def check_name(name: str) -> None:
    """Check that there is a data set called `name`; the familiar names cost nothing to check.

    Raises:
        DataError: there is none; the message names the nearest one.
    """
    if is_file(name) or name in KNOWN:
        return
    find_builder(name, KNOWN)


def is_file(name: str) -> bool:
    """Return whether `name` denotes a file or folder of the user, as in `csv:PATH`."""
    source, _, path = name.partition(":")
    return source in _FILES and bool(path)


def load(
    name: str,
    form: Format = _AS_KNOWN,
    *,
    data_dir: str | None = None,
    archives: str | None = None,
    log: Callable[[str], object] = lambda line: None,
) -> Dataset:
    """Every example of the data set `name`.

    `mnist`, `fashion_mnist` and the others of tensorflow-datasets come from their prepared copy in
    `data_dir`, which is made first where there is none, from archives or by download. What was read
    is kept in `data_dir`/mnist_jax, so that the next start takes a fraction of a second; so are
    `digits`, or each start would wait for scikit-learn.
    `digits` and `csv:PATH` have one set of examples: a fixed fifth of each class is the test split;
    so has `images:DIR` without folders `train` and `test`.
    Images are upright, whether they are stored so or transposed.

    Args:
        name: `mnist`, `fashion_mnist`, `digits`, `csv:PATH`, `images:DIR` or a tfds builder's name.
        form: the form in which it is stored, where that is not known.
        data_dir: where prepared copies live; by default `$TFDS_DATA_DIR`, else
            ~/tensorflow_datasets, as in tfds.
        archives: a folder that holds the published archives: mnist/*.gz, fashion_mnist/*.gz;
            by default `$MNIST_JAX_ARCHIVES`.
        log: prints a line before slow work.

    Raises:
        DataNotFound: there is no prepared copy, no archive and no network.
        DataError: anything else is wrong; see the message.
    """
    check_name(name)
    source, _, path = name.partition(":")
    for key in ("label_column", "pixel_max"):
        if getattr(form, key) is not None and source != "csv":
            raise DataError(f"config.data.{key}: {name} has none, only csv:PATH; give None")
    if source == "csv":
        examples = csv_reader.read(path, form.label_column, form.pixel_max)
        dataset = _hold_out(name, examples)
    elif source == "images":
        train, test, class_names = image_folder.read(path, log)
        if test is None:
            dataset = _hold_out(name, train)._replace(class_names=class_names)
        else:
            dataset = _dataset(name, (*train, *test), class_names)
    else:
        dataset = _load_prepared(name, data_dir, archives, log)
    return _formed(dataset, form)


def _load_prepared(
    name: str, data_dir: str | None, archives: str | None, log: Callable[[str], object]
) -> Dataset:
    """Load a built-in data set or one of tfds, from the cache if it is there."""
    home = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in home:
        raise DataError(f"{home}: data_dir must be a local folder")
    try:
        root = paths.expand(home)
    except UserError as error:
        if name in _BUILT_IN:
            return _hold_out(name, _BUILT_IN[name]())
        raise DataError(f"{error}, in $TFDS_DATA_DIR or --config.data.data_dir") from error
    cache = root / "mnist_jax" / f"{file_name(name)}.npz"
    if dataset := _read_cache(cache):
        return dataset
    if name in _BUILT_IN:
        dataset = _hold_out(name, _BUILT_IN[name]())
    else:
        train, test, class_names = read_tfds(name, root, archives, log)
        dataset = _dataset(name, (*train, *test), class_names)
    _write_cache(cache, dataset)
    return dataset


def _formed(dataset: Dataset, form: Format) -> Dataset:
    """Turn transposed images upright, and set the class names and the kind."""
    name, source = dataset.name, re.split("[:/]", dataset.name)[0]
    transposed = source in _TRANSPOSED if form.transposed is None else form.transposed
    if transposed:
        upright = (
            array.swapaxes(1, 2).copy() if array.ndim == 4 else array for array in dataset[1:5]
        )
        dataset = _dataset(name, tuple(upright), dataset.class_names)
    names, count = dataset.class_names, len(dataset.class_names)
    if form.class_names:
        names = tuple(map(str, form.class_names))
    if len(names) != count or (form.class_names and len(set(names)) < count):
        raise DataError(
            f"config.data.class_names: give {count} different names, one for each class of {name}"
        )
    kind = form.kind or ("digits" if source in _CHARACTERS else "objects")
    return dataset._replace(class_names=names, kind=kind)


def file_name(name: str) -> str:
    """Return a data set's name for file names: `csv-letters` for `csv:runs/letters.csv.gz`."""
    source, _, path = name.partition(":")
    if not path:
        return source.replace("/", "-")
    return f"{source}-{paths.expand(path).resolve().name.partition('.')[0]}"


def split(
    labels: Int[np.ndarray, " n"], val_size: int | float, seed: int
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " val"]]:
    """Return indices of the training and of the validation examples, ascending.

    Each class gives validation its share of examples to within one, by largest remainder.

    Args:
        labels: class of every example.
        val_size: as in scikit-learn: below 1 a fraction of the examples (rounded up), else their
            number; 0 for no validation.
        seed: the split is a function of it and of `labels`.

    Raises:
        DataError: `val_size` is no such number, or a class would have no example to train on, or
            none to validate on.
    """
    if not 0 <= val_size < math.inf or (val_size > 1 and val_size != int(val_size)):
        raise DataError(f"val_size={val_size}: give a fraction below 1, or a number of examples")
    n = len(labels)
    count = math.ceil(val_size * n) if val_size < 1 else int(val_size)
    if count == 0:
        return np.arange(n), np.arange(0)
    if count >= n:
        raise DataError(f"val_size={val_size}: leaves nothing of {n} examples to train on")
    classes, sizes = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(sizes * count, n)
    largest = np.argsort(-remainders, kind="stable")
    quotas[largest[: count - quotas.sum()]] += 1
    for label, size, quota in zip(classes, sizes, quotas, strict=True):
        if quota in (0, size):
            part = "validation" if quota == 0 else "training"
            raise DataError(
                f"val_size={val_size}: leaves {part} without the class {label} "
                f"(it has {size} of {n} examples)"
            )
    by_class = _shuffled_by_class(labels, seed)
    rank = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within its class
    held_out = rank < np.repeat(quotas, sizes)
    return np.sort(by_class[~held_out]), np.sort(by_class[held_out])


def folds(labels: Int[np.ndarray, "n ..."], k: int, seed: int) -> tuple[Int[np.ndarray, " _"], ...]:
    """Indices, ascending, of the held-out examples of each of `k` folds.

    Every example is held out once. The sizes of folds, and their numbers of examples of any one
    class, differ by at most one. Of several labels, each combination is a class.

    Raises:
        DataError: `k` is below 2, or above the number of examples of some class.
    """
    if k < 2:
        raise DataError(f"folds={k}: cross-validation takes at least 2")
    if labels.ndim > 1:
        labels = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    classes, sizes = np.unique(labels, return_counts=True)
    if len(labels) == 0 or sizes.min() < k:
        few = f"class {classes[sizes.argmin()]} has {sizes.min()}" if len(labels) else "there are 0"
        raise DataError(f"folds={k}: {few} examples, fewer than one a fold")
    by_class = _shuffled_by_class(labels, seed)
    return tuple(np.sort(by_class[i::k]) for i in range(k))


def _shuffled_by_class(labels: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    """Return indices of all examples, class after class, shuffled within each."""
    return np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))


def _hold_out(name: str, examples: Examples) -> Dataset:
    """Hold out a fifth of each class for the test split, by a fixed seed that no run can change.

    The labels become 0, 1, ..., and the class names are the labels as they were.
    """
    images, labels = examples
    try:
        train, test = split(labels, 0.2, seed=0)
    except DataError as error:
        raise DataError(f"{name}: too few examples for a test split: {error}") from error
    values, classes = np.unique(labels, return_inverse=True)
    classes = classes.astype(np.int32)
    arrays = images[train], classes[train], images[test], classes[test]
    return _dataset(name, arrays, tuple(map(str, values.tolist())))


def _dataset(name: str, arrays: Sequence[Any], class_names: tuple[str, ...]) -> Dataset:
    """Return a data set of images and labels, of training and test, with its fingerprint."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return Dataset._make([name, *arrays, class_names, digest.hexdigest(), "objects"])


_CACHED = Dataset._fields[:-1]  # the kind is known by the name


def _read_cache(path: Path) -> Dataset | None:
    """Return what `_write_cache` wrote; None if there is nothing, or anything else."""
    try:
        with path.open("rb") as file, np.load(file) as stored:
            name, *arrays, class_names, fingerprint = (stored[x] for x in _CACHED)
        dataset = _dataset(str(name), arrays, tuple(class_names.tolist()))
    except Exception:  # numpy and zipfile raise a dozen kinds at a damaged file
        return None
    return dataset if dataset.fingerprint == str(fingerprint) else None


def _write_cache(path: Path, dataset: Dataset) -> None:
    """Write `dataset` to `path` if possible; else the next start takes some seconds longer."""
    with contextlib.suppress(OSError):  # a read-only or full disk
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*"):  # by a process that was killed
            if time.time() - left.stat().st_mtime > _DAY:
                left.unlink()
        with atomic.replacing(path) as file:
            np.savez(file, **{field: getattr(dataset, field) for field in _CACHED})


def _read_digits() -> Examples:
    """Read scikit-learn's 1,797 handwritten digits of 8x8 and make them look like MNIST.

    As in MNIST the digit fills a box of 20x20 (bicubic) in the middle of 28x28 black pixels.

    Source: the test set of Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI).
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    scans = load_digits()
    grey = np.round(scans.images * (255 / 16)).astype(np.uint8)
    images = np.zeros((len(grey), 28, 28, 1), np.uint8)
    for image, scan in zip(images, grey, strict=True):
        box = Image.fromarray(scan).resize((20, 20), Image.Resampling.BICUBIC)
        image[4:24, 4:24, 0] = np.asarray(box)
    return images, scans.target.astype(np.int32)


# Data sets that need neither files nor network, and all names that are known without tfds.
_BUILT_IN = {"digits": _read_digits}
_FILES = ("csv", "images")
KNOWN = (*PUBLISHED, *_BUILT_IN, "csv:PATH", "images:DIR")
