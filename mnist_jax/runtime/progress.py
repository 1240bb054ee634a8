"""Progress of a run on the terminal, and stopping it by a signal."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import numpy as np
from tqdm import tqdm

from mnist_jax.runtime import multihost
from mnist_jax.types import Row

Log = Callable[[str], None]


class Stopped(Exception):  # noqa: N818
    """A signal ended the run between two epochs; everything so far is saved."""

    def __init__(self, signum: int, epoch: int, epochs: int):
        super().__init__(f"stopped after epoch {epoch} of {epochs}, which is saved")
        self.signum = signum


def epoch_line(
    rows: Sequence[Row], num_trials: int, num_epochs: int, seconds: float
) -> tuple[str, dict[str, str]]:
    """Describe an epoch in one line, and in short for a progress bar.

    Args:
      rows: of the trials that were trained, as in metrics.jsonl.
      num_trials: of the group, stopped ones too.
      num_epochs: of the run.
      seconds: of the epoch.
    """
    if num_trials == 1:
        return _single(rows[0], num_epochs)
    shown = {"trials": f"{len(rows)}" + (f" of {num_trials}" if len(rows) < num_trials else "")}
    for name, key in {"acc": "train_accuracy", "val acc": "val_accuracy"}.items():
        values = np.array([row[key] for row in rows if row[key] is not None])
        if len(values):
            spread = f" ± {100 * values.std(ddof=1):.2f}" if len(values) > 1 else ""
            shown[name] = f"{100 * values.mean():.2f}{spread}%"
    if diverged := sum(row["train_loss"] is None for row in rows):
        shown["diverged"] = f"{diverged}"
    facts = "  ".join(f"{name} {value}" for name, value in shown.items())
    return f"epoch {rows[0]['epoch']}/{num_epochs}  {facts}  {seconds:.1f} s", shown


def _single(row: Row, num_epochs: int) -> tuple[str, dict[str, str]]:
    parts, shown = [f"epoch {row['epoch']}/{num_epochs}"], {"loss": f"{row['train_loss']:.4f}"}
    for prefix, split in (("", "train"), ("val ", "val")):
        loss, accuracy = row[f"{split}_loss"], row[f"{split}_accuracy"]
        if accuracy is not None:
            shown[f"{prefix}acc"] = f"{100 * accuracy:.2f}%"
        if loss is not None:
            right = "" if accuracy is None else f" accuracy {100 * accuracy:.2f}%"
            parts.append(f"{prefix}loss {loss:.4f}{right}")
    parts += [f"{row['seconds']:.1f} s", f"{row['examples_per_second']:,.0f} examples/s"]
    return "  ".join(parts), shown


class Bar:
    """A progress bar over the examples of all epochs on a terminal; elsewhere a line per epoch."""

    def __init__(self, num_epochs: int, epochs_done: int, examples: int, log: Log):
        self.log = log
        self.due = 0.0
        self.bar = tqdm(
            total=num_epochs * examples,
            initial=epochs_done * examples,
            unit=" examples",
            unit_scale=True,
            disable=not (sys.stdout.isatty() and sys.stderr.isatty() and multihost.is_first()),
            dynamic_ncols=True,
        )

    def describe(self, what: str) -> None:
        """Set the text in front of the bar."""
        self.bar.set_description_str(what)

    def tick(self) -> None:
        """Update the clock, at most ten times per second."""
        if time.monotonic() > self.due:
            self.due = time.monotonic() + 0.1
            self.bar.refresh()

    def add(self, examples: int) -> None:
        """Advance by some examples."""
        self.bar.update(examples)

    def epoch(self, line: str, shown: Mapping[str, str]) -> None:
        """Show the result of an epoch: in a line, or at the end of the bar."""
        if self.bar.disable:
            self.log(line)
        self.bar.set_postfix(shown)

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        self.bar.write(line, file=sys.stderr)

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
