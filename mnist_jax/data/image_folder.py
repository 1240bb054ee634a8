"""A folder of pictures: its subfolders are the classes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from mnist_jax.data.tfds_reader import NOT_THERE, DataError, Examples, to_grey
from mnist_jax.runtime import paths

_SPLITS = {"train", "test"}
_MANY = 5_000  # pictures, which take a few seconds
_NAMED = 3  # files in an error message

Splits = dict[str, list[tuple[Path, str]]]  # by name: the files and their classes


def read(
    path: str, log: Callable[[str], object] = lambda line: None
) -> tuple[Examples, Examples | None, tuple[str, ...]]:
    """Read the pictures in the subfolders of a folder, of any size and format that Pillow reads.

    Args:
        path: of the folder. Its subfolders are the classes, or it has `train` and `test`, whose
            subfolders are. Subfolders of a class belong to it. Hidden files are skipped.
        log: prints a line before slow work.

    Returns:
        The examples in the order of their paths, 28x28 and grey; the examples of `test`, if any;
        and the class names: in order of their numbers if all are numbers, else of the alphabet.

    Raises:
        DataError: there are no such folders, or files in them that are not pictures.
    """
    root = paths.expand(path)
    folders = {folder.name for folder in _subfolders(root)}
    if folders & _SPLITS:
        if folders != _SPLITS:
            raise DataError(
                f"{root}: has the folders {', '.join(sorted(folders))}: give train and test, and "
                "no others, or only folders of classes"
            )
        splits = {split: _files(root / split) for split in ("train", "test")}
    else:
        splits = {"train": _files(root)}
    classes = {name for _, name in splits["train"]}
    if len(classes) < 2:
        raise DataError(f"{root}: has fewer than two folders of classes; give one for each class")
    if unknown := {name for _, name in splits.get("test", ())} - classes:
        raise DataError(f"{root}/test: has the class {min(unknown)}, which {root}/train lacks")
    names = sorted(classes, key=int if all(map(str.isdecimal, classes)) else None)
    count = sum(map(len, splits.values()))
    if count >= _MANY:
        log(f"images:{path}: reading {count:,} pictures")
    examples = {split: _examples(root, files, names) for split, files in splits.items()}
    return examples["train"], examples.get("test"), tuple(names)


def _subfolders(folder: Path) -> list[Path]:
    try:
        found = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError as error:
        reason = NOT_THERE if isinstance(error, FileNotFoundError) else error.strerror
        raise DataError(f"{folder}: cannot be read as a folder: {reason}") from error
    return sorted(found)


def _files(folder: Path) -> list[tuple[Path, str]]:
    """Return each picture's file with its class."""
    found = []
    for subfolder in _subfolders(folder):
        files = (path for path in sorted(subfolder.rglob("*")) if path.is_file())
        visible = [path for path in files if not path.name.startswith(".")]
        if not visible:
            raise DataError(f"{subfolder}: holds no pictures; add some or delete it")
        found += [(path, subfolder.name) for path in visible]
    return found


def _examples(
    root: Path, files: Sequence[tuple[Path, str]], class_names: Sequence[str]
) -> Examples:
    from mnist_jax.data import image_files  # it imports Pillow and SciPy

    images, damaged = [], []
    for path, _ in files:
        try:
            images.append(to_grey(_as_bytes(next(image_files.read(path)).pixels)))
        except image_files.PictureError:
            damaged.append(str(path.relative_to(root)))
    if damaged:
        few = ", ".join(damaged[:_NAMED]) + ", ..." * (len(damaged) > _NAMED)
        raise DataError(f"{root}: {len(damaged)} files are not pictures ({few}); remove them")
    places = {name: place for place, name in enumerate(class_names)}
    return np.stack(images), np.array([places[name] for _, name in files], np.int32)


def _as_bytes(pixels: np.ndarray) -> UInt8[np.ndarray, "h w c"]:
    return np.rint(255 * pixels).astype(np.uint8)
