"""Atomic writes: a reader sees the old file or the whole new one."""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file, which becomes `path` if the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # before the renaming: power may fail in between
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def target_name(temporary: Path) -> str | None:
    """Return the name of the file that a killed process was replacing; None for other files."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]+", temporary.name)
    return found and found[1]
