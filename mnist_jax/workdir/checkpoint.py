"""Checkpoints of a group of trials: written in the background, the latest two.

The checkpoint of an epoch is the directory `<directory>/<epoch>`. It appears by one rename when it
is complete and disappears by one rename, so that a killed run leaves complete checkpoints only.
Orbax writes two items into it: `state`, the arrays, and `record`, a JSON object of the history, the
arrays' layout, and a checksum over these and the arrays' bytes (Orbax alone does not notice a
flipped bit). One process at a time may write to a directory: the first of a group of processes.
"""

import json
import logging
import shutil
import sys
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation_policy_lib

from mnist_jax.types import PyTree, UserError

_KEPT = 2  # checkpoints: one to fall back on when the newest is damaged
_FIRST_PROCESS = ocp.options.MultiprocessingOptions(active_processes={0})
_TRASH = "deleted"  # a checkpoint moves in here whole before its files are removed


class CheckpointError(UserError):
    """A checkpoint cannot be written, cannot be read, or is of another model."""


class Checkpoint(NamedTuple):
    """The state and the history after an epoch."""

    epoch: int
    state: PyTree  # of the type that was saved
    history: list[dict[str, Any]]  # the rows of metrics.jsonl up to and with this epoch


@contextmanager
def open_directory(directory: Path) -> Iterator[ocp.CheckpointManager]:
    """Open the checkpoints to write, creating the directory; on leaving, wait for the last save.

    What a killed process left incomplete is removed, at the latest by the first save.

    Args:
        directory: Of the checkpoints.

    Raises:
        CheckpointError: The directory cannot be used, or the last save failed.
    """
    directory = directory.absolute()  # orbax takes no relative path
    options = ocp.CheckpointManagerOptions(
        # Otherwise, if this fails, Orbax's threads keep the process alive for 5 minutes.
        async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        cleanup_tmp_directories=True,
        create=False,
        multiprocessing_options=_FIRST_PROCESS,
        preservation_policy=preservation_policy_lib.LatestN(_KEPT),
        todelete_subdir=_TRASH,
    )
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        manager = ocp.CheckpointManager(directory, options=options)
    try:
        yield manager
        wait(manager)
        _empty_trash(manager)
    finally:
        with _explained(directory):
            manager.close()


def save(
    manager: ocp.CheckpointManager, epoch: int, state: PyTree, history: list[dict[str, Any]]
) -> None:
    """Save an epoch in the background; `state` and `history` may be changed afterwards.

    Args:
        manager: From `open_directory`.
        epoch: Higher than every epoch saved so far.
        state: NumPy or JAX arrays in any tree; None and empty subtrees are allowed.
        history: The rows of metrics.jsonl so far; JSON.

    Raises:
        CheckpointError: This save or the one before failed, or this or a later epoch exists
            already. Complete checkpoints are untouched.
    """
    wait(manager)
    _empty_trash(manager)
    host = jax.tree.map(np.array, state)  # copies: the caller's arrays may change meanwhile
    leaves = _by_path(host)
    record = {"history": history, "layout": _layout(leaves)}
    record = json.loads(json.dumps(record))  # a copy, exactly as it will be read back
    record["checksum"] = _checksum(record, leaves.values())
    items = ocp.args.Composite(state=ocp.args.StandardSave(host), record=ocp.args.JsonSave(record))
    with _explained(manager.directory):
        saved = manager.save(epoch, args=items)
    if not saved:  # Orbax's answer when the epoch is not above all others
        raise CheckpointError(
            f"{manager.directory}: epoch {epoch} is not saved, because epoch "
            f"{manager.latest_step()} exists; resume from it, or start again with --overwrite"
        )


def verify(manager: ocp.CheckpointManager, epoch: int) -> None:
    """Wait for the save of an epoch and read it back; remove it if it is damaged.

    Raises:
        CheckpointError: The save failed, or the checkpoint cannot be read back.
    """
    wait(manager)
    path = Path(manager.directory, str(epoch))
    try:
        _read(path)
    except Exception as error:  # Orbax, tensorstore and json raise any type for damage
        shutil.rmtree(path, ignore_errors=True)
        raise CheckpointError(
            f"{path}: cannot be read back after it was saved ({_line(error)}); give another "
            "--workdir"
        ) from error


def wait(manager: ocp.CheckpointManager) -> None:
    """Wait until the last save is complete.

    Raises:
        CheckpointError: The save failed. Checkpoints that were complete are untouched.
    """
    with _explained(manager.directory):
        manager.wait_until_finished()


def restore(
    manager: ocp.CheckpointManager, like: PyTree, on_warning: Callable[[str], Any] = warnings.warn
) -> Checkpoint | None:
    """Restore, bit for bit, the newest complete checkpoint, to train on from it.

    Newer, damaged checkpoints are renamed to `<epoch>.damaged`, so that their epochs can be saved
    again.

    Args:
        manager: From `open_directory`.
        like: The state's structure, shapes and dtypes: arrays or `jax.ShapeDtypeStruct`s.
        on_warning: Called with one line for every damaged checkpoint that is skipped.

    Returns:
        The checkpoint, of NumPy arrays; None if there are none at all.

    Raises:
        CheckpointError: All are damaged, or the newest complete one has another layout than `like`.
    """
    wait(manager)
    found, damaged = _newest(Path(manager.directory), like, on_warning)
    with _explained(manager.directory):
        for path in damaged:
            aside = path.with_name(f"{path.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    manager.reload()
    return found


def read(
    directory: Path, like: PyTree, on_warning: Callable[[str], Any] = warnings.warn
) -> Checkpoint | None:
    """Read the newest complete checkpoint; change nothing, so that the run may train meanwhile.

    It takes and returns what `restore` does, and raises the same errors.
    """
    return _newest(directory.absolute(), like, on_warning)[0]


def _newest(
    directory: Path, like: PyTree, on_warning: Callable[[str], Any]
) -> tuple[Checkpoint | None, list[Path]]:
    """Return the newest complete checkpoint and the damaged ones after it."""
    damaged: list[Path] = []
    while path := max(set(_complete(directory)).difference(damaged), key=_epoch, default=None):
        try:
            record, leaves = _read(path)
        except Exception as error:  # Orbax, tensorstore and json raise any type for damage
            if path.exists():  # else the training run has removed it, after saving a newer one
                on_warning(f"{path}: skipping a damaged checkpoint ({_line(error)})")
                damaged.append(path)
            continue
        names = _by_path(like)
        _check_layout(path, record["layout"], _layout(names))
        state = jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in names])
        return Checkpoint(_epoch(path), state, record["history"]), damaged
    if damaged:
        raise CheckpointError(
            f"{directory}: every checkpoint is damaged; restore a copy of one, or start "
            "again with --overwrite"
        )
    return None, []


def _complete(directory: Path) -> Iterator[Path]:
    """Yield complete checkpoints; incomplete and damaged ones have longer names."""
    return (path for path in directory.glob("*/") if path.name.isdecimal())


def _epoch(path: Path) -> int:
    return int(path.name)


def _empty_trash(manager: ocp.CheckpointManager) -> None:
    shutil.rmtree(Path(manager.directory, _TRASH), ignore_errors=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the record and the arrays by path; raise anything if they are damaged."""
    items = {"state": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
    args = ocp.args.Composite(state=ocp.args.StandardRestore(), record=ocp.args.JsonRestore())
    handler = ocp.CompositeCheckpointHandler(**items)
    with ocp.Checkpointer(handler, multiprocessing_options=_FIRST_PROCESS) as reader:
        restored = reader.restore(path, args)
    record, leaves = restored["record"], _by_path(restored["state"])
    if record["checksum"] != _checksum(record, [leaves[name] for name in record["layout"]]):
        raise ValueError("its checksum differs")
    return record, leaves


def _by_path(tree: PyTree) -> dict[str, Any]:
    """Name leaves like `params/Dense_0/kernel`, whatever the containers' types."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _layout(leaves: dict[str, Any]) -> dict[str, str]:
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}


def _check_layout(path: Path, saved: dict[str, str], wanted: dict[str, str]) -> None:
    for name in sorted(saved | wanted):
        there, here = saved.get(name, "missing"), wanted.get(name, "missing")
        if there != here:
            raise CheckpointError(
                f"{path}: the checkpoint is of another model or optimizer: {name} is {there} there "
                f"and {here} here: use the config it was made with, or start again with --overwrite"
            )


def _checksum(record: dict[str, Any], leaves: Iterable[Any]) -> int:
    text = json.dumps({key: value for key, value in record.items() if key != "checksum"})
    total = zlib.crc32(text.encode())
    for leaf in leaves:
        total = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data, total)
    return total


def _line(error: Exception) -> str:
    """Shorten an error to one line, the reason at its end; Orbax may print whole arrays between."""
    text = " ".join(str(error).partition("[tensorstore_spec")[0].split())
    text = text if len(text) <= 300 else f"{text[:100]} ... {text[-200:]}"
    return f"{type(error).__name__}: {text}"


@contextmanager
def _explained(directory: Any) -> Iterator[None]:
    """Turn any error of Orbax and the file system into one line."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(
            f"{directory}: cannot write checkpoints ({_line(error)}): earlier ones are intact; "
            "make room or give access, then run again to resume"
        ) from error


_glob_of_patterns = epath.gpath.PosixGPath.glob


def _glob(self: epath.Path, pattern: str) -> Iterator[epath.Path]:
    """Match a pattern in a directory, as pathlib does.

    Orbax lists its directories through etils, which takes the directory's own name as a pattern as
    well, and so finds nothing in `runs [2026]`.
    """
    local = Path(self)
    if not local.is_dir():  # a bucket
        return _glob_of_patterns(self, pattern)
    return map(type(self), local.glob(pattern))


epath.gpath.PosixGPath.glob = _glob

_NOISE = ("Metadata file does not", "Waiting for previous save")


def _not_noise(record: logging.LogRecord) -> bool:
    """Pass only useful warnings of Orbax: progress is noise, and errors are raised here."""
    source = record.getMessage() if record.name == "asyncio" else record.pathname
    noise = record.levelno != logging.WARNING or str(record.msg).startswith(_NOISE)
    return not (noise and "/orbax/checkpoint/" in source)


def _not_too_late(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Ignore arrays that report to an event loop that Orbax closed after another array failed."""
    return lambda info: None if str(info.exc_value) == "Event loop is closed" else hook(info)


logging.getLogger("absl").addFilter(_not_noise)
logging.getLogger("asyncio").addFilter(_not_noise)  # names the tasks that orbax has abandoned
sys.unraisablehook = _not_too_late(sys.unraisablehook)
