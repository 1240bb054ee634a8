"""Standard output and standard error, which may be closed, full, or gone with their terminal."""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from mnist_jax.types import UserError


class Unwritable(UserError):  # noqa: N818
    """Standard output cannot be written; from now on everything printed is discarded."""

    def __init__(self, error: OSError):
        super().__init__(
            f"standard output: cannot be written ({error.strerror}); send it somewhere else"
        )
        self.closed_pipe = error.errno == errno.EPIPE


def prepare() -> None:
    """Replace closed streams, and characters that standard output cannot encode."""
    # The next file to be opened would otherwise be standard output.
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(null)
    for fileno, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(fileno, "w", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def say(text: str, end: str = "\n") -> None:
    """Print to standard output at once.

    Raises:
      Unwritable: it cannot be written.
    """
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        _discard(sys.stdout)
        raise Unwritable(error) from error


def warn(text: str) -> None:
    """Print a line to standard error; nothing happens if it cannot be written."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def flush() -> None:
    """Write what libraries have printed, which Python would do too late to report errors.

    Raises:
      Unwritable: standard output cannot be written.
    """
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    say("", end="")


def shows_blocks() -> bool:
    """Return True if standard output is a terminal whose encoding has block characters."""
    try:
        "▀█".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return sys.stdout.isatty()


@contextmanager
def without_reader() -> Iterator[Callable[[str], None]]:
    """Let long work continue when nothing reads its output or its terminal is closed (SIGHUP).

    Yields:
      A function that prints a line.

    Raises:
      Unwritable: at the end, if the reader of a pipe is gone.
    """
    lost: list[Unwritable] = []

    def log(line: str) -> None:
        try:
            say(line)
        except Unwritable as error:
            lost.append(error)
            if not error.closed_pipe:
                warn(f"warning: {error}; the run continues")

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN) if in_main_thread else None
    try:
        yield log
    finally:
        if in_main_thread:
            signal.signal(signal.SIGHUP, before)
    if lost and lost[0].closed_pipe:
        raise lost[0]


def _discard(stream: TextIO) -> None:
    """Send a stream nowhere, or each later write and the end of Python would fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
