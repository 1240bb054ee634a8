"""The host loop: load, train, evaluate, save, report."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array
from ml_collections import ConfigDict

from mnist_jax import checkpoint, compilation, evaluate, metrics, progress, results, train
from mnist_jax import splits as data_splits
from mnist_jax import workdir as files
from mnist_jax.board import Board
from mnist_jax.results import Row
from mnist_jax.splits import Split, Splits
from mnist_jax.types import Metrics, State, UserError


class Program(NamedTuple):
    """A config compiled for its data, which is on the device."""

    recipe: train.Recipe
    initial: State
    epoch: Callable[[State], tuple[State, Metrics]]
    validate: Callable[[State], metrics.Report] | None
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
      UserError: the workdir cannot be used, or training diverged.
      progress.Stopped: a signal asked to stop; everything so far is saved.
    """
    files.prepare(workdir, config.to_dict(), splits.fingerprint, overwrite=overwrite)
    if (workdir / files.SUMMARY).exists():
        echo(f"{workdir}: is finished; --overwrite starts it anew")
        return files.read_json(workdir / files.SUMMARY)
    parts = {name: len(getattr(splits, name).labels) for name in ("train", "val", "test")}
    counts = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    echo(f"{config.model.name} on {splits.name}: {counts}")
    program = compile_program(config, splits)
    with checkpoint.open_directory(workdir / files.CHECKPOINTS) as manager:
        history = _fit(config, program, splits, workdir, manager, echo)
        best = checkpoint.restore_best(manager, program.initial, echo)
    assert best is not None, "training saves at least one epoch"
    logits, judged = _judge(program.recipe, best.state, splits.test)(best.state)
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
    results.publish(workdir, summary, history, config, splits.test, np.asarray(logits), command)
    return summary


def compile_program(config: ConfigDict, splits: Splits) -> Program:
    """Puts the data on the device and compiles an epoch of training and of validation."""
    recipe = train.make_recipe(config, len(splits.class_names), len(splits.train.labels))
    hparams, root = train.make_hparams(config), jax.random.key(config.seed)
    state = jax.jit(train.init_state, static_argnums=0)(recipe, hparams, root)
    examples = tuple(map(jnp.asarray, splits.train))
    start = time.perf_counter()
    lowered = train.train_epoch.lower(recipe, state, *examples, hparams, root)
    epoch = compilation.compile_lowered(lowered)
    validate = None
    if len(splits.val.labels):
        judge = _judge(recipe, state, splits.val)
        validate = lambda state: judge(state)[1]  # noqa: E731
    return Program(
        recipe=recipe,
        initial=state,
        epoch=lambda state: epoch(state, *examples, hparams, root),
        validate=validate,
        learning_rate=lambda state: train.learning_rate(recipe, state, hparams),
        compile_seconds=time.perf_counter() - start,
    )


def _judge(
    recipe: train.Recipe, like: State, split: Split
) -> Callable[[State], tuple[Array, metrics.Report]]:
    """Compiles the judgement of a state like this one on a split: logits, and what they say."""
    examples = tuple(map(jnp.asarray, split))
    lowered = evaluate.judge.lower(recipe.model, train.variables(like), *examples)
    judge = compilation.compile_lowered(lowered)
    return lambda state: judge(train.variables(state), *examples)


def _fit(
    config: ConfigDict,
    program: Program,
    splits: Splits,
    workdir: Path,
    manager: ocp.CheckpointManager,
    echo: progress.Echo,
) -> list[Row]:
    """Trains the epochs that the checkpoints do not have yet; returns the rows of all."""
    last = checkpoint.restore_latest(manager, program.initial, echo)
    state, history = (last.state, last.history) if last else (program.initial, [])
    done, epochs = len(history), config.train.epochs
    if done:
        echo(f"{workdir}: goes on after epoch {done} of {epochs}")
    # A kill may have left them an epoch ahead of the checkpoints, or behind.
    files.write(workdir / files.METRICS, files.to_rows(history))
    board = Board(workdir / files.TENSORBOARD, history)
    bar = progress.Bar(epochs, done, len(splits.train.labels), echo)
    with board, bar, progress.interruptible(bar.write) as stop_signal:
        for epoch in range(done + 1, epochs + 1):
            bar.say(f"epoch {epoch}/{epochs}")
            state, row, score = _train_epoch(program, state, epoch, bar.tick)
            history = [*history, row]
            checkpoint.save(manager, epoch, state, history, score)
            files.write(workdir / files.METRICS, files.to_rows(history))
            board.epoch(row)
            bar.epoch(row)
            if stop_signal() and epoch < epochs:
                checkpoint.wait(manager)
                raise progress.Stopped(stop_signal(), epoch, epochs)
    return history


def _train_epoch(
    program: Program, state: State, epoch: int, tick: Callable[[], None]
) -> tuple[State, Row, float | None]:
    """Trains and validates an epoch: the new state, its row of metrics, its selection score."""
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
        "train_accuracy": float(means["accuracy"]),
        "val_loss": None if judged is None else float(judged.loss),
        "val_accuracy": None if judged is None else float(judged.accuracy),
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
    state = train.end_epoch(program.recipe, state, jnp.asarray(judged.loss))
    # Fewer errors are better; of equals, the lower loss.
    return state, row, -float(judged.errors + judged.loss / (1 + judged.loss))


def evaluate_run(workdir: Path, split: str, echo: progress.Echo = print) -> tuple[int, Row]:
    """Judges the best checkpoint of a run, finished or not, on a split of its data.

    Args:
      workdir: of the run.
      split: "train", "val" or "test".
      echo: told of damaged checkpoints.

    Returns:
      The checkpoint's epoch, and the report as `metrics.to_python` gives it.

    Raises:
      UserError: there is no such run, its data has changed, or the split is empty.
    """
    config, fingerprint = files.read_config(workdir)
    splits = data_splits.load(config)
    if splits.fingerprint != fingerprint:
        raise UserError(f"{workdir}: was trained on other data than the {splits.name} found here")
    examples: Split = getattr(splits, split)
    if not len(examples.labels):
        raise UserError(f"{workdir}: has no {split} examples (config.data.val_size is 0)")
    recipe = train.make_recipe(config, len(splits.class_names), len(splits.train.labels))
    root = jax.random.key(config.seed)
    like = jax.eval_shape(lambda: train.init_state(recipe, train.make_hparams(config), root))
    with checkpoint.open_directory(workdir / files.CHECKPOINTS, read_only=True) as manager:
        best = checkpoint.restore_best(manager, like, echo)
    if best is None:
        raise UserError(f"{workdir}: has no checkpoint yet")
    _, judged = _judge(recipe, best.state, examples)(best.state)
    return best.epoch, metrics.to_python(jax.device_get(judged), splits.class_names)
