"""The host loop of a group: all its members trained, saved as they go."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int32
from ml_collections import ConfigDict

from mnist_jax.analysis import metrics
from mnist_jax.analysis.metrics import Metrics
from mnist_jax.data.splits import Splits
from mnist_jax.runs import groups, restore
from mnist_jax.runs.groups import Group
from mnist_jax.runs.space import Member
from mnist_jax.runtime import multihost, progress, sharding, xla
from mnist_jax.train import trials
from mnist_jax.train.trials import Course, Plan
from mnist_jax.types import Row
from mnist_jax.workdir.writer import Saves

_SAVE_SECONDS = 2.0  # a checkpoint of all members at most so often


class Finished(NamedTuple):
    """A group at its end, or where it pauses."""

    group: Group
    course: Course
    rows: list[Row]  # of each epoch and member; "member" is its place in the group
    compile_seconds: float


def run_group(
    config: ConfigDict,
    there: Sequence[Member],
    splits: Splits,
    directory: Path,
    echo: progress.Echo,
    until: int | None = None,
    dropped: Collection[int] = (),
) -> Finished:
    """Trains a group, from where its checkpoints are.

    Args:
      config: of the run.
      there: the members.
      splits: what they learn from and are validated on.
      directory: of the checkpoints.
      echo: told lines for a person.
      until: the epoch after which to pause; None: to their ends.
      dropped: settings that are trained no further.

    Raises:
      progress.Stopped: a signal asked to stop; everything so far is saved.
    """
    group = groups.make(config, there, splits, dropped)
    course = trials.start(group.plan, group.members)
    with Saves(directory, restore.on_host(course), echo) as saves:
        rows: list[Row] = []
        done = 0
        if last := multihost.on_first_process(saves.resume):
            course, rows, done = (
                sharding.put_replicated(group.plan.mesh, last.state),
                last.history,
                last.epoch,
            )
        left = ~np.isin(group.settings, [*dropped])
        active = np.asarray(course.active) & left
        course = course._replace(active=sharding.put_replicated(group.plan.mesh, active))
        todo = range(done + 1, (until or group.epochs) + 1)
        if not todo or not active.any():
            why = "trained already" if left.any() else "all its settings are dropped"
            echo(f"{directory}: {why}")
            return Finished(group, course, rows, 0.0)
        if done:
            echo(f"{directory}: goes on after epoch {done} of {group.epochs}")
        echo(introduction(group.plan, group.epochs, int(active.sum())))
        begin = time.perf_counter()
        epoch_of = compile_epoch(group, course)
        compile_seconds = time.perf_counter() - begin
        course, rows = _fit(group, course, rows, todo, epoch_of, saves, echo)
    return Finished(group, course, rows, compile_seconds)


def introduction(plan: Plan, epochs: int, active: int) -> str:
    """How many members are trained for so many epochs, and how many of them at a time."""
    if active == 1:
        return f"1 member of {epochs} epochs"
    programs = min(plan.threads, -(-active // plan.width))
    if plan.width > 1:
        how = f"{min(plan.width, active)} in one program"
        how += f", {programs} programs at once" if programs > 1 else ""
    else:
        how = f"one a core, {programs} at once" if programs > 1 else "one after the other"
    return f"{active} members of {epochs} epochs, {how}"


def compile_epoch(group: Group, course: Course) -> Callable:
    """`members.train_epoch` for a group, but for its plan."""
    index = np.zeros(group.plan.width, np.int32)
    args = course, group.members, index, np.int32(1), group.data
    return xla.compile_lowered(trials.train_epoch.lower(group.plan, *args))


def _fit(
    group: Group,
    course: Course,
    rows: list[Row],
    todo: range,
    epoch_of: Callable,
    saves: Saves,
    echo: progress.Echo,
) -> tuple[Course, list[Row]]:
    """Trains some epochs; returns where all members are, and the rows of these epochs too."""
    examples = trials.num_train(group.data) * len(group.settings)
    bar = progress.Bar(group.epochs, todo[0] - 1, examples, echo)
    saved = time.monotonic()
    with bar, progress.interruptible(bar.write) as stop_signal:
        for epoch in todo:
            active = np.flatnonzero(course.active).tolist()
            course, new = train_epoch(group, course, epoch_of, epoch, active, bar)
            rows = rows + new
            last_one = epoch == todo[-1] or not np.any(course.active)
            signum = multihost.max_over_processes(stop_signal())
            # The clocks of several processes differ; all save, or none.
            due = multihost.max_over_processes(int(time.monotonic() - saved > _SAVE_SECONDS))
            if last_one or signum or due:
                multihost.on_first_process(partial(saves.save, epoch, course, rows, None))
                saved = time.monotonic()
            if signum:
                multihost.on_first_process(saves.wait)
                raise progress.Stopped(signum, epoch, group.epochs)
            if last_one:
                break
    return course, rows


def train_epoch(
    group: Group,
    course: Course,
    epoch_of: Callable,
    epoch: int,
    active: Sequence[int],
    bar: progress.Bar,
) -> tuple[Course, list[Row]]:
    """Trains and validates an epoch of the members that are active.

    Args:
      group: theirs.
      course: of all members of the group; given away.
      epoch_of: `members.train_epoch`, compiled.
      epoch: counts from 1.
      active: places in the group.
      bar: told what is done.
    """
    start = time.perf_counter()
    rows: list[Row] = []

    def train(chunk: Sequence[int]) -> tuple[Course, Metrics, Metrics]:
        args = course, group.members, filled(chunk, group), np.int32(epoch), group.data
        return jax.block_until_ready(epoch_of(*args))

    todo = list(chunks(active, group.plan.width))
    pool = ThreadPoolExecutor(group.plan.threads)
    try:
        jobs = [pool.submit(train, chunk) for chunk in todo]
        for chunk, job in zip(todo, jobs, strict=True):
            bar.say(f"epoch {epoch}/{group.epochs}, member {len(rows) + 1}/{len(active)}")
            while futures.wait([job], timeout=0.1).not_done:
                bar.tick()
            _, sums, judged = job.result()
            rows += _rows(epoch, chunk, sums, judged)
            bar.add(len(chunk) * trials.num_train(group.data))
    finally:
        pool.shutdown(cancel_futures=True)
    for chunk, job in zip(todo, jobs, strict=True):
        course = trials.put(course, filled(chunk, group), job.result()[0])
    seconds = time.perf_counter() - start
    rows = [{**row, "seconds": seconds / len(rows)} for row in rows]
    # Who has stopped counts as done, so that the bar comes to its end.
    bar.add((len(group.settings) - len(active)) * trials.num_train(group.data))
    bar.done(*progress.members_line(rows, len(group.settings), group.epochs, seconds))
    return course, rows


def _rows(epoch: int, chunk: Sequence[int], sums: Metrics, judged: Metrics) -> list[Row]:
    """What an epoch says of some members; None where it is not finite.

    An accuracy without a loss is none: NaN decides for the first class, and is right by chance.
    """
    means = jax.device_get((metrics.mean(sums), metrics.mean(judged)))
    rows = []
    for i, member in enumerate(chunk):
        row: Row = {"epoch": epoch, "member": member}
        for split, mean in zip(("train", "val"), means, strict=True):
            loss, accuracy = (_finite(mean[key][i]) for key in ("loss", "accuracy"))
            lost = loss is None or row.get("train_loss", loss) is None
            row |= {f"{split}_loss": loss, f"{split}_accuracy": None if lost else accuracy}
        rows.append(row)
    return rows


def outcomes(finished: Finished) -> list[Row]:
    """What came of each member of a group; nothing is said of how good one was that diverged."""
    group, course, rows = finished.group, jax.device_get(finished.course), finished.rows
    found = []
    for member in range(len(group.settings)):
        own = [row for row in rows if row["member"] == member]
        best: Row = own[max(int(course.best_epoch[member]), 1) - 1]
        patience = group.plan.patience
        if course.diverged[member]:
            status, best = "diverged", {}
        elif len(own) == group.epochs:
            status = "finished"
        else:  # by its own patience, or by halving
            status = "stopped" if patience and course.waited[member] >= patience else "dropped"
        found.append(
            {
                "status": status,
                "epochs": len(own),
                "best_epoch": int(course.best_epoch[member]),
                "val_loss": best.get("val_loss"),
                "val_accuracy": best.get("val_accuracy"),
            }
        )
    return found


def chunks(indices: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    """Indices, so many at a time."""
    return (indices[i : i + size] for i in range(0, len(indices), size))


def filled(chunk: Sequence[int], group: Group) -> Int32[np.ndarray, "width"]:
    """A chunk's indices, filled up with nobody's."""
    nobody = [len(group.settings)] * (group.plan.width - len(chunk))
    return np.asarray([*chunk, *nobody], np.int32)


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
