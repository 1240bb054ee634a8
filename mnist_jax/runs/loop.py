"""The host loop: load, train, evaluate, save, report."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array
from ml_collections import ConfigDict

from mnist_jax import train
from mnist_jax.analysis import metrics
from mnist_jax.analysis.metrics import Metrics
from mnist_jax.data import splits as data_splits
from mnist_jax.data.splits import Split, Splits
from mnist_jax.runs import inside, restore, results, space
from mnist_jax.runtime import multihost, progress, sharding, xla
from mnist_jax.tasks import AnyReport
from mnist_jax.train import evaluate
from mnist_jax.train.state import State
from mnist_jax.types import PyTree, Row, UserError
from mnist_jax.workdir import files
from mnist_jax.workdir.checkpoint import Checkpoint
from mnist_jax.workdir.writer import Record


class Program(NamedTuple):
    """A config compiled for its data, which is on the devices."""

    recipe: train.Recipe
    initial: State
    epoch: Callable[[State], tuple[State, Metrics]]
    validate: Callable[[State], AnyReport] | None
    learning_rate: Callable[[State], Array]
    compile_seconds: float


def run(
    config: ConfigDict,
    splits: Splits,
    workdir: Path,
    *,
    command: str = "",
    requested_dataset: str | None = None,
    overwrite: bool = False,
    echo: progress.Echo = print,
) -> dict[str, Any]:
    """Trains a config to its end, going on from whatever is in the workdir, and reports.

    Args:
      config: valid, see `config.validate`.
      splits: from `splits.load`.
      workdir: where everything goes; created if it is not there.
      command: what a person types to do the run again; shown in the report.
      requested_dataset: the data set that was asked for, where another one had to do.
      overwrite: delete the run that is in the workdir first.
      echo: told lines for a person.

    Returns:
      The summary, as in summary.json.

    Raises:
      UserError: the devices cannot share a batch, the workdir cannot be used or another run is at
        work there, or training diverged.
      progress.Stopped: a signal asked to stop; everything so far is saved.
    """
    mesh = sharding.make_mesh()
    sharding.check_batch_size(config.train.batch_size, mesh.size)
    with ExitStack() as held:
        finished = multihost.on_first_process(
            lambda: prepare(config, splits, workdir, overwrite, held)
        )
        if finished:
            echo(f"{workdir}: is finished; --overwrite starts it anew")
            return finished
        parts = {name: len(getattr(splits, name).labels) for name in ("train", "val", "test")}
        counts = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
        echo(f"{config.model.name} on {splits.name}: {counts}")
        program = compile_program(config, splits, mesh)
        record = held.enter_context(Record(workdir, restore.on_host(program.initial), echo))
        history = _fit(config, program, mesh, splits, record, echo)
        best = multihost.on_first_process(record.best)
        variables = sharding.put_replicated(mesh, train.variables(best.state))
        recipe = program.recipe
        outputs, judged = compile_judge(recipe, variables, splits.test, mesh)(variables)
        scores = np.asarray(outputs)
        classifies = isinstance(judged, metrics.Report)
        looked = inside.look(recipe, variables, splits, scores, mesh) if classifies else None

        def publish() -> dict[str, Any]:
            summary = results.summarize(
                config,
                splits,
                requested_dataset=requested_dataset or splits.name,
                num_params=sum(x.size for x in jax.tree.leaves(best.state.params)),
                history=history,
                best_epoch=best.epoch,
                test=judged,
                compile_seconds=program.compile_seconds,
            )
            record.results(best, config, summary, splits, scores if classifies else None)
            results.publish(workdir, summary, history, config, splits, scores, looked, command)
            return summary

        return multihost.on_first_process(publish)


def prepare(
    config: ConfigDict, splits: Splits, workdir: Path, overwrite: bool, held: ExitStack
) -> dict[str, Any] | None:
    """Makes the workdir this run's alone while `held` is; returns its summary if it is finished."""
    held.enter_context(files.locked(workdir))
    files.prepare(workdir, config.to_dict(), splits.fingerprint, overwrite=overwrite)
    summary = workdir / files.SUMMARY
    return files.read_json(summary) if summary.exists() else None


def compile_program(config: ConfigDict, splits: Splits, mesh: Mesh) -> Program:
    """Puts the data on the devices and compiles an epoch of training and of validation."""
    recipe = train.make_recipe(config, len(splits.class_names), len(splits.train.labels), mesh)
    hparams, root = train.make_hparams(config), jax.random.key(config.seed)
    init = jax.jit(train.init_state, static_argnums=0, out_shardings=sharding.replicated(mesh))
    state = init(recipe, hparams, root)
    examples = sharding.put_replicated(mesh, splits.train)
    start = time.perf_counter()
    lowered = train.train_epoch.lower(recipe, state, *examples, hparams, root)
    epoch = xla.compile_lowered(lowered)
    rate = jax.jit(train.learning_rate, static_argnums=0)
    validate = None
    if len(splits.val.labels):
        like = train.variables(state)
        judge = compile_judge(recipe, like, splits.val, mesh, predicts=False)
        validate = lambda state: judge(train.variables(state))[1]  # noqa: E731
    return Program(
        recipe=recipe,
        initial=state,
        epoch=lambda state: epoch(state, *examples, hparams, root),
        validate=validate,
        learning_rate=lambda state: rate(recipe, state, hparams),
        compile_seconds=time.perf_counter() - start,
    )


def compile_judge(
    recipe: train.Recipe, like: PyTree, split: Split, mesh: Mesh, *, predicts: bool = True
) -> Callable[[PyTree], tuple[Array, AnyReport]]:
    """Puts a split on the devices and compiles `evaluate.judge` for variables like these on it.

    `predicts` as in `compile_lowered`; not in training, where members have the bits of one alone.
    """
    examples = sharding.put_replicated(mesh, split)
    lowered = evaluate.judge.lower(recipe.task, recipe.model, like, *examples, mesh=mesh)
    judge = xla.compile_lowered(lowered, predicts=predicts)
    return lambda variables: judge(variables, *examples)


def _fit(
    config: ConfigDict,
    program: Program,
    mesh: Mesh,
    splits: Splits,
    record: Record,
    echo: progress.Echo,
) -> list[Row]:
    """Trains the epochs that the record does not have yet; returns the rows of all."""
    state, history = program.initial, []
    if last := multihost.on_first_process(record.resume):
        state, history = sharding.put_replicated(mesh, last.state), last.history
    done, epochs = len(history), config.train.epochs
    if done:
        echo(f"{record.workdir}: goes on after epoch {done} of {epochs}")
    bar = progress.Bar(epochs, done, len(splits.train.labels), echo)
    with bar, progress.interruptible(bar.write) as stop_signal:
        for epoch in range(done + 1, epochs + 1):
            bar.say(f"epoch {epoch}/{epochs}")
            state, row, score = _train_epoch(program, state, epoch, bar.tick)
            history = [*history, row]
            multihost.on_first_process(partial(record.epoch, state, history, score))
            bar.epoch(row)
            # Whichever process is asked to stop, all stop after the same epoch.
            signum = multihost.max_over_processes(stop_signal())
            if signum and epoch < epochs:
                multihost.on_first_process(record.wait)
                raise progress.Stopped(signum, epoch, epochs)
    return history


def _train_epoch(
    program: Program, state: State, epoch: int, tick: Callable[[], None]
) -> tuple[State, Row, float | None]:
    """Trains and validates an epoch: the new state, its row of metrics, its selection score."""
    recipe = program.recipe
    start = time.perf_counter()
    state, sums = program.epoch(state)
    progress.wait(sums, tick)
    seconds = time.perf_counter() - start
    last_step = state._replace(step=state.step - 1)
    judged = program.validate(state) if program.validate else None
    progress.wait(judged, tick)
    fetched = jax.device_get(
        (state.step, metrics.mean(sums), program.learning_rate(last_step), judged)
    )
    step, means, rate, judged = fetched
    row = {
        "epoch": epoch,
        "step": int(step),
        "train_loss": float(means["loss"]),
        "train_accuracy": float(means["accuracy"]) if recipe.task.correct else None,
        "val_loss": None if judged is None else float(judged.loss),
        "val_accuracy": float(judged.accuracy) if judged and recipe.task.correct else None,
        "learning_rate": float(rate),
        "seconds": seconds,
        "examples_per_second": int(sums.examples) / seconds,
    }
    # Without validation nothing else tells of parameters that the last step spoilt.
    after = jax.tree.leaves(state.params) if judged is None else [judged.loss]
    if not all(np.isfinite(np.array(x)).all() for x in (means["loss"], *after)):
        raise UserError(
            f"diverged: the loss of epoch {epoch} is not finite; earlier checkpoints are kept; "
            "try a lower config.optim.learning_rate, or config.optim.clip=1"
        )
    if judged is None:
        return state, row, None
    state = train.end_epoch(recipe, state, jnp.asarray(judged.loss))
    # Fewer errors are better; of equals, the lower loss.
    return state, row, -float(judged.errors + judged.loss / (1 + judged.loss))


def evaluate_run(workdir: Path, split: str, echo: progress.Echo = print) -> tuple[int, Row]:
    """Judges the best checkpoint of a run, finished or not, on a split of its data.

    Args:
      workdir: of the run.
      split: "train", "val" or "test".
      echo: told of damaged checkpoints.

    Returns:
      The checkpoint's epoch, and the report as `metrics.to_python` gives it, with the number of
      `examples`.

    Raises:
      UserError: there is no such run, its data has changed, or the split is empty.
    """
    config, class_names, examples, best = multihost.on_first_process(
        lambda: _read_run(workdir, split, echo)
    )
    mesh = sharding.make_mesh()
    recipe = train.make_recipe(config, len(class_names), config.train.batch_size)
    variables = sharding.put_replicated(mesh, train.variables(best.state))
    _, judged = compile_judge(recipe, variables, examples, mesh)(variables)
    found = metrics.to_python(jax.device_get(judged), class_names)
    return best.epoch, {"examples": len(examples.labels), **found}


def _read_run(
    workdir: Path, split: str, echo: progress.Echo
) -> tuple[ConfigDict, tuple[str, ...], Split, Checkpoint]:
    """The config, the classes, a split and the best checkpoint of a run."""
    config, fingerprint = files.read_config(workdir)
    if space.wanted(config):
        raise UserError(
            f"{workdir}: is a run of many members; what they are worth is in its report"
        )
    splits = data_splits.load(config)
    if splits.fingerprint != fingerprint:
        raise UserError(f"{workdir}: was trained on other data than the {splits.name} found here")
    examples: Split = getattr(splits, split)
    if not len(examples.labels):
        raise UserError(f"{workdir}: has no {split} examples (config.data.val_size is 0)")
    recipe = train.make_recipe(config, len(splits.class_names), len(splits.train.labels))
    return config, splits.class_names, examples, restore.best(workdir, config, recipe, echo)
