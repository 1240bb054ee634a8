"""The training loop: train and validate the trials of a group, save them, stop and resume."""

import time
from collections.abc import Callable, Collection, Sequence
from concurrent import futures
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mnist_jax.report import formats
from mnist_jax.runs import restore
from mnist_jax.runs.groups import Group
from mnist_jax.runtime import background, multihost, progress, sharding, xla
from mnist_jax.train import trials as vmapped
from mnist_jax.train.trials import EpochMetrics, Plan, Trials, TrialState
from mnist_jax.types import PyTree, Row, UserError
from mnist_jax.workdir.writer import Writer

_SAVE_SECONDS = 2.0  # between two checkpoints of several trials; a single one is saved every epoch


class Trained(NamedTuple):
    """A group at its end, or where it pauses."""

    group: Group
    states: TrialState  # of all its trials, NumPy
    rows: list[Row]  # of each epoch and trial; "trial" is its place in the group
    compile_seconds: float


class Later(NamedTuple):
    """The work that remains after a group."""

    groups: int
    epochs: int  # of all their trials together


class Chunk(NamedTuple):
    """The trials of one program; the last one fills the width up."""

    places: list[int]  # in the group
    active: list[int]  # those that still train
    trials: Trials
    states: TrialState


class Programs(NamedTuple):
    """`trials.train_epoch` and `trials.end_epoch`, compiled for the chunks of a group."""

    train: Callable
    end: Callable


def train_group(
    group: Group,
    writer: Writer,
    until: int | None = None,
    dropped: Collection[int] = (),
    later: Later | None = None,
) -> Trained:
    """Train a group, from its last checkpoint on.

    Args:
      group: its trials.
      writer: of its checkpoints and log.
      until: the epoch after which to pause; None: train to the end.
      dropped: settings that are trained no further.
      later: trained after this group; with it, the first epoch is followed by the estimated time.

    Raises:
      UserError: the only trial of a run diverged, or the workdir cannot be used.
      progress.Stopped: a signal asked to stop; everything so far is saved.
    """
    states: TrialState = jax.tree.map(np.array, vmapped.init(group.plan, group.trials))
    rows: list[Row] = []
    done, log = 0, writer.log
    with writer:
        if last := multihost.on_first_process(lambda: writer.resume(states)):
            states, rows, done = last.state, last.history, last.epoch
        elif source := group.init_from:
            net = multihost.on_first_process(lambda: restore.start(source, log))
            states = restore.start_from(states, net, source)
        left = ~np.isin(group.settings, [*dropped])
        active = states.active & left
        todo = range(done + 1, (until or group.epochs) + 1)
        if not todo or not active.any():
            why = "is trained already" if left.any() else "all its settings are dropped"
            log(f"{writer.workdir or writer.directory}: {why}")
            return Trained(group, states, rows, 0.0)
        if done:
            log(f"{writer.workdir or writer.directory}: resumes after epoch {done}/{group.epochs}")
        if not group.single:
            log(introduction(group.plan, group.epochs, int(active.sum())))
        chunks = make_chunks(group, states, np.flatnonzero(active).tolist())
        start = time.perf_counter()
        with progress.phase("compiling"):
            programs = compile_programs(group, chunks[0])
        compile_seconds = time.perf_counter() - start
        before = Trained(group, states, rows, compile_seconds)
        rows = _fit(before, chunks, programs, todo, writer, later)
        if group.single and len(rows) < todo[-1]:
            patience = f"config.train.patience={group.plan.patience}"
            log(f"stopped early after epoch {len(rows)}/{group.epochs}: {patience}")
    return before._replace(rows=rows)


def _fit(
    trained: Trained,
    chunks: list[Chunk],
    programs: Programs,
    todo: range,
    writer: Writer,
    later: Later | None,
) -> list[Row]:
    """Train some epochs: update `trained.states` in place, and return the rows of all epochs."""
    group, states, rows, compile_seconds = trained
    size = group.data.num_train
    bar = progress.Bar(group.epochs, todo[0] - 1, size * len(group.settings), writer.log)
    unsaved: Callable[[], None] | None = None
    saved = time.monotonic()
    with bar, progress.interruptible(bar.write) as stop_signal:
        for epoch in todo:
            active = sum(len(chunk.active) for chunk in chunks)
            bar.start_epoch(size * active)
            start = time.perf_counter()
            jobs = start_epoch(group, programs, chunks, epoch)
            if unsaved:  # the last epoch's checkpoint is written while this epoch is computed
                multihost.on_first_process(unsaved)
                unsaved = None
            new: list[Row] = []
            for i, (chunk, job) in enumerate(zip(chunks, jobs, strict=True)):
                place = "" if group.single else f", trial {len(new) + 1}/{active}"
                bar.describe(f"epoch {epoch}/{group.epochs}{place}")
                while futures.wait([job], timeout=0.02).not_done:
                    bar.tick()
                after, measured, seconds = job.result()
                if group.single and measured.diverged[0]:
                    raise UserError(
                        f"diverged: the loss of epoch {epoch} is not finite; earlier checkpoints "
                        "are kept; try a lower config.optim.learning_rate, or config.optim.clip=1"
                    )
                seconds /= min(group.plan.threads, len(chunks))  # they run at the same time
                new += make_rows(group, chunk, measured, epoch, seconds)
                bar.add(size * len(chunk.active))
                still = [p for p, on in zip(chunk.places, measured.active, strict=False) if on]
                chunks[i] = chunk._replace(states=after, active=still)
            rows = rows + new
            bar.add(size * (len(group.settings) - len(new)))  # stopped trials count as done
            seconds = time.perf_counter() - start
            bar.end_epoch(progress.epoch_line(new, len(group.settings), group.epochs, seconds))
            merge(states, [chunk for chunk in chunks if not chunk.active])
            chunks = [chunk for chunk in chunks if chunk.active]
            if later:
                own = sum(len(chunk.active) for chunk in chunks) * (todo[-1] - epoch)
                left = (later.epochs + own) * seconds / active + later.groups * compile_seconds
                if left:
                    bar.log(f"estimated from this epoch: {formats.duration(left)} left")
                later = None
            # Whichever process is asked to stop, all stop after the same epoch; all save, or none.
            signum = multihost.max_over_processes(stop_signal())
            due = multihost.max_over_processes(int(time.monotonic() - saved > _SAVE_SECONDS))
            ends = bool(signum) or epoch == todo[-1] or not chunks
            if ends or due or group.single:  # copies, because the next epoch overwrites the states
                copies = [chunk._replace(states=_copy(chunk.states)) for chunk in chunks]
                unsaved = partial(_save, writer, epoch, states, copies, rows)
                saved = time.monotonic()
            if ends and unsaved:
                multihost.on_first_process(unsaved)
                if signum and not (group.single and epoch == group.epochs):
                    multihost.on_first_process(writer.wait)
                    raise progress.Stopped(signum, epoch, group.epochs)
                break
    merge(states, chunks)
    return rows


@jax.jit
def _copy(states: TrialState) -> TrialState:
    return jax.tree.map(jnp.copy, states)


def _save(
    writer: Writer, epoch: int, states: TrialState, chunks: Sequence[Chunk], rows: list[Row]
) -> None:
    merge(states, chunks)
    writer.save(epoch, states, rows)


def merge(states: TrialState, chunks: Sequence[Chunk]) -> None:
    """Write the states of chunks, without padding, into the states of all trials, in place."""
    for chunk in chunks:
        for target, source in zip(
            jax.tree.leaves(states), jax.tree.leaves(chunk.states), strict=True
        ):
            target[chunk.places] = np.asarray(source)[: len(chunk.places)]


def make_chunks(group: Group, states: TrialState, places: Sequence[int]) -> list[Chunk]:
    """Put the states of some trials on the devices, in chunks of the width of a program."""
    chunks = []
    for start in range(0, len(places), group.plan.width):
        own = list(places[start : start + group.plan.width])
        index = np.array(own + own[-1:] * (group.plan.width - len(own)))  # padded by copies
        on_device = sharding.put_replicated(
            group.plan.recipe.mesh, jax.tree.map(lambda x, index=index: x[index], states)
        )
        chunks.append(Chunk(own, own, _take(group.trials, index), on_device))
    return chunks


@jax.jit
def _take(trials: Trials, index: Int[Array | np.ndarray, "width"]) -> Trials:
    return jax.tree.map(lambda x: x[index], trials)


def compile_programs(group: Group, chunk: Chunk) -> Programs:
    """Compile an epoch of training and its end for the chunks of a group.

    With JAX_DISABLE_JIT=1, which is for debugging, nothing is compiled.
    """
    plan, epoch, data = group.plan, np.int32(1), group.data
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return Programs(partial(vmapped.train_epoch, plan), partial(vmapped.end_epoch, plan))
    lowered = vmapped.train_epoch.lower(plan, chunk.states.state, chunk.trials, epoch, data)
    train = xla.compile_lowered(lowered)
    _, *measured = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        lowered.out_info,
        train.output_shardings,
    )
    args = chunk.states, chunk.trials, tuple(measured), epoch, data
    return Programs(train, xla.compile_lowered(vmapped.end_epoch.lower(plan, *args)))


def start_epoch(
    group: Group, programs: Programs, chunks: Sequence[Chunk], epoch: int
) -> list[futures.Future]:
    """Start an epoch of some chunks, whose states are donated.

    Returns:
      For each chunk a future of its new states, its `EpochMetrics` (NumPy), and the seconds that
      its training took.
    """
    number, previous_end = np.int32(epoch), 0.0

    def dispatch(chunk: Chunk) -> tuple[float, float | None, PyTree, TrialState, EpochMetrics]:
        start = time.perf_counter()
        state, *measured = programs.train(chunk.states.state, chunk.trials, number, group.data)
        ready = all(x.is_ready() for x in jax.tree.leaves(measured))  # some calls return when done
        end = time.perf_counter() if ready else None
        states = chunk.states._replace(state=state)
        args = states, chunk.trials, tuple(measured), number, group.data
        return start, end, measured, *programs.end(*args)

    def wait(dispatched: Callable[[], tuple]) -> tuple[TrialState, EpochMetrics, float]:
        nonlocal previous_end
        start, end, measured, states, metrics = dispatched()
        jax.block_until_ready(measured)
        end = end or time.perf_counter()
        if group.plan.threads == 1:  # one after the other
            start = max(start, previous_end)
        metrics = jax.device_get(metrics)
        previous_end = time.perf_counter()
        return states, metrics, end - start

    jobs: list[Callable]
    if group.plan.threads > 1:
        jobs = [partial(wait, partial(dispatch, chunk)) for chunk in chunks]
    else:  # dispatched from this thread, in the same order in every process
        results = [dispatch(chunk) for chunk in chunks]
        jobs = [partial(wait, partial(tuple, result)) for result in results]
    return background.start(jobs, group.plan.threads)


def make_rows(
    group: Group, chunk: Chunk, measured: EpochMetrics, epoch: int, seconds: float
) -> list[Row]:
    """Return the rows of metrics.jsonl of an epoch of a chunk; None stands for what is not finite.

    A trial whose loss is not finite has no accuracy either: NaN decides for the first class, which
    is right by chance.
    """
    seconds /= len(chunk.active)
    rows = []
    for i, place in enumerate(chunk.places):
        if place not in chunk.active:
            continue
        own = jax.tree.map(lambda x, i=i: _finite(x[i]), measured)
        train_lost = own.train_loss is None
        lost = train_lost or own.val_loss is None
        rows.append(
            ({} if group.single else {"trial": place})
            | {
                "epoch": epoch,
                "step": int(own.step),
                "train_loss": own.train_loss,
                "train_accuracy": None if train_lost else own.train_accuracy,
                "val_loss": own.val_loss,
                "val_accuracy": None if lost else own.val_accuracy,
                f"val_{group.plan.recipe.task.score_name}": None if lost else own.val_score,
                "learning_rate": own.learning_rate,
                "gradient_norm": own.norms.gradients,
                "parameter_norm": own.norms.params,
                "update_norm": own.norms.updates,
                "seconds": seconds,
                "examples_per_second": int(own.examples) / seconds,
            }
        )
    return rows


def introduction(plan: Plan, epochs: int, active: int) -> str:
    """Say how many trials are trained for how many epochs, and how many at a time."""
    if active == 1:
        return f"1 trial of {epochs} epochs"
    programs = min(plan.threads, -(-active // plan.width))
    if plan.width > 1:
        how = f"{min(plan.width, active)} in one program"
        how += f", {programs} programs at once" if programs > 1 else ""
    else:
        how = f"one per core, {programs} at once" if programs > 1 else "one after the other"
    return f"{active} trials of {epochs} epochs, {how}"


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
