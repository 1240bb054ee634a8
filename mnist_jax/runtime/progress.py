"""What a person sees while a run goes on, and how they stop it."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from mnist_jax.runtime import multihost
from mnist_jax.types import PyTree

Echo = Callable[[str], None]


class Stopped(Exception):  # noqa: N818
    """A signal ended the run between two epochs; everything up to there is saved."""

    def __init__(self, signum: int, epoch: int, epochs: int):
        super().__init__(f"stopped after epoch {epoch} of {epochs}, which is saved")
        self.signum = signum


def epoch_line(row: Mapping[str, Any], num_epochs: int) -> str:
    """An epoch in one line."""
    parts = [f"epoch {row['epoch']}/{num_epochs}"]
    for prefix, split in (("", "train"), ("val ", "val")):
        if row[f"{split}_loss"] is not None:
            accuracy = row[f"{split}_accuracy"]
            right = "" if accuracy is None else f" accuracy {100 * accuracy:.2f}%"
            parts.append(f"{prefix}loss {row[f'{split}_loss']:.4f}{right}")
    parts += [f"{row['seconds']:.1f} s", f"{row['examples_per_second']:,.0f} examples/s"]
    return "  ".join(parts)


def members_line(
    rows: Sequence[Mapping[str, Any]], total: int, num_epochs: int, seconds: float
) -> tuple[str, dict[str, str]]:
    """An epoch of those of several members who still train: in one line, and in short for a bar."""
    shown = {"members": f"{len(rows)}" + (f" of {total}" if len(rows) < total else "")}
    for name, key in {"acc": "train_accuracy", "val acc": "val_accuracy"}.items():
        values = np.array([row[key] for row in rows if row[key] is not None])
        if len(values):
            spread = f" ± {100 * values.std(ddof=1):.2f}" if len(values) > 1 else ""
            shown[name] = f"{100 * values.mean():.2f}{spread}%"
    if lost := sum(row["train_loss"] is None for row in rows):
        shown["diverged"] = f"{lost}"
    facts = "  ".join(f"{name} {value}" for name, value in shown.items())
    return f"epoch {rows[0]['epoch']}/{num_epochs}  {facts}  {seconds:.1f} s", shown


class Bar:
    """A progress bar over the examples of all epochs on a terminal; a line an epoch elsewhere."""

    def __init__(self, num_epochs: int, epochs_done: int, examples: int, echo: Echo):
        self.num_epochs, self.examples, self.echo = num_epochs, examples, echo
        self.due = 0.0
        self.bar = tqdm(
            total=num_epochs * examples,
            initial=epochs_done * examples,
            unit=" examples",
            unit_scale=True,
            disable=not (sys.stdout.isatty() and sys.stderr.isatty() and multihost.is_first()),
            dynamic_ncols=True,
        )

    def say(self, what: str) -> None:
        """Says what is going on."""
        self.bar.set_description_str(what)

    def tick(self) -> None:
        """Moves the clock on, ten times a second at most."""
        if time.monotonic() > self.due:
            self.due = time.monotonic() + 0.1
            self.bar.refresh()

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Shows an epoch that is done."""
        shown = {"loss": f"{row['train_loss']:.4f}"}
        for name, key in (("acc", "train_accuracy"), ("val acc", "val_accuracy")):
            if row[key] is not None:
                shown[name] = f"{100 * row[key]:.2f}%"
        self.add(self.examples)
        self.done(epoch_line(row, self.num_epochs), shown)

    def add(self, examples: int) -> None:
        """Counts examples that are done."""
        self.bar.update(examples)

    def done(self, line: str, shown: Mapping[str, str]) -> None:
        """Says how it stands: in a line, or at the end of the bar."""
        if self.bar.disable:
            self.echo(line)
        self.bar.set_postfix(shown)

    def write(self, line: str) -> None:
        """Shows a line above the bar."""
        self.bar.write(line, file=sys.stderr)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.bar.close()


def wait(values: PyTree, tick: Callable[[], None]) -> None:
    """Waits until the device has computed all of `values`, with `tick` called now and then."""
    start = time.perf_counter()
    for value in jax.tree.leaves(values):
        while not value.is_ready():
            # A share of the time so far: what the caller measures is not that of a nap.
            time.sleep(min(0.02, 1e-4 + 0.01 * (time.perf_counter() - start)))
            tick()


@contextmanager
def interruptible(echo: Echo) -> Iterator[Callable[[], int]]:
    """Turns the first SIGINT or SIGTERM into a request; the second acts at once.

    Yields:
      A function that returns the signal that asked to stop, 0 for none.
    """
    asked = 0

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = signum
        with suppress(RuntimeError):  # it came in the middle of a write to the same stream
            echo("stopping once this epoch is done and saved; the same again stops at once")

    if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
        yield lambda: 0
        return
    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
