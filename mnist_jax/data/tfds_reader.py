"""Examples from tensorflow-datasets: found or prepared, and read, without TensorFlow.

`datasets.load` is the way in; tfds is imported only where it is needed.
"""

import contextlib
import difflib
import fcntl
import functools
import gzip
import hashlib
import io
import logging
import os
import re
import shutil
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from mnist_jax.runtime import paths
from mnist_jax.types import UserError

Examples = tuple[UInt8[np.ndarray, "_ 28 28 1"], Int32[np.ndarray, " _"]]  # images, labels

NOT_THERE = "it is not there; if it was moved, give the same command its new path"
_MARK = ".mnist_jax"  # a file in the temporary folder of a preparation of ours
_DAY = 24 * 60 * 60  # seconds

# `_digest` of the published examples, computed from the official archives.
PUBLISHED = {
    "mnist": "adb567574fe7fb5b95c57b68ebd03c3533913f0387530f619d797b8045684dd5",
    "fashion_mnist": "ba7685e59617a3bf56596062195c1719494ccb62165fe7c84b6fa6b123263b70",
}


class DataError(UserError):
    """Something is wrong with the data: the message says what, where, and what to do."""


class DataNotFound(DataError):  # noqa: N818 (named like FileNotFound)
    """There is no prepared copy, no archive and no network; a caller may use other data."""


def find_builder(name: str, known: Sequence[str] = ()) -> Any:
    """Return the tfds builder class called `name`, perhaps with a config: `emnist/letters`.

    Args:
        name: of the builder.
        known: other names of data sets, to suggest.

    Raises:
        DataError: tfds has no such builder or config.
    """
    from tensorflow_datasets.core import registered

    base, _, config = name.partition("/")
    try:
        cls = registered.imported_builder_cls(base)
    except registered.DatasetNotFoundError as error:
        wanted = _with_source(name) or base.lower()
        near = difflib.get_close_matches(wanted, known)
        near += difflib.get_close_matches(wanted, registered.list_imported_builders(), 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(
            f"unknown data set {name!r}: {hint}There are {', '.join(known)}, and the "
            "image classification data sets of tensorflow-datasets"
        ) from error
    if config and config not in cls.builder_configs:
        known = ", ".join(cls.builder_configs) or "none"
        raise DataError(f"unknown data set {name!r}: the configs of {base} are: {known}")
    return cls


def _with_source(name: str) -> str:
    """Return the form of name that a path was meant to have; "" if the name is no path."""
    if "csv" in name.lower():
        return "csv:PATH"
    is_folder = re.match("images?:", name.lower()) or (name and Path(name).is_dir())
    return "images:DIR" if is_folder else ""


def read_tfds(
    name: str, data_dir: Path, archives: str | None, log: Callable[[str], object]
) -> tuple[Examples, Examples, tuple[str, ...]]:
    """Read the train and test examples of a tfds data set, in tfds's order, and its class names.

    Without a prepared copy in `data_dir`, prepare one from the archives in `archives`/name (else
    `$MNIST_JAX_ARCHIVES`/name), else by download.

    Raises:
        DataNotFound: there is no copy and no archive, and the download cannot begin.
        DataError: any other failure, such as an altered archive or a full disk.
    """
    cls = _without_tensorflow(find_builder(name))
    config = name.partition("/")[2] or None
    stdout = sys.stdout

    def announce(line: str) -> None:
        with contextlib.redirect_stdout(stdout):  # what `_quiet` redirects
            log(line)

    with _quiet():
        builder = cls(data_dir=str(data_dir), config=config)
        keys = _keys(builder, name)
        if not builder.is_prepared():
            _prepare(builder, name, archives, announce)
            builder = cls(data_dir=str(data_dir), config=config)
        if not {"train", "test"} <= set(builder.info.splits):
            raise DataError(f"{name}: lacks a split train or test: has {set(builder.info.splits)}")
        try:
            train, test = (_read_split(builder, split, *keys) for split in ("train", "test"))
        except Exception as error:  # every file format has its own
            raise DataError(
                f"{builder.data_dir}: the prepared copy of {name} cannot be read "
                f"({_reason(error)}): delete that folder and start again"
            ) from error
    if min(train[1].min(), test[1].min()) < 0:
        raise DataError(f"{name}: some of its examples have no label")
    if name in PUBLISHED and _digest(train, test) != PUBLISHED[name]:
        raise DataError(
            f"{builder.data_dir}: the prepared copy does not hold {name} as it was published: "
            "delete that folder and start again"
        )
    return train, test, tuple(builder.info.features[keys[1]].names)


def _without_tensorflow(cls: Any) -> Any:
    """Return `cls`, or for MNIST and its kin a builder of the same data without TensorFlow.

    The official builders open archives and encode arrays with TensorFlow. They also extract by file
    name, so that two of them in one `data_dir` may read each other's archives.
    """
    from tensorflow_datasets.core.registered import skip_registration
    from tensorflow_datasets.image_classification.mnist import MNIST

    if not issubclass(cls, MNIST):
        return cls

    def split_generators(self: Any, dl: Any) -> Any:
        def download_and_extract(urls: Any) -> Any:
            paths = dl.download(urls)
            if isinstance(paths, dict):
                return paths
            with zipfile.ZipFile(paths) as archive:
                archive.extractall(folder := f"{dl.download_dir}/extracted/{self.name}")
            return folder

        dl_for_cls = SimpleNamespace(download_and_extract=download_and_extract, extract=lambda x: x)
        return cls._split_generators(self, dl_for_cls)

    def generate_examples(self: Any, num_examples: int, data_path: Any, label_path: Any) -> Any:
        from PIL import Image

        with gzip.open(data_path) as data, gzip.open(label_path) as label:
            images = np.frombuffer(data.read(), np.uint8, offset=16).reshape(-1, 28, 28)
            labels = np.frombuffer(label.read(), np.uint8, offset=8)
        for index, (x, y) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": Image.fromarray(x), "label": int(y)}

    members = {
        "__module__": cls.__module__,  # tfds finds the pinned checksums through it
        "name": cls.name,
        "_split_generators": split_generators,
        "_generate_examples": generate_examples,
    }
    with skip_registration():
        return type(cls.__name__, (cls,), members)


def _prepare(builder: Any, name: str, archives: str | None, log: Callable) -> None:
    import requests
    import tensorflow_datasets as tfds

    pinned, data_dir = builder.url_infos or {}, builder.data_dir_root
    folder = _archives(name, pinned, archives)
    missing = (
        f"{name}: there is no prepared copy in {data_dir}, no archive (--config.data.archives or "
        f"$MNIST_JAX_ARCHIVES: a folder holding {name.partition('/')[0]}/), and the download fails"
    )
    if folder is None and pinned and not _reachable(url := next(iter(pinned))):
        raise DataNotFound(f"{missing}: no answer from {url}")
    log(f"{name}: first use: preparing it in {data_dir}, once; from archives in some 15 s")
    _remove_leftovers(builder)
    builder._download_and_prepare = functools.partial(
        _marked, builder, builder._download_and_prepare
    )
    try:
        builder.download_and_prepare(
            file_format="array_record",  # the one tfds writes without TensorFlow
            download_config=tfds.download.DownloadConfig(
                manual_dir=folder, try_download_gcs=False, force_checksums_validation=True
            ),
        )
    except (requests.RequestException, tfds.download.DownloadError) as error:
        raise DataNotFound(f"{missing}: {_reason(error)}") from error
    except Exception as error:  # whatever a builder, a file system or a file format raises
        if builder.is_prepared():  # by another process, just now
            return
        raise DataError(f"{name}: cannot be prepared in {data_dir}: {_reason(error)}") from error


def _marked(builder: Any, write: Callable[..., None], **options: Any) -> None:
    """Write the examples to tfds's temporary folder, which is marked and locked meanwhile."""
    folder = Path(builder.data_dir)
    with _locked(folder):
        mark = folder / _MARK
        mark.touch()
        write(**options)
        mark.unlink()


def _remove_leftovers(builder: Any) -> None:
    """Remove the temporary folders of preparations that were killed.

    A folder with our mark is removed unless it is locked, that is, unless its process is alive. A
    folder without it may belong to another program that uses tfds, and is removed after a day.
    """
    for folder in Path(builder.data_path).parent.glob("incomplete.*_*"):
        with contextlib.suppress(OSError), _locked(folder) as is_free:
            old = time.time() - folder.stat().st_mtime > _DAY
            if is_free and (old or (folder / _MARK).exists()):
                shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder while this process lives; yield False where another one has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # it is locked, or the file system has no locks
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _archives(name: str, pinned: dict[str, Any], archives: str | None) -> Path | None:
    """Return the folder of the data set's archives after checking each; None without a folder."""
    from tensorflow_datasets.core.download.checksums import compute_url_info

    root = archives or os.environ.get("MNIST_JAX_ARCHIVES")
    if not root:
        return None
    folder = paths.expand(root) / name.partition("/")[0]
    if not folder.is_dir():
        if archives:
            raise DataError(f"{folder}: there is no such folder of archives")
        return None
    for url, info in pinned.items():
        file = folder / (info.filename or Path(url).name)
        if not file.is_file():
            raise DataError(f"{file}: missing archive: copy it from {url}")
        if compute_url_info(file) != info:
            raise DataError(f"{file}: altered or truncated (wrong sha256): copy it from {url}")
    return folder


def _reachable(url: str) -> bool:
    """Return True if a download of `url` begins within 3 seconds; tfds would try for minutes."""
    import requests  # as tfds does: the same proxies and certificates apply

    answers = []

    def ask() -> None:
        with contextlib.suppress(Exception), requests.get(url, stream=True, timeout=3) as response:
            answers.append(response.status_code == 200)

    # A thread, because no timeout bounds the look-up of a host name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(3)
    return answers == [True]


def _keys(builder: Any, name: str) -> tuple[str, str]:
    """Return the features that hold the image and the label."""
    from tensorflow_datasets import features

    has = builder.info.features
    match builder.info.supervised_keys:
        case (str(image), str(label)) if (
            isinstance(has[image], features.Image)
            and has[image].np_dtype == np.uint8
            and isinstance(has[label], features.ClassLabel)
        ):
            return image, label
    raise DataError(f"{name}: not a data set of 8-bit images with one class label each")


def _read_split(builder: Any, split: str, image: str, label: str) -> Examples:
    from tensorflow_datasets.core import FileFormat

    info = builder.info
    if info.file_format is FileFormat.TFRECORD:  # tfds reads these with TensorFlow only
        records = _tfrecords(info.splits[split].filepaths)
        examples: Iterable[Any] = map(info.features.deserialize_example_np, records)
    else:
        source = builder.as_data_source(split)
        blocks = (range(i, min(i + 1000, len(source))) for i in range(0, len(source), 1000))
        # Reading single examples takes twice the time.
        examples = (example for block in blocks for example in source.__getitems__(block))
    pairs = [(to_grey(example[image]), example[label]) for example in examples]
    if len(pairs) != info.splits[split].num_examples:
        raise ValueError(f"{len(pairs)} examples in {split}")
    images, labels = zip(*pairs, strict=True)
    return np.stack(images), np.array(labels, np.int32)


def _tfrecords(paths: Iterable[os.PathLike[str]]) -> Iterator[bytes]:
    """Yield TFRecord files' records: length (8 bytes), its checksum (4), record, checksum (4)."""
    for path in paths:
        with Path(path).open("rb") as file:
            while header := file.read(12):
                yield file.read(int.from_bytes(header[:8], "little"))
                file.read(4)


def to_grey(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "28 28 1"]:
    """Return an image of one or three channels as 28x28 and grey (ITU-R 601)."""
    if image.shape == (28, 28, 1):
        return image
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    grey = picture.convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    return np.asarray(grey)[..., None]


def _digest(*splits: Examples) -> str:
    """Hash the sorted sha256 of the examples of each split, so that their order does not matter."""
    digest = hashlib.sha256()
    for images, labels in splits:
        pairs = zip(images, labels, strict=True)
        each = (hashlib.sha256(x.tobytes() + y.tobytes()).digest() for x, y in pairs)
        digest.update(b"".join(sorted(each)))
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence tfds's prints, progress bars and logs; errors still arrive as exceptions."""
    import tensorflow_datasets as tfds

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """Return the first line of the first cause: tfds appends to messages, even whole examples."""
    while error.__cause__:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
