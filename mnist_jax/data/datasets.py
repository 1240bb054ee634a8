"""The data sets: `load` a name into numpy arrays, `split` off validation examples, make `folds`.

Nothing here depends on a run's configuration, except through arguments.
"""

import contextlib
import gzip
import hashlib
import math
import os
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from warnings import catch_warnings

import numpy as np
from jaxtyping import Int, Int32, UInt8

from mnist_jax.data.tfds_reader import PUBLISHED, DataError, Examples, find_builder, read_tfds
from mnist_jax.data.tfds_reader import DataNotFound as DataNotFound
from mnist_jax.runtime import atomic, paths
from mnist_jax.types import UserError

COLUMNS = 1 + 28 * 28  # of a CSV file
DIGITS = tuple("0123456789")
_INTEGER = re.compile(r"[ \t]*[+-]?[0-9]{1,18}[ \t]*")


class Dataset(NamedTuple):
    """Every example of a data set, in a fixed order."""

    name: str  # the data set really read: 'mnist', 'csv:/path/x.csv', ...
    train_images: UInt8[np.ndarray, "train 28 28 1"]
    train_labels: Int32[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test 28 28 1"]
    test_labels: Int32[np.ndarray, " test"]
    class_names: tuple[str, ...]
    fingerprint: str  # sha256 over the four arrays, their dtypes and shapes included


def check_name(name: str) -> None:
    """Passes if there is a data set called `name`; the familiar names cost nothing to check.

    Raises:
        DataError: there is none; the message names the nearest one.
    """
    if name in KNOWN or (name.startswith("csv:") and name != "csv:"):
        return
    find_builder(name, KNOWN)


def load(
    name: str,
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
    `digits` and `csv:PATH` have one set of examples: a fixed fifth of each class is the test split.

    Args:
        name: `mnist`, `fashion_mnist`, `digits`, `csv:PATH` or a tfds builder's name.
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
    if name.startswith("csv:"):
        return _hold_out(name, _read_csv(name.removeprefix("csv:")))
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


def file_name(name: str) -> str:
    """A data set's name as a part of file names: `csv:runs/letters.csv.gz` as `csv-letters`."""
    kind, _, path = name.partition(":")
    return f"csv-{Path(path).name.partition('.')[0]}" if path else kind.replace("/", "-")


def split(
    labels: Int[np.ndarray, " n"], val_size: int | float, seed: int
) -> tuple[Int[np.ndarray, " train"], Int[np.ndarray, " val"]]:
    """Indices of the training and of the validation examples, ascending.

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
    """Indices of all examples, class after class, shuffled within each."""
    return np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))


def _hold_out(name: str, examples: Examples) -> Dataset:
    """A fifth of each class for the test split, by a seed of its own: no run can change it."""
    images, labels = examples
    try:
        train, test = split(labels, 0.2, seed=0)
    except DataError as error:
        raise DataError(f"{name}: too few examples for a test split: {error}") from error
    return _dataset(name, (images[train], labels[train], images[test], labels[test]), DIGITS)


def _dataset(name: str, arrays: Sequence[Any], class_names: tuple[str, ...]) -> Dataset:
    """Return a data set of images and labels, of training and test, with its fingerprint."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return Dataset._make([name, *arrays, class_names, digest.hexdigest()])


def _read_cache(path: Path) -> Dataset | None:
    """Return what `_write_cache` wrote; None if there is nothing, or anything else."""
    try:
        with path.open("rb") as file, np.load(file) as stored:
            name, *arrays, class_names, fingerprint = (stored[x] for x in Dataset._fields)
        dataset = _dataset(str(name), arrays, tuple(class_names.tolist()))
    except Exception:  # numpy and zipfile raise a dozen kinds at a damaged file
        return None
    return dataset if dataset.fingerprint == str(fingerprint) else None


def _write_cache(path: Path, dataset: Dataset) -> None:
    """Write `dataset` to `path` if possible; else the next start takes some seconds longer."""
    with contextlib.suppress(OSError):  # a read-only or full disk
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as file:
            np.savez(file, **dataset._asdict())


def _read_digits() -> Examples:
    """Scikit-learn's 1,797 handwritten digits of 8x8, made to look like MNIST.

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


def _read_csv(path: str) -> Examples:
    """A CSV file, plain or gzipped, in Kaggle's layout: label 0..9, then 784 pixels 0..255.

    A first line that does not start with an integer is a header. Blank lines are skipped.

    Raises:
        DataError: the file cannot be read, holds no examples, or a line of it is wrong.
    """
    try:
        content = paths.expand(path).read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error
    rows = [(number, row) for number, row in enumerate(text.splitlines(), 1) if row.strip()]
    if rows and not _INTEGER.fullmatch(rows[0][1].partition(",")[0]):
        rows = rows[1:]
    if not rows:
        raise DataError(f"{path}: holds no examples: expected lines of label,pixel,pixel,...")
    try:
        lines = [row for _, row in rows]
        # NumPy before 2.4 reads 3.7 as 3, with a warning.
        with catch_warnings(action="error", category=DeprecationWarning):
            table = np.loadtxt(lines, np.int16, comments=None, delimiter=",", ndmin=2)
        largest = np.array([9] + [255] * (COLUMNS - 1))
        is_sound = table.shape[1] == COLUMNS and ((table >= 0) & (table <= largest)).all()
    except (ValueError, DeprecationWarning):
        is_sound = False
    if not is_sound:
        faults = (f"line {number}: {fault}" for number, row in rows if (fault := _csv_fault(row)))
        raise DataError(f"{path}: {next(faults, 'not a table of integers')}")
    return table[:, 1:].astype(np.uint8).reshape(-1, 28, 28, 1), table[:, 0].astype(np.int32)


def _csv_fault(row: str) -> str | None:
    fields = row.split(",")
    if len(fields) != COLUMNS:
        return f"{len(fields)} columns instead of {COLUMNS} (label, then 784 pixels)"
    for column, field in enumerate(fields, 1):
        kind, top = ("label", 9) if column == 1 else ("pixel", 255)
        if not _INTEGER.fullmatch(field):
            return f"column {column}: {kind} {field[:20]!r} is not an integer"
        if not 0 <= int(field) <= top:
            return f"column {column}: {kind} {int(field)} is outside 0..{top}"
    return None


# Data sets that need neither files nor network, and all names that are known without tfds.
_BUILT_IN = {"digits": _read_digits}
KNOWN = (*PUBLISHED, *_BUILT_IN, "csv:PATH")
