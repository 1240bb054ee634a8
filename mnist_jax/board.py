"""TensorBoard's copy of the metrics, complete after every epoch."""

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.summary import scalar

from mnist_jax.types import UserError


class Board:
    """An event file that starts with the epochs so far.

    tensorboardX's EventsWriter and not its SummaryWriter, which keeps epochs back in a thread: a
    kill loses them, and on a full disk the program hangs.
    """

    def __init__(self, directory: Path, history: Sequence[Mapping[str, Any]]):
        """Replaces what is in the directory, which may be an epoch ahead of the checkpoints.

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
        """Adds a row of metrics, one scalar for each number.

        Raises:
          UserError: the disk is full.
        """
        try:
            for name, value in row.items():
                if value is not None and name not in ("epoch", "step"):
                    point = scalar(name, value)
                    event = Event(wall_time=time.time(), step=row["epoch"], summary=point)
                    self.writer.write_event(event)
            self.writer.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(OSError):  # closing flushes once more; a full disk was told of already
            self.writer.close()

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.directory}: cannot be written ({error.strerror}); make room")
