"""TensorBoard events of a trial: metrics after every epoch, results at the end."""

import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from mnist_jax.types import UserError, printable


class TensorBoard:
    """An event file that starts with the epochs so far.

    tensorboardX's EventsWriter and not its SummaryWriter, which keeps epochs back in a thread: a
    kill loses them, and on a full disk the program hangs.
    """

    def __init__(self, directory: Path, history: Sequence[Mapping[str, Any]]):
        """Replace the events in the directory, which may be an epoch ahead of the checkpoints.

        Raises:
          UserError: the directory cannot be written.
        """
        self.directory = directory
        try:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            # A name of its own for each process, lest TensorBoard reads on in the old file.
            self.writer = EventsWriter(str(directory / "events"), f".{time.time_ns()}")
        except OSError as error:
            raise self._unwritable(error) from error
        for row in history:
            self.epoch(row)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Add a row of metrics, one scalar for each number.

        Raises:
          UserError: the disk is full.
        """
        numbers = {name: x for name, x in row.items() if name not in ("epoch", "step", "trial")}
        self._write(row["epoch"], _scalars(numbers))

    def finish(
        self,
        epoch: int,
        hparams: Mapping[str, Any],
        results: Mapping[str, float],
        images: Mapping[str, UInt8[np.ndarray, "h w 1"]],
        params: Mapping[str, Float32[np.ndarray, "..."]],
    ) -> None:
        """Add the results of the run.

        Args:
          epoch: of the parameters.
          hparams: the configuration, by key.
          results: of the test split.
          images: by caption.
          params: by path, shown as histograms.

        Raises:
          UserError: the disk is full.
        """
        plain = {
            key: value if isinstance(value, bool | int | float) else printable(str(value))
            for key, value in hparams.items()
        }
        self._write(
            epoch,
            [
                *summary.hparams(plain, results),
                *_scalars(results),
                *(
                    summary.image(f"mistakes/{_tag(caption)}", image, dataformats="HWC")
                    for caption, image in images.items()
                ),
                *(
                    summary.histogram(f"parameters/{path}", x.ravel(), "auto", max_bins=100)
                    for path, x in params.items()
                    if np.isfinite(x).all()
                ),
            ],
        )

    def _write(self, epoch: int, summaries: Iterable[Summary]) -> None:
        try:
            for one in summaries:
                self.writer.write_event(Event(wall_time=time.time(), step=epoch, summary=one))
            self.writer.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> "TensorBoard":
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(OSError):  # closing flushes once more; a full disk was reported already
            self.writer.close()

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.directory}: cannot be written ({error.strerror}); make room")


def _tag(caption: str) -> str:
    """Return a caption with only the letters that a tag may have."""
    return re.sub(r"[^-.\w]", "_", caption)


def _scalars(numbers: Mapping[str, float | None]) -> list[Summary]:
    return [summary.scalar(name, x) for name, x in numbers.items() if x is not None]
