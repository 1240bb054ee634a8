"""Evaluation of trained nets on a split, which is read once and in full."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32

from mnist_jax.analysis import metrics
from mnist_jax.data import splits as data_splits
from mnist_jax.data.splits import Split, Splits
from mnist_jax.runs import restore, space
from mnist_jax.runs.loop import Trained
from mnist_jax.runs.select import Selection
from mnist_jax.runtime import multihost, sharding, xla
from mnist_jax.runtime.progress import Log
from mnist_jax.train import evaluate
from mnist_jax.train.step import Recipe
from mnist_jax.types import PyTree, Row, UserError
from mnist_jax.workdir import files


class Evaluated(NamedTuple):
    """Several nets on the same split."""

    scores: Float32[np.ndarray, "trials n scores"]  # of the task
    reports: list[Row]  # from `metrics.to_python`


def evaluate_nets(
    recipe: Recipe, nets: Sequence[PyTree], split: Split, class_names: Sequence[str]
) -> Evaluated:
    """Evaluate nets of the same recipe, given by their variables, one after the other."""
    mesh = sharding.make_mesh()
    examples = sharding.put_replicated(mesh, split)
    placed = [sharding.put_replicated(mesh, net) for net in nets]
    program: Callable = partial(evaluate.evaluate, recipe.task, recipe.model, mesh=mesh)
    if not jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        args = recipe.task, recipe.model, placed[0], *examples
        program = xla.compile_lowered(evaluate.evaluate.lower(*args, mesh=mesh), predicts=True)
    found = [jax.device_get(program(net, *examples)) for net in placed]
    reports = [metrics.to_python(report, class_names) for _, report in found]
    return Evaluated(np.stack([scores for scores, _ in found]), reports)


def evaluate_places(
    trained: Trained, places: Sequence[int], split: Split, class_names: Sequence[str]
) -> Evaluated:
    """Evaluate the best epochs of some trials of a group, given by their places in it."""
    best = trained.states.best
    nets = [jax.tree.map(lambda x, place=place: x[place], best) for place in places]
    return evaluate_nets(trained.group.plan.recipe, nets, split, class_names)


def evaluate_trials(selection: Selection, split: Split, class_names: Sequence[str]) -> Evaluated:
    """Evaluate the trials of the chosen setting."""
    return evaluate_places(selection.final, selection.places, split, class_names)


def score_of(report: Mapping[str, Any], score: str) -> float | None:
    """Return a task's selection score from a report."""
    return report["macro"]["f1"] if score == "macro_f1" else report[score]


def combine(reports: Sequence[Row]) -> Row:
    """Combine the reports of several trials: means, and all predictions together.

    Numbers become their means, None where one is missing; confusion matrices are summed, and the
    predictions of all trials share the bins of one reliability diagram.
    """
    combined: Row = _mean(reports)
    if len(reports) > 1 and "confusion_matrix" in combined:
        matrices = [report["confusion_matrix"] for report in reports]
        combined["confusion_matrix"] = np.sum(matrices, axis=0).tolist()
        combined["reliability"] = pool([report["reliability"] for report in reports])
    return combined


def _mean(values: Sequence[Any]) -> Any:
    first = values[0]
    if len(values) == 1 or isinstance(first, str):
        return first
    if isinstance(first, Mapping):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [_mean(items) for items in zip(*values, strict=True)]
    return None if None in values else float(np.mean(values))


def pool(diagrams: Sequence[Sequence[Row]]) -> list[Row]:
    """Pool reliability diagrams: all predictions in the same bins."""
    bins = []
    for same in zip(*diagrams, strict=True):
        count = sum(row["count"] for row in same)
        means = {
            key: sum(row["count"] * row[key] for row in same) / max(count, 1)
            for key in ("confidence", "accuracy")
        }
        bins.append({**same[0], "count": count, **means})
    return bins


def evaluate_run(
    workdir: Path, split: str, log: Log = print, data: Mapping[str, Any] | None = None
) -> tuple[list[int], Row]:
    """Evaluate a run on a split: its best epoch, or the trials of its chosen setting.

    Args:
      workdir: of the run. A plain run may still be training; a sweep has to be finished.
      split: "train", "val" or "test".
      log: prints warnings of damaged checkpoints.
      data: keys of `config.data` that replace the run's; with a `name` the run may have been
        trained on other data.

    Returns:
      The best epoch of each evaluated trial, and their combined report with the `dataset`, the
      `split`, the number of `examples` and, of several trials, the `accuracies`.

    Raises:
      UserError: there is no such run, its data has changed, the data has another number of
        classes, or the split is empty.
    """

    def read() -> tuple[restore.Restored, Splits]:
        config, fingerprint = files.read_config(workdir)
        finished = space.is_sweep(config) or (workdir / files.SUMMARY).exists()
        summary = files.read_summary(workdir) if finished else {}
        requested = config.copy_and_resolve_references()
        requested.data.update(data or {})
        requested.train.batch_size = 1  # the data need not be enough for training
        if split == "test":
            requested.data.val_size = 0.0
        examples = data_splits.load(requested, log)
        if "name" not in (data or {}) and examples.fingerprint != fingerprint:
            raise UserError(
                f"{workdir}: was trained on other data than the {examples.name} found here; "
                "--config.data.name evaluates it on other data"
            )
        if not len(getattr(examples, split).labels):
            why = "cross-validation" if config.sweep.folds else "config.data.val_size is 0"
            raise UserError(f"{workdir}: has no {split} examples ({why})")
        count, names = len(examples.class_names), summary.get("class_names")
        if names and len(names) != count:
            raise UserError(
                f"{examples.name}: has {count} classes, but {workdir} was trained to tell "
                f"{len(names)} apart; give data with the same classes"
            )
        if names and tuple(names) != examples.class_names:
            log(f"{examples.name}: the names of its classes differ from the run's")
        num_train = summary.get("num_train", config.train.batch_size)  # no matter once trained
        chosen = summary.get("chosen", 0)
        return restore.best(workdir, config, (count, num_train), chosen, log), examples

    restored, examples = multihost.on_first_process(read)
    part: Split = getattr(examples, split)
    _, reports = evaluate_nets(restored.recipe, restored.nets, part, examples.class_names)
    about = {"dataset": examples.name, "split": split, "examples": len(part.labels)}
    found = {**about, **combine(reports)}
    if len(reports) > 1:
        found["accuracies"] = [report["accuracy"] for report in reports]
    return restored.epochs, found
