"""Writers of the run directory: while a group of trials trains, and when the run is finished."""

import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from mnist_jax.runtime.progress import Log
from mnist_jax.types import PyTree, Row
from mnist_jax.workdir import checkpoint, files
from mnist_jax.workdir.checkpoint import Checkpoint
from mnist_jax.workdir.tensorboard import TensorBoard


class Writer(ExitStack):
    """Checkpoints of a group of trials; for a plain run metrics.jsonl and TensorBoard as well.

    Creating one touches no file: all processes have one, and the first one uses it.
    """

    def __init__(self, directory: Path, log: Log, workdir: Path | None = None):
        """Remember the directory of the checkpoints, and the workdir of a plain run."""
        super().__init__()
        self.directory, self.log, self.workdir = directory, log, workdir
        self.verified = False

    def resume(self, like: PyTree) -> Checkpoint | None:
        """Open the directory; return the newest complete checkpoint, or None if there is none.

        Raises:
          UserError: the directory cannot be used, or all checkpoints are damaged.
        """
        self.manager = self.enter_context(checkpoint.open_directory(self.directory))
        last = checkpoint.restore(self.manager, like, self.log)
        if self.workdir:
            # A killed run may have left these an epoch ahead of the checkpoints, or behind.
            rows = last.history if last else []
            files.write(self.workdir / files.METRICS, files.to_rows(rows))
            self.board = self.enter_context(TensorBoard(self.workdir / files.TENSORBOARD, rows))
        return last

    def save(self, epoch: int, states: PyTree, rows: list[Row]) -> None:
        """Save an epoch; its checkpoint is written in the background, and the first is read back.

        Raises:
          UserError: the disk is full, or the first checkpoint cannot be read back.
        """
        checkpoint.save(self.manager, epoch, states, rows)
        if not self.verified:
            checkpoint.verify(self.manager, epoch)
            self.verified = True
        if self.workdir:
            files.write(self.workdir / files.METRICS, files.to_rows(rows))
            self.board.epoch(rows[-1])

    def wait(self) -> None:
        """Wait until the last checkpoint is complete.

        Raises:
          UserError: it cannot be written.
        """
        checkpoint.wait(self.manager)


def write_predictions(
    path: Path, scores: Float32[np.ndarray, "..."], labels: Int32[np.ndarray, "n ..."]
) -> None:
    """Write the scores (n, classes), or (trials, n, classes), of a whole split."""
    packed = io.BytesIO()
    np.savez(packed, logits=scores, labels=labels, images_index=np.arange(len(labels)))
    files.write(path, packed.getvalue())


def finish(workdir: Path, summary: dict[str, Any], page: str, tables: dict[str, list[Row]]) -> None:
    """Write what remains of a finished run; the summary last: it says that the rest is complete.

    Args:
      workdir: of the run.
      summary: of summary.json.
      page: of report.html.
      tables: rows of metrics.jsonl and, with several trials, of trials.jsonl, by file name.
    """
    for name, rows in tables.items():
        files.write(workdir / name, files.to_rows(rows))
    files.write(workdir / files.REPORT, page)
    files.write(workdir / files.SUMMARY, files.to_json(summary))
