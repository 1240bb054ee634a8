"""A run from its config to its report: `train_run`."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict

from mnist_jax.analysis import error_analysis
from mnist_jax.config import flatten
from mnist_jax.data import datasets
from mnist_jax.data import splits as data_splits
from mnist_jax.data.splits import Splits
from mnist_jax.report import run_page
from mnist_jax.report.run_page import Explanation, FinishedRun
from mnist_jax.runs import (
    cross_validation,
    evaluation,
    explain,
    groups,
    restore,
    select,
    space,
    summary,
)
from mnist_jax.runs.evaluation import Evaluated
from mnist_jax.runs.select import Run, Selection
from mnist_jax.runs.space import Trial
from mnist_jax.runtime import multihost, progress
from mnist_jax.runtime.progress import Log
from mnist_jax.train import evaluate
from mnist_jax.train import trials as vmapped
from mnist_jax.types import UserError
from mnist_jax.workdir import files, tensorboard, writer

_MISTAKES = 16  # shown in TensorBoard


def train_run(
    config: ConfigDict,
    examples: Splits,
    workdir: Path,
    *,
    command: str = "",
    overwrite: bool = False,
    log: Log = print,
) -> dict[str, Any]:
    """Train all trials of a config, resuming from what is in the workdir; choose, test, report.

    Args:
      config: valid, see `config.validate`.
      examples: from `splits.load`.
      workdir: of the run; created if it does not exist.
      command: the shell command that repeats the run; shown in the report.
      overwrite: delete the run in the workdir first.
      log: prints a line.

    Returns:
      The summary, as in summary.json.

    Raises:
      UserError: the trials cannot be trained or chosen, the workdir cannot be used, another run is
        training there, or training diverged.
      progress.Stopped: a signal asked to stop; everything so far is saved.
    """
    run = Run(config, examples, workdir, log)
    trials = space.expand(config)
    space.check_used(config)
    _check(run, trials)
    if config.init_from:
        _check_start(run, trials, overwrite)
    with ExitStack() as stack:
        finished = multihost.on_first_process(lambda: _prepare(run, overwrite, stack))
        if finished:
            log(f"{workdir}: is finished; --overwrite starts it again")
            return finished
        log(_introduction(run, trials))
        checkpoints = workdir / files.CHECKPOINTS
        outer = cross_validation.nested(run, checkpoints) if config.sweep.outer_folds else []
        if outer:
            log("on all training examples:")
        estimated = any(row["compile_seconds"] for row in outer)
        selection = select.choose(run, checkpoints, repeats=0 if estimated else 1)
        with progress.phase("testing"):
            tested = evaluation.evaluate_trials(selection, examples.test, examples.class_names)
            held_out = cross_validation.out_of_fold(run, selection)
        if config.sweep.folds and held_out is None:
            log(f"{files.OUT_OF_FOLD}: left out, because the chosen setting diverged in a fold")
        for row, report in zip(selection.evaluated, tested.reports, strict=False):
            key = f"test_{selection.score}"
            figures = {key: evaluation.score_of(report, selection.score)}
            selection.rows[row] |= figures | {"test_errors": report["errors"]}
        with progress.phase("explaining"):
            explanation, validation = _explain(run, selection, tested)
        for_thresholds = validation if held_out is None else (held_out, examples.train.labels)

        def publish() -> dict[str, Any]:
            found = summary.summarize(run, selection, tested, outer)
            single = not space.is_sweep(config)
            scores = tested.scores[0] if single else tested.scores
            writer.write_predictions(workdir / files.PREDICTIONS, scores, examples.test.labels)
            if held_out is not None:
                path = workdir / files.OUT_OF_FOLD
                writer.write_predictions(path, held_out, examples.train.labels)
            tables = {files.METRICS: selection.history}
            if not single:
                tables[files.TRIALS] = selection.rows
            _write_tensorboard(run, selection, tested)
            page = run_page.render(
                FinishedRun(
                    summary=found,
                    history=selection.history,
                    trials=selection.rows,
                    config=config.to_dict(),
                    images=examples.test.images,
                    labels=examples.test.labels,
                    scores=tested.scores,
                    noisy=_noisy(selection, examples),
                    held_out=for_thresholds if len(examples.class_names) == 2 else None,
                    held_out_name="on validation" if held_out is None else "out of fold",
                ),
                explanation,
                command,
            )
            writer.finish(workdir, found, page, tables)
            return found

        with progress.phase("writing the report"):
            return multihost.on_first_process(publish)


def _prepare(run: Run, overwrite: bool, stack: ExitStack) -> dict[str, Any] | None:
    """Lock the workdir while `stack` is open, and prepare it; return a finished run's summary."""
    stack.enter_context(files.locked(run.workdir))
    config = run.config.to_dict()
    extends, fingerprint = space.can_extend(run.config), run.splits.fingerprint
    files.prepare(run.workdir, config, fingerprint, overwrite=overwrite, extends=extends)
    path = run.workdir / files.SUMMARY
    return files.read_json(path) if path.exists() else None


def _check(run: Run, trials: Sequence[Trial]) -> None:
    """Raise UserError, before anything is written, if trials cannot be trained or chosen."""
    config, splits = run.config, run.splits
    sweep = config.sweep
    several = trials[-1].setting > 0
    if sweep.folds and len(splits.val.labels):
        raise ValueError("with folds, all training examples are needed: data.val_size=0")
    if several and not sweep.folds and not len(splits.val.labels):
        raise UserError(
            "config.sweep: settings are chosen by validation; give config.data.val_size or "
            "config.sweep.folds"
        )
    for key, does in (
        ("halving", "drops settings"),
        ("outer_folds", "evaluates the choice of a setting"),
    ):
        if sweep[key] and not several:
            raise UserError(f"config.sweep.{key}: {does}, and there is only one")
    outer = (
        data_splits.outer_folds(splits, sweep.outer_folds, config.data.split_seed)
        if sweep.outer_folds
        else ()
    )
    for part in chain([splits], outer):  # one at a time, because each has a copy of the images
        if sweep.folds:
            datasets.folds(part.train.labels, sweep.folds, config.data.split_seed)
        for indices in space.groups(config, trials):
            groups.make_plan(config, [trials[i] for i in indices], part)
            if sweep.folds:  # and the training that follows
                setting = trials[indices[0]].setting
                groups.make_plan(*space.refit(config, trials, setting), part)


def _check_start(run: Run, trials: Sequence[Trial], overwrite: bool) -> None:
    """Raise UserError, before anything is written, if trials cannot start from another run."""

    def check() -> None:
        config, source = run.config, Path(run.config.init_from)
        if source.resolve() == run.workdir.resolve():
            raise UserError(f"config.init_from={source}: is the workdir itself; give another one")
        if (run.workdir / files.CONFIG).exists() and not overwrite:
            return  # it has started already, or will when the first checkpoint is missing
        theirs, fingerprint = files.read_config(source)
        same = all(theirs.data[key] == config.data[key] for key in ("val_size", "split_seed"))
        validates = config.sweep.folds or (config.data.val_size and not same)
        if fingerprint == run.splits.fingerprint and validates:
            raise UserError(
                f"config.init_from={source}: was trained on examples that this run would validate "
                "on; take its config.data.val_size and config.data.split_seed, and no folds"
            )
        net = restore.start(source, run.log)
        for indices in space.groups(config, trials):
            own = [trials[i] for i in indices]
            plan = groups.make_plan(config, own, run.splits)
            states = jax.eval_shape(partial(vmapped.init, plan), groups.stack(config, own))
            restore.start_from(states, net, source)

    multihost.on_first_process(check)


def _introduction(run: Run, trials: Sequence[Trial]) -> str:
    config, splits = run.config, run.splits
    parts = {name: len(getattr(splits, name).labels) for name in ("train", "val", "test")}
    counts = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
    line = f"{config.model.name} on {splits.name}: {counts}"
    if not space.is_sweep(config):
        return line
    numbers = {
        "settings": 1 + trials[-1].setting,
        "seeds": config.sweep.seeds,
        "folds": config.sweep.folds,
    }
    product = " x ".join(f"{count} {name}" for name, count in numbers.items() if count > 1)
    line += f"; {len(trials)} trials: {product}" if product else "; 1 trial"
    if config.sweep.outer_folds:
        line += f", in each of {config.sweep.outer_folds} outer folds and on all examples"
    return line


def _explain(
    run: Run, selection: Selection, tested: Evaluated
) -> tuple[Explanation | None, tuple[Float32[np.ndarray, "1 val classes"], np.ndarray] | None]:
    """Explain a net that tells classes apart; for two classes, score the validation examples."""
    splits = run.splits
    group = selection.final.group
    explanation = explain.explain(selection, splits, tested.scores)
    validation = None
    if len(splits.class_names) == 2 and len(splits.val.labels) and group.single:
        own = evaluation.evaluate_trials(selection, splits.val, splits.class_names)
        validation = own.scores, splits.val.labels
    return explanation, validation


def _noisy(selection: Selection, splits: Splits) -> Float32[np.ndarray, "test 28 28 1"] | None:
    """Return what a denoising net sees of the test images."""
    corrupt = selection.final.group.plan.recipe.task.corrupt
    if corrupt is None:
        return None
    images = splits.test.images
    noisy = jax.jit(evaluate.inputs, static_argnums=2)(images, np.arange(len(images)), corrupt)
    return np.asarray(noisy)


def _write_tensorboard(run: Run, selection: Selection, tested: Evaluated) -> None:
    """Write the events of every trial into its own directory; of a single trial, to the top.

    Evaluated trials have their test results, worst mistakes and parameters as well.
    """
    top, final = run.workdir / files.TENSORBOARD, selection.final
    evaluated = dict(zip(selection.evaluated, range(len(tested.reports)), strict=False))
    for row in selection.rows:
        trial = row["trial"]
        history = [r for r in selection.history if r.get("trial", 0) == trial]
        directory = top / f"trial-{trial}" if space.is_sweep(run.config) else top
        hparams = dict(flatten(space.config_of(run.config, selection.trials[trial]).to_dict()))
        hparams = {
            key: value
            for key, value in hparams.items()
            if value is not None and not key.startswith(("data.", "sweep."))
        }
        with tensorboard.TensorBoard(directory, history) as board:
            if trial not in evaluated:
                continue
            i = evaluated[trial]
            best = final.states.best["params"]
            params = {
                jax.tree_util.keystr(path, simple=True, separator="/"): x[selection.places[i]]
                for path, x in jax.tree_util.tree_leaves_with_path(best)
            }
            results = {
                f"test_{key}": value
                for key, value in tested.reports[i].items()
                if isinstance(value, int | float)
            }
            board.finish(
                row["best_epoch"],
                {"data": run.splits.name, **hparams},
                results,
                _mistakes(run.splits, tested, i),
                params,
            )


def _mistakes(splits: Splits, tested: Evaluated, i: int) -> dict[str, np.ndarray]:
    """Return the worst mistakes of a trial as images by caption; none if it has no classes."""
    if "confusion_matrix" not in tested.reports[i]:
        return {}
    (images, labels), names = splits.test, splits.class_names
    decisions = error_analysis.decide(tested.scores[i])
    worst = error_analysis.worst_mistakes(decisions, labels, _MISTAKES)
    return {
        f"{rank:02d} {names[labels[k]]} as {names[decisions.predicted[k]]}": images[k]
        for rank, k in enumerate(worst, 1)
    }
