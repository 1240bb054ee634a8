"""The content of summary.json."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, UInt8
from ml_collections import ConfigDict

from mnist_jax import tasks
from mnist_jax.analysis import contributions, ensemble, image_quality, metrics, stats
from mnist_jax.data.augment import normalize
from mnist_jax.data.splits import Splits
from mnist_jax.runs import evaluation, select, space
from mnist_jax.runs.evaluation import Evaluated
from mnist_jax.runs.select import Run, Selection
from mnist_jax.runtime import provenance
from mnist_jax.train import evaluate
from mnist_jax.types import Row, printable

_ENSEMBLE_SIZES = (1, 2, 3, 5, 10, 20, 50, 100)

# Keys of the test report that keep their names; the others get the prefix "test_".
_UNPREFIXED = ("ece", "confusion_matrix", "per_class", "macro", "weighted", "reliability")


def summarize(
    run: Run, selection: Selection, tested: Evaluated, outer: Sequence[Row]
) -> dict[str, Any]:
    """Return the content of summary.json; with several trials, keys are added.

    Args:
      run: its config and data.
      selection: its trials.
      tested: the chosen ones on the whole test split.
      outer: from `cross_validation.nested`; empty without outer folds.
    """
    config, splits, final = run.config, run.splits, selection.final
    setting = selection.settings[selection.chosen]
    params = jax.tree.leaves(final.states.state.params)
    epochs = final.states.best_epoch[selection.places]
    single = len(selection.places) == 1
    report = evaluation.combine(tested.reports)
    train_seconds = selection.train_seconds + sum(row["train_seconds"] for row in outer)
    compile_seconds = selection.compile_seconds + sum(row["compile_seconds"] for row in outer)
    rows = [row for row in selection.rows if row["setting"] == selection.chosen]
    accuracies = [row["val_accuracy"] for row in rows if row["val_accuracy"] is not None]
    return {
        "dataset": printable(splits.name),
        "requested_dataset": printable(splits.requested or splits.name),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": printable(run.workdir.absolute().name),
        "directory": printable(str(run.workdir.absolute())),
        "init_from": config.init_from and printable(config.init_from),
        "model": config.model.name,
        "seed": config.seed,
        "num_params": sum(x.size for x in params) // len(final.group.settings),
        "num_train": len(splits.train.labels),
        "num_val": len(splits.val.labels),
        "num_test": len(splits.test.labels),
        "score": selection.score,
        "best_epoch": int(epochs[0]) if single else None,
        "val_accuracy": float(np.mean(accuracies)) if accuracies else None,
        f"val_{selection.score}": setting["val_score"] and setting["val_score"]["mean"],
        **{key if key in _UNPREFIXED else f"test_{key}": value for key, value in report.items()},
        "test_interval": _interval(selection.score, tested, splits),
        **_noisy_psnr(config, splits),
        **({"test_macro_f1": report["macro"]["f1"]} if selection.score == "macro_f1" else {}),
        "class_names": list(splits.class_names),
        "image_kind": splits.kind,
        **(_of_trials(run, selection, tested, outer) if space.is_sweep(config) else {}),
        "train_seconds": train_seconds,
        "compile_seconds": compile_seconds,
        "seconds_per_epoch": selection.train_seconds
        / (len(selection.history) + (len(final.rows) if selection.folds else 0)),
        "peak_rss_bytes": provenance.peak_rss_bytes(),
        "device": provenance.device(),
        "backend": jax.default_backend(),
        "matmul_precision": final.group.plan.recipe.model.precision
        or jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        or "default",
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "data_fingerprint": splits.fingerprint,
    }


def _of_trials(
    run: Run, selection: Selection, tested: Evaluated, outer: Sequence[Row]
) -> dict[str, Any]:
    """Return the keys that a summary of several trials has besides."""
    score, reports = selection.score, tested.reports
    numbers = {
        key: [float(report[key]) for report in reports]
        for key in reports[0]
        if all(isinstance(report[key], int | float) for report in reports)
    }
    if score == "macro_f1":
        numbers[score] = [float(report["macro"]["f1"]) for report in reports]
    probable = metrics.has_probabilities(reports[0])
    several_nets = len(reports) > 1 and "confusion_matrix" in reports[0]
    return {
        "trials": len(selection.rows),
        "seeds": run.config.sweep.seeds,
        "folds": run.config.sweep.folds,
        "diverged": sum(row["status"] == "diverged" for row in selection.rows),
        "settings": select.vs_chosen(
            selection.rows, selection.history, selection.settings, selection.chosen, score
        ),
        "rounds": select.rounds(selection.rows, selection.history, run.config.sweep.halving, score),
        "chosen": selection.chosen,
        "nested": describe_outer(outer, score) if outer else None,
        "test": {
            key: stats.describe(values, limits=stats.limits_of(key))._asdict()
            for key, values in numbers.items()
        },
        "ensemble": evaluate_ensemble(tested.scores, run.splits.test.labels, probable)
        if several_nets
        else None,
    }


def _interval(score: str, tested: Evaluated, splits: Splits) -> dict[str, float] | None:
    """Return the 95% interval of the test score for new images and, of several trials, new seeds.

    None if training diverged or a score is infinite.
    """
    if not len(splits.test.labels) or not np.isfinite(tested.scores).all():
        return None
    images, truth = splits.test
    if score == "psnr":
        truth = np.asarray(normalize(jnp.asarray(images))).reshape(len(images), -1)
    values = contributions.of_images(score, tested.scores, truth)
    if not np.isfinite(values).all():
        return None
    low, high = stats.on_new_images(values, stats.limits_of(score))
    return {"low": low, "high": high}


def describe_outer(rows: Sequence[Row], score: str) -> dict[str, Any]:
    """Return the rows of outer folds, and their `score`, which has this name, described."""
    scores, folds = [row["score"] for row in rows], [row["fold"] for row in rows]
    found = stats.describe(scores, folds, stats.limits_of(score))
    return {"score": found._asdict(), "folds": [*rows]}


def evaluate_ensemble(
    logits: Float32[np.ndarray, "trials n classes"], labels: Int32[np.ndarray, " n"], probable: bool
) -> dict[str, Any]:
    """Evaluate the ensemble of at least two trials.

    Args:
      logits: of each.
      labels: classes.
      probable: whether the softmax of the logits are probabilities.

    Returns:
      The number of `trials`; the `test_accuracy` by each rule of `ensemble`, and of smaller
      ensembles, `by_size`; of the mean of their probabilities the `nll` (negative log-likelihood,
      nats), the mean of the trials' own, `nll_of_trials`, the expected calibration error `ece` and
      the `reliability` diagram. The latter are None where nothing is a probability.
    """
    count = len(logits)
    sizes = [size for size in _ENSEMBLE_SIZES if size < count] + [count]
    found: dict[str, Any] = {
        "trials": count,
        "test_accuracy": ensemble.accuracies(logits, labels),
        "by_size": ensemble.by_size(logits, labels, sizes),
        **dict.fromkeys(("nll", "nll_of_trials", "ece", "reliability")),
    }
    if probable:
        from scipy.special import log_softmax

        scores = ensemble.mean_probabilities(logits)  # logarithms, and so logits as well
        names = [str(label) for label in range(logits.shape[-1])]
        report = jax.jit(metrics.classification)(scores, labels)
        evaluated = metrics.to_python(report, names)
        own = -log_softmax(logits, axis=-1)[:, np.arange(len(labels)), labels].mean()
        found |= {key: evaluated[key] for key in ("ece", "reliability")}
        found |= {"nll": evaluated["loss"], "nll_of_trials": float(own)}
    return found


def _noisy_psnr(config: ConfigDict, splits: Splits) -> dict[str, float | None]:
    """Return the PSNR of the test images before denoising; nothing for other tasks."""
    corrupt = tasks.build(config.task, len(splits.class_names)).corrupt
    if corrupt is None:
        return {}

    def psnr(images: UInt8[Array, "n 28 28 1"]) -> Float32[Array, ""]:
        noisy = evaluate.inputs(images, jnp.arange(len(images)), corrupt)
        return image_quality.psnr(noisy, normalize(images))

    found = float(jax.jit(psnr)(jnp.asarray(splits.test.images)))
    return {"test_noisy_psnr": round(found, 4) if math.isfinite(found) else None}
