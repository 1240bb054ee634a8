"""CSV files of images: a label and 784 pixels in each line.

A file is read in blocks of lines, so that the memory depends on the images alone, and not on what
an archive expands to.
"""

import contextlib
import gzip
import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from warnings import catch_warnings

import numpy as np
from jaxtyping import Int32

from mnist_jax.data.tfds_reader import NOT_THERE, DataError, Examples
from mnist_jax.runtime import paths

COLUMNS = 1 + 28 * 28
WHITE = 255
LARGEST = 2 * 2**30  # characters of a file, uncompressed
_LONGEST = 100_000  # characters of a line
_BLOCK = 5_000  # lines
_LABELS = 2**16  # labels are below
_LABEL_NAMES = ("label", "class")
_SEPARATORS = ",;\t"
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")

Line = tuple[int, str]  # its number and text


class _Layout(NamedTuple):
    """The columns of a file."""

    separator: str
    label: int  # index of the column: 0 or -1
    named: bool  # by the header or by the caller
    white: int  # the largest pixel


def read(path: str, label_column: str | None = None, pixel_max: int | None = None) -> Examples:
    """Read the images and labels of a CSV file, plain or in .gz or .zip.

    Commas, semicolons or tabs separate the fields, which may be quoted. A first line of names is a
    header. Blank lines are skipped.

    Args:
        path: of a text file in UTF-8, of at most `LARGEST` characters.
        label_column: "first" or "last"; None: where the header has `label` or `class`, else first.
        pixel_max: the value of white, which is scaled to 255; None: 255.

    Returns:
        Pixels scaled to 0..255, and the labels of the file: at least two different ones.

    Raises:
        DataError: the file cannot be read, is too large, holds no examples, a line of it is wrong,
            the label is probably in the other column, or no pixel is brighter than half of 255.
    """
    try:
        with contextlib.closing(_lines(path)) as lines:
            layout, lines_of_data = _layout(lines, label_column, pixel_max)
            blocks = iter(lambda: list(itertools.islice(lines_of_data, _BLOCK)), [])
            parts = [_split_columns(_table(path, block, layout), layout) for block in blocks]
    except (
        *(OSError, EOFError, zlib.error, UnicodeDecodeError),
        *(zipfile.BadZipFile, NotImplementedError, RuntimeError),  # the last: needs a password
    ) as error:
        reason = NOT_THERE if isinstance(error, FileNotFoundError) else error
        raise DataError(f"{path}: cannot be read as CSV: {reason}") from error
    if not parts:
        raise DataError(f"{path}: holds no examples: expected lines of label,pixel,pixel,...")
    images, labels, others = map(np.concatenate, zip(*parts, strict=True))
    if not layout.named and not _may_be_labels(labels) and _may_be_labels(others):
        raise DataError(
            f"{path}: the label is probably in the last column, and not in the first: give "
            "--config.data.label_column=last, or first if it is not"
        )
    if (labels == labels[0]).all():
        raise DataError(
            f"{path}: all labels are {labels[0]}: give two classes or more, or "
            "--config.data.label_column=first or last if the label is in another column"
        )
    largest = images.max()
    if pixel_max is None and largest <= WHITE // 2:
        raise DataError(
            f"{path}: no pixel is above {largest}, where 255 is white: give "
            f"--config.data.pixel_max={max(largest, 1)} if that is white, or 255 if all are dark"
        )
    return images, labels


def _lines(path: str) -> Generator[Line, None, None]:
    """Yield the lines that are not blank.

    Raises:
        DataError: the file is too large, or no text in UTF-8.
        OSError, ...: as `read` catches them.
    """
    with _opened(paths.expand(path)) as file:
        start = file.peek(4)
        is_utf16 = start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:2]
        if is_utf16 or b"\0" in start:
            found = "text in UTF-16" if is_utf16 else "binary data"
            raise DataError(f"{path}: holds {found}: save it as CSV in UTF-8")
        text = io.TextIOWrapper(file, "utf-8-sig")
        size = 0
        for number in itertools.count(1):
            line = text.readline(_LONGEST)
            size += len(line)
            if len(line) == _LONGEST:
                raise DataError(
                    f"{path}: line {number}: has {_LONGEST:,} characters or more: no row of "
                    f"{COLUMNS} numbers"
                )
            _check_size(path, size)
            if not line:
                return
            if not line.isspace():
                yield number, line


def _check_size(path: str | Path, size: int) -> None:
    if size > LARGEST:
        raise DataError(
            f"{path}: is larger than {LARGEST / 2**30:g} GiB, the limit (uncompressed): give a "
            "file of fewer examples"
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file; .gz and .zip are recognised by their content, and unpacked."""
    with path.open("rb") as file:
        start = file.peek(4)
        if start.startswith(b"\x1f\x8b"):
            with gzip.open(file) as unpacked:
                yield unpacked
        elif start.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(file) as archive:
                names = [name for name in archive.namelist() if not _is_clutter(name)]
                if len(names) != 1:
                    few = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
                    raise DataError(
                        f"{path}: holds {len(names)} files ({few}): give a .zip of one CSV"
                    )
                _check_size(path, archive.getinfo(names[0]).file_size)
                with archive.open(names[0]) as unpacked:
                    yield unpacked
        else:
            yield file


def _is_clutter(name: str) -> bool:
    """Return True for a folder, and for a file that macOS adds to an archive."""
    return name.endswith("/") or name.startswith("__MACOSX/") or Path(name).name.startswith(".")


def _layout(
    lines: Iterator[Line], label_column: str | None, pixel_max: int | None
) -> tuple[_Layout, Iterator[Line]]:
    """Return the layout, and the lines without the header."""
    first = list(itertools.islice(lines, 1))
    text = first[0][1] if first else ""
    separator = max(_SEPARATORS, key=text.count)
    fields = _fields(text, separator)
    ends = [fields[end].strip("'").lower() for end in (0, -1)]
    if not all(map(_is_number, ends)):  # a header
        first = []
        sides = zip(("first", "last"), ends, strict=True)
        named = (side for side, name in sides if name in _LABEL_NAMES)
        label_column = label_column or next(named, None)
    label = -1 if label_column == "last" else 0
    layout = _Layout(separator, label, label_column is not None, pixel_max or WHITE)
    return layout, itertools.chain(first, lines)


def _fields(line: str, separator: str) -> list[str]:
    return [field.strip().strip('"') for field in line.rstrip("\r\n").split(separator)]


def _is_number(field: str) -> bool:
    try:
        float(field or "0")
    except ValueError:
        return False
    return True


def _table(path: str, lines: Sequence[Line], layout: _Layout) -> Int32[np.ndarray, "lines 785"]:
    """Return the numbers in the lines.

    Raises:
        DataError: names the first line that is wrong.
    """
    limits = np.full(COLUMNS, layout.white)
    limits[layout.label] = _LABELS - 1
    try:
        # NumPy before 2.4 reads 3.7 as 3, with a warning.
        with catch_warnings(action="error", category=DeprecationWarning):
            table = np.loadtxt(
                (line for _, line in lines),
                np.int32,
                comments=None,
                delimiter=layout.separator,
                quotechar='"',
                ndmin=2,
            )
        if table.shape[1] == COLUMNS and ((table >= 0) & (table <= limits)).all():
            return table
    except (ValueError, DeprecationWarning):
        pass
    faults = (f"line {n}: {fault}" for n, line in lines if (fault := _fault(line, layout)))
    raise DataError(f"{path}: {next(faults, 'not a table of integers')}")


def _fault(line: str, layout: _Layout) -> str | None:
    fields = _fields(line, layout.separator)
    if len(fields) != COLUMNS:
        order = "784 pixels, then label" if layout.label else "label, then 784 pixels"
        return f"{len(fields)} columns instead of {COLUMNS} ({order})"
    label = layout.label % COLUMNS
    for column, field in enumerate(fields):
        kind, top = ("label", _LABELS - 1) if column == label else ("pixel", layout.white)
        if not _INTEGER.fullmatch(field):
            return f"column {column + 1}: {kind} {field[:20]!r} is not an integer"
        if not 0 <= int(field) <= top:
            return f"column {column + 1}: {kind} {int(field)} is outside 0..{top}"
    return None


def _split_columns(
    table: Int32[np.ndarray, "n 785"], layout: _Layout
) -> tuple[np.ndarray, Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
    """Return images of bytes, the labels, and the column at the other end."""
    pixels = table[:, :-1] if layout.label else table[:, 1:]
    if layout.white != WHITE:
        pixels = np.rint(pixels * WHITE / layout.white)
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    return images, table[:, layout.label].copy(), table[:, -1 - layout.label].copy()


def _may_be_labels(column: Int32[np.ndarray, " n"]) -> bool:
    """Return whether there are several values, none of them rare or as large as bright pixels."""
    values, counts = np.unique(column, return_counts=True)
    return bool(len(values) > 1 and counts.min() >= 5 and values[-1] < 200)
