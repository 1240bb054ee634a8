"""What a run leaves on the disk while it trains: checkpoints, metrics.jsonl, TensorBoard's copy."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mnist_jax import checkpoint
from mnist_jax import workdir as files
from mnist_jax.board import Board
from mnist_jax.checkpoint import Checkpoint
from mnist_jax.progress import Echo
from mnist_jax.results import Row
from mnist_jax.types import State


class Record:
    """The epochs of a run on the disk.

    Making one touches nothing: of several processes all have it, and one uses it, from `resume` on.
    """

    def __init__(self, workdir: Path, like: State, echo: Echo):
        """Remembers where, what a state looks like (numpy arrays), and whom to tell of damage."""
        self.workdir, self.like, self.echo = workdir, like, echo
        self.opened = ExitStack()

    def resume(self) -> Checkpoint | None:
        """Opens everything as the newest whole checkpoint has it; None: there is none yet.

        Raises:
          UserError: the workdir cannot be used, or all checkpoints are damaged.
        """
        directory = self.workdir / files.CHECKPOINTS
        self.manager = self.opened.enter_context(checkpoint.open_directory(directory))
        last = checkpoint.restore_latest(self.manager, self.like, self.echo)
        history = last.history if last else []
        # A kill may have left them an epoch ahead of the checkpoints, or behind.
        files.write(self.workdir / files.METRICS, files.to_rows(history))
        self.board = self.opened.enter_context(Board(self.workdir / files.TENSORBOARD, history))
        return last

    def epoch(self, state: State, history: list[Row], score: float | None) -> None:
        """Adds the epoch of the history's last row; its checkpoint is written in the background.

        Raises:
          UserError: there is no room.
        """
        row = history[-1]
        checkpoint.save(self.manager, row["epoch"], state, history, score)
        files.write(self.workdir / files.METRICS, files.to_rows(history))
        self.board.epoch(row)

    def wait(self) -> None:
        """Waits until the last epoch's checkpoint is there; UserError if it cannot be."""
        checkpoint.wait(self.manager)

    def best(self) -> Checkpoint:
        """The best epoch by validation, else the latest."""
        best = checkpoint.restore_best(self.manager, self.like, self.echo)
        assert best is not None, "training saves at least one epoch"
        return best

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.opened.__exit__(*exc_info)
