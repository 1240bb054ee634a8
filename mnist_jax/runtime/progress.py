"""Progress of a run on the terminal, and stopping it by a signal."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import numpy as np
from tqdm import tqdm

from mnist_jax.runtime import multihost, output
from mnist_jax.types import Row

Log = Callable[[str], None]


class Stopped(Exception):  # noqa: N818
    """A signal ended the run between two epochs; everything so far is saved."""

    def __init__(self, signum: int, epoch: int, epochs: int):
        super().__init__(f"stopped after epoch {epoch} of {epochs}, which is saved")
        self.signum = signum


def epoch_line(rows: Sequence[Row], num_trials: int, num_epochs: int, seconds: float) -> str:
    """Describe an epoch in one line, of at most 80 columns unless trials diverge.

    Args:
      rows: of the trials that were trained, as in metrics.jsonl.
      num_trials: of the group, stopped ones too.
      num_epochs: of the run.
      seconds: of the epoch.
    """
    parts = [f"epoch {rows[0]['epoch']}/{num_epochs}"]
    if num_trials == 1:
        parts += [
            f"{prefix}loss {_short(row[f'{split}_loss'])}"
            + _percent(" acc ", [row[f"{split}_accuracy"]])
            for row in rows
            for prefix, split in (("", "train"), ("val ", "val"))
            if row[f"{split}_loss"] is not None
        ]
    else:
        of_all = f" of {num_trials}" if len(rows) < num_trials else ""
        parts.append(f"trials {len(rows)}{of_all}")
        parts += [
            _percent(name, [row[f"{split}_accuracy"] for row in rows])
            for name, split in (("acc ", "train"), ("val acc ", "val"))
        ]
        if diverged := sum(row["train_loss"] is None for row in rows):
            parts.append(f"diverged {diverged}")
    return "  ".join([*filter(None, parts), f"{seconds:.1f} s"])


def _percent(name: str, accuracies: Sequence[float | None]) -> str:
    """Format the mean and standard deviation; "" if there are no accuracies."""
    values = np.array([value for value in accuracies if value is not None])
    if not len(values):
        return ""
    spread = f" ± {100 * values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{name}{100 * values.mean():.2f}{spread}%"


def _short(loss: float) -> str:
    return f"{loss:.4f}" if loss < 1000 else f"{loss:.3g}"


def on_terminal() -> bool:
    """Return True in the process that prints, if a person reads it."""
    return sys.stdout.isatty() and sys.stderr.isatty() and multihost.is_first()


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Show on a terminal, while the block runs, what a run is doing."""
    with tqdm(desc=name, bar_format="{desc} ...", leave=False, disable=not on_terminal()):
        yield


class Bar:
    """A line per epoch; on a terminal also a progress bar over the examples of all epochs.

    Within an epoch the bar moves at the speed of the epoch before, because an epoch is one program
    that reports nothing until its end.
    """

    def __init__(self, num_epochs: int, epochs_done: int, examples: int, log: Log):
        self.log = log
        self.done = epochs_done * examples
        self.epoch_examples, self.start, self.due = 0, 0.0, 0.0
        self.speed = 0.0  # examples per second
        self.bar = tqdm(
            desc=f"epoch {epochs_done + 1}/{num_epochs}",
            total=num_epochs * examples,
            initial=self.done,
            unit=" examples",
            unit_scale=True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}, {rate_fmt}",
            disable=not on_terminal(),
            dynamic_ncols=True,
            leave=False,
        )

    def start_epoch(self, examples: int) -> None:
        """Start the clock of an epoch that trains on some examples."""
        self.epoch_examples, self.start = examples, time.monotonic()
        self.first = self.done

    def describe(self, what: str) -> None:
        """Set the text in front of the bar."""
        self.bar.set_description_str(what)

    def tick(self) -> None:
        """Move the clock, and the bar as far as expected, at most ten times per second."""
        now = time.monotonic()
        if now > self.due:
            self.due = now + 0.1
            expected = min(self.speed * (now - self.start), 0.99 * self.epoch_examples)
            self._move(self.first + int(expected))

    def add(self, examples: int) -> None:
        """Advance by some examples."""
        self.done += examples
        self._move(self.done)

    def end_epoch(self, line: str) -> None:
        """Print the result of an epoch in a line that stays."""
        self.speed = self.epoch_examples / (time.monotonic() - self.start)
        with tqdm.external_write_mode():
            self.log(line)

    def write(self, line: str) -> None:
        """Print a line above the bar to standard error."""
        with tqdm.external_write_mode():
            output.warn(line)

    def _move(self, examples: int) -> None:
        if not self.bar.disable:
            self.bar.n = max(self.bar.n, examples)
            self.bar.refresh()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.bar.close()


@contextmanager
def interruptible(log: Log) -> Iterator[Callable[[], int]]:
    """Turn the first SIGINT or SIGTERM into a request; the second one acts at once.

    Yields:
      A function that returns the signal that asked to stop, 0 for none.
    """
    asked = 0

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = signum
        with suppress(RuntimeError):  # the signal came in the middle of a write to this stream
            log("stopping after this epoch, which will be saved; the same again stops at once")

    if threading.current_thread() is not threading.main_thread():  # Python allows no handlers here
        yield lambda: 0
        return
    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
