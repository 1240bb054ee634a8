"""What a run leaves on the disk while it trains: checkpoints, metrics.jsonl, TensorBoard's copy."""

from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict

from mnist_jax.analysis import error_analysis
from mnist_jax.config import flatten
from mnist_jax.data.splits import Splits
from mnist_jax.runtime.progress import Echo
from mnist_jax.train.state import State
from mnist_jax.types import PyTree, Row
from mnist_jax.workdir import checkpoint, files
from mnist_jax.workdir.checkpoint import Checkpoint
from mnist_jax.workdir.tensorboard import Board

_MISTAKES = 16  # how many TensorBoard shows


class Saves(ExitStack):
    """The checkpoints of a run or of a group of members, in a directory.

    Making one touches nothing: of several processes all have it, and one uses it, from `resume` on.
    """

    def __init__(self, directory: Path, like: PyTree, echo: Echo):
        """Remembers where, what a state looks like (numpy arrays), and whom to tell of damage."""
        super().__init__()
        self.directory, self.like, self.echo = directory, like, echo

    def resume(self) -> Checkpoint | None:
        """Opens the directory; the newest whole checkpoint, or None: there is none yet.

        Raises:
          UserError: the directory cannot be used, or all checkpoints are damaged.
        """
        self.manager = self.enter_context(checkpoint.open_directory(self.directory))
        return checkpoint.restore_latest(self.manager, self.like, self.echo)

    def save(self, epoch: int, state: PyTree, history: list[Row], score: float | None) -> None:
        """Writes a checkpoint in the background; UserError if there is no room."""
        checkpoint.save(self.manager, epoch, state, history, score)

    def wait(self) -> None:
        """Waits until the last checkpoint is there; UserError if it cannot be."""
        checkpoint.wait(self.manager)

    def best(self) -> Checkpoint:
        """The best epoch by validation, else the latest."""
        best = checkpoint.restore_best(self.manager, self.like, self.echo)
        assert best is not None, "training saves at least one epoch"
        return best


class Record(Saves):
    """The epochs of a run on the disk: checkpoints, metrics.jsonl and TensorBoard's copy."""

    def __init__(self, workdir: Path, like: State, echo: Echo):
        """As for `Saves`, but with the workdir."""
        super().__init__(workdir / files.CHECKPOINTS, like, echo)
        self.workdir = workdir

    def resume(self) -> Checkpoint | None:
        """Opens everything as the newest whole checkpoint has it; None: there is none yet.

        Raises:
          UserError: the workdir cannot be used, or all checkpoints are damaged.
        """
        last = super().resume()
        history = last.history if last else []
        # A kill may have left them an epoch ahead of the checkpoints, or behind.
        files.write(self.workdir / files.METRICS, files.to_rows(history))
        self.board = self.enter_context(Board(self.workdir / files.TENSORBOARD, history))
        return last

    def epoch(self, state: State, history: list[Row], score: float | None) -> None:
        """Adds the epoch of the history's last row; its checkpoint is written in the background.

        Raises:
          UserError: there is no room.
        """
        row = history[-1]
        self.save(row["epoch"], state, history, score)
        files.write(self.workdir / files.METRICS, files.to_rows(history))
        self.board.epoch(row)

    def results(
        self,
        best: Checkpoint,
        config: ConfigDict,
        summary: Row,
        splits: Splits,
        scores: Float32[np.ndarray, "test classes"] | None,
    ) -> None:
        """Tells TensorBoard what came of the run.

        Args:
          best: the epoch that was judged.
          config: of the run.
          summary: of the run.
          splits: what it learnt from and was judged by.
          scores: of the test split, where the task is to tell classes apart.

        Raises:
          UserError: there is no room.
        """
        numbers = {
            key: x
            for key, x in summary.items()
            if key.startswith("test_") and isinstance(x, int | float)
        }
        images = {}
        if scores is not None:
            (test, labels), names = splits.test, splits.class_names
            decisions = error_analysis.decide(scores)
            worst = error_analysis.worst_mistakes(decisions, labels, _MISTAKES)
            for rank, i in enumerate(worst, 1):
                seen = f"{names[labels[i]]} as {names[decisions.predicted[i]]}"
                images[f"{rank:02d} {seen}"] = test[i]
        params = {
            jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x)
            for path, x in jax.tree_util.tree_leaves_with_path(best.state.params)
        }
        hparams = {
            key: value
            for key, value in flatten(config.to_dict())
            if value is not None and not key.startswith(("data.", "members."))
        }
        self.board.finish(best.epoch, {"data": splits.name, **hparams}, numbers, images, params)
