"""The report of a finished run, with one trial or several, on one page.

`render` is pure. The page is one HTML file without scripts, and its Content-Security-Policy forbids
scripts, fonts and images from outside.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8

from mnist_jax.analysis import ensemble, error_analysis, metrics, slices, thresholds
from mnist_jax.config import flatten
from mnist_jax.models.registry import Layer
from mnist_jax.report import (
    architecture,
    error_plots,
    formats,
    pictures,
    plots,
    sweep_plots,
    templates,
    threshold_plots,
)
from mnist_jax.types import Row, UserError

MISTAKES = 32  # shown at most
AMBIGUOUS = 16
RESTORED = 16  # test images of a denoising run, the first and the worst
CONFUSIONS = 8  # pairs of classes that are named
LARGE = 15  # with more classes, there is no figure with a number for each kind of error
GOAL = 0.9  # the precision and the recall for which a threshold is chosen


class Explanation(NamedTuple):
    """The layers of the evaluated net, and the evidence behind its mistakes."""

    layers: Sequence[Layer]
    weights: Mapping[str, Float32[np.ndarray, "H W"]]  # of units of the first layer, over pixels
    relevance: Float[np.ndarray, "M 28 28"]  # of pixels for the truth in the worst mistakes


class FinishedRun(NamedTuple):
    """Everything that the page shows, except the explanation; T trials were evaluated."""

    summary: Mapping[str, Any]  # of summary.json
    history: Sequence[Row]  # of metrics.jsonl; with several trials each row has its "trial"
    trials: Sequence[Row]  # of trials.jsonl
    config: Mapping[str, Any]
    images: UInt8[np.ndarray, "N 28 28 1"]  # of the test split, before any scaling
    labels: np.ndarray  # classes, or a row of 0 and 1 for each example
    scores: Float32[np.ndarray, "T N ..."]  # logits, scores of labels, or restored pixels
    noisy: Float32[np.ndarray, "N 28 28 1"] | None  # input of a denoising net; 1 is white
    # Scores and classes of the examples by which a threshold between two classes is chosen.
    held_out: tuple[Float32[np.ndarray, "R M 2"], Int32[np.ndarray, " M"]] | None
    held_out_name: str  # "on validation" or "out of fold"


def render(run: FinishedRun, explanation: Explanation | None, command: str) -> str:
    """Return the text of a self-contained HTML file with the sections that apply to the run.

    Args:
        run: the results. If all bins of its `reliability` are empty, the scores are not
            probabilities, and none are shown.
        explanation: of the evaluated net, if available.
        command: the shell command that repeats the run; may be empty.
    """
    summary, history = run.summary, run.history
    several = "trials" in summary
    if several:
        chosen = {t["trial"] for t in run.trials if t["setting"] == summary["chosen"]}
        history = [row for row in history if row["trial"] in chosen]
    layers = explanation.layers if explanation else ()
    return templates.load("run.html.jinja").render(
        summary=summary,
        history=history,
        several=several,
        evaluated=len(run.scores),
        command=command,
        next_commands=[] if several else next_commands(summary, history, run.config, command),
        config_rows=flatten(run.config),
        learning=plots.learning_curves(history, None if several else summary["best_epoch"]),
        task=formats.task_name(run.config),
        sweep=_sweep(run) if several else None,
        classes=_classes(run, explanation) if "confusion_matrix" in summary else None,
        mistaken=_mistaken(run) if summary["score"] == "macro_f1" else None,
        restored=_restored(run),
        architecture=architecture.architecture(layers) if layers else None,
        weights=explanation.weights if explanation else {},
    )


def next_commands(
    summary: Mapping[str, Any], history: Sequence[Row], config: Mapping[str, Any], command: str
) -> list[tuple[str, str]]:
    """Two or three commands to try next, each with its reason: `[(reason, command), ...]`.

    An override is proposed only if the configuration has that field.
    """
    fields = dict(flatten(config))
    steps: list[tuple[str, str, Any]] = []
    last = history[-1] if history else {}
    epochs, decay = fields.get("train.epochs"), fields.get("optim.weight_decay")
    if epochs and last.get("val_loss") is not None and summary["best_epoch"] == last["epoch"]:
        reason = "The last epoch was the best: training may not have converged."
        steps.append((reason, "train.epochs", 2 * epochs))
    gap = (last.get("train_accuracy") or math.nan) - (last.get("val_accuracy") or math.nan)
    reason = f"It does {100 * gap:.1f} points better on training than on validation images"
    if gap > 0.01 and fields.get("train.augment.shift") == 0:
        steps.append((f"{reason}: augment them.", "train.augment.shift", 0.1))
    elif gap > 0.01 and decay is not None:
        # The usual first value, decoupled and as an L2 term in the gradient.
        start = 0.01 if fields.get("optim.name") == "adamw" else 0.0001
        steps.append((f"{reason}: regularise.", "optim.weight_decay", _short(3 * decay) or start))
    if "seed" in fields:
        reason = "Another seed shows how much of the result is luck."
        steps.append((reason, "seed", fields["seed"] + 1))
    if rate := fields.get("optim.learning_rate"):
        reason = "A lower learning rate may do better."
        steps.append((reason, "optim.learning_rate", _short(rate / 2)))
    return [(reason, override(command, field, value)) for reason, field, value in steps[:3]]


def _short(value: int | float) -> float:
    """Round to three significant digits, so that 3 * 0.1 is 0.3 on a command line."""
    return float(f"{value:.3g}")


def override(command: str, field: str, value: object) -> str:
    """Return the command with `--config.field=value` and its `--workdir` or `--name` renamed.

    A second run in the same directory would be taken for the first one, interrupted.
    """
    flag = f"--config.{field}="
    words = [word for word in shlex.split(command) if not word.startswith(flag)]
    suffix = f"-{field.rpartition('.')[2]}-{value}"
    for place, word in enumerate(words):
        if word.startswith(("--workdir=", "--name=")) or (
            place and words[place - 1] in ("--workdir", "--name")
        ):
            words[place] = word.rstrip("/") + suffix
    return shlex.join([*words, f"{flag}{value}"])


def _sweep(run: FinishedRun) -> dict[str, Any]:
    """Return the settings by name, and figures of the sweep, the trials and ensembles."""
    summary, score = run.summary, run.summary["score"]
    settings = shown = sorted(summary["settings"], key=lambda setting: setting["rank"])
    validated = any(setting["val_score"] for setting in settings)
    if not validated:  # only validation can choose, so there is one setting
        shown = [{**settings[0], "val_score": summary["test"][score]}]
    split = "val" if validated else "test"
    distribution = None
    if validated or summary["test"][score]["n"] > 1:
        distribution = sweep_plots.distribution(run.trials, shown, score, split)
    together = summary["ensemble"]
    drawn = {title: sweep_plots.sweep(part, score) for title, part in _budgets(summary).items()}
    figures = [(title, figure) for title, figure in drawn.items() if figure]
    return {
        "name": sweep_plots.name,
        "validated": validated,
        "halving": bool(summary["rounds"]),
        "figures": figures,
        "spans": len(settings[0]["overrides"]) == 1,
        "distribution": distribution,
        "interval": any(found["low"] is not None for s in shown if (found := s["val_score"])),
        "ensembles": sweep_plots.ensembles(together["by_size"]) if together else None,
    }


def _budgets(summary: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Group the settings by the epochs they were trained for, with titles."""
    settings: list[Row] = summary["settings"]
    if not summary["rounds"]:
        return {"": settings}
    groups = {
        f"After epoch {part['epoch']}": {s["setting"]: s["val_score"] for s in part["settings"]}
        for part in summary["rounds"]
    }
    groups["At the end"] = {s["setting"]: s["val_score"] for s in settings if not s["dropped"]}
    return {
        title: [s | {"val_score": found.get(s["setting"])} for s in settings]
        for title, found in groups.items()
    }


def _classes(run: FinishedRun, explanation: Explanation | None) -> dict[str, Any]:
    """Everything about classes; where T > 1, examples are by the ensemble's mean probabilities."""
    summary, labels, count = run.summary, run.labels, len(run.scores)
    names = [str(name) for name in summary["class_names"]]
    # Logarithms of mean probabilities are logits of the ensemble.
    logits = run.scores[0] if count == 1 else ensemble.mean_probabilities(run.scores)
    odds = thresholds.log_odds(logits)
    probabilities = thresholds.probability(odds)
    decisions = error_analysis.decide(logits)
    wrong = (run.scores.argmax(axis=-1) != labels).sum(axis=0)

    def show(index: int) -> dict[str, Any]:
        first_two = np.argsort(-odds[index], kind="stable")[:2]
        return {
            "index": index,
            "true": names[labels[index]],
            "guesses": [(names[k], float(probabilities[index, k])) for k in first_two],
            "wrong": int(wrong[index]),
            "image": run.images[index],
        }

    matrix = np.asarray(summary["confusion_matrix"], np.int64)
    support = matrix.sum(axis=1)
    rankings = [thresholds.ranking(odds[:, k], labels == k) for k in range(len(names))]
    closest = error_analysis.most_ambiguous(probabilities, AMBIGUOUS)
    closest = closest[np.isfinite(probabilities[closest]).all(axis=1)]
    diagrams = [one["reliability"] for one in (summary.get("ensemble"), summary) if one]
    # All bins are empty if the scores are not probabilities, as with a hinge loss.
    probable = metrics.has_probabilities(summary)
    own = np.zeros_like(matrix)  # of the ensemble, where T > 1
    np.add.at(own, (labels, decisions.predicted), 1)
    worst = error_analysis.worst_mistakes(decisions, labels)
    return {
        "names": names,
        "large": len(names) > LARGE,
        "probable": probable,
        "majority": majority(matrix, names),
        "errors": ((support - matrix.diagonal()) / count).tolist(),
        "rankings": rankings,
        "mean_rankings": _means(rankings, support),
        "absent": not support.all(),
        "confusion": plots.confusion(matrix, names),
        "calibration": plots.reliability(*diagrams) if probable else None,
        "thresholds": _thresholds(run) if len(names) == 2 else None,
        "confusions": confusions(own),
        "kinds": _kinds_of_error(run, decisions, own, names),
        "mistakes": [show(index) for index in worst[:MISTAKES].tolist()],
        "wrong": len(worst),
        "relevance": explanation.relevance[: len(worst)] if explanation else (),
        "closest": [show(index) for index in closest.tolist()],
    }


def confusions(
    matrix: Int[np.ndarray, "K K"], limit: int = CONFUSIONS
) -> list[tuple[int, int, int]]:
    """Return at most `limit` frequent kinds of error: `[(true, predicted, count), ...]`."""
    counts = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    order = np.argsort(-counts, axis=None, kind="stable")[:limit]
    pairs = [(int(cell // len(matrix)), int(cell % len(matrix))) for cell in order]
    return [(*pair, int(counts[pair])) for pair in pairs if counts[pair] > 0]


def majority(matrix: Int[np.ndarray, "K K"], names: Sequence[str]) -> tuple[str, float] | None:
    """Return the most frequent class and the accuracy of always predicting it."""
    support = matrix.sum(axis=1)
    return (names[support.argmax()], support.max() / support.sum()) if support.any() else None


def _kinds_of_error(
    run: FinishedRun,
    decisions: error_analysis.Decisions,
    matrix: Int[np.ndarray, "K K"],
    names: Sequence[str],
) -> dict[str, Any] | None:
    """Draw confusions by class, the most confused pair of classes, and errors by shape.

    None if nothing is wrong, or if the run diverged.
    """
    pair = error_analysis.most_confused(matrix)
    if pair is None or not np.isfinite(decisions.odds_against).all():
        return None
    by_shape = slices.by_shape(decisions.predicted == run.labels, run.images)
    by_shape = {name: parts for name, parts in by_shape.items() if parts}  # black images have none
    shares = error_analysis.confusion_shares(matrix)
    return {
        "pair": [names[k] for k in pair],
        "classes": error_plots.confusion_shares(shares, names) if len(names) <= LARGE else None,
        "shapes": error_plots.slice_bars(by_shape) if by_shape else None,
        "galleries": error_plots.galleries(run.images, decisions, run.labels, pair, names),
    }


def _means(
    rankings: Sequence[thresholds.Ranking], support: Int[np.ndarray, " K"]
) -> list[thresholds.Ranking]:
    """Average over the classes that have images: unweighted, and weighted by support."""
    present = support > 0
    if not present.any():
        return [thresholds.Ranking(math.nan, math.nan)] * 2
    return [
        thresholds.Ranking(*np.average(np.array(rankings)[present], axis=0, weights=w).tolist())
        for w in (None, support[present])
    ]


def _thresholds(run: FinishedRun) -> dict[str, Any] | None:
    """Draw curves of two classes; return the test results of thresholds chosen on other examples.

    Counts are over the decisions of all trials: ensemble scores would have another scale. None if
    the test split lacks a class, or if the run diverged.
    """
    odds, labels = _odds_of_yes(run.scores, run.labels)
    ranking = thresholds.ranking(odds, labels)
    if math.isnan(ranking.auc):
        return None
    chosen, out_of_reach = {"the higher score": 0.0}, []
    goals = {"precision": thresholds.at_precision, "recall": thresholds.at_recall}
    if run.held_out:
        held_out = _odds_of_yes(*run.held_out)
        for what, choose in goals.items():
            name = f"{GOAL:.0%} {what} {run.held_out_name}"
            try:
                chosen[name] = choose(*held_out, GOAL)
            except UserError:
                out_of_reach.append(name)
    points = {name: thresholds.operating_point(odds, labels, at) for name, at in chosen.items()}
    curve = thresholds.precision_recall(odds, labels)
    return {
        "ranking": ranking,
        "points": points,
        "probabilities": thresholds.probability(np.array([*chosen.values()])).tolist(),
        "out_of_reach": out_of_reach,
        "precision_recall": threshold_plots.precision_recall(curve, float(labels.mean()), points),
        "roc": threshold_plots.roc(thresholds.roc(odds, labels), points),
    }


def _odds_of_yes(
    scores: Float32[np.ndarray, "T N 2"], labels: Int32[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
    """Log-odds of the second class by every trial, one after the other, and the labels."""
    return thresholds.log_odds(scores.reshape(-1, 2))[:, 1], np.tile(labels, len(scores))


def _mistaken(run: FinishedRun) -> list[dict[str, Any]]:
    """Return the misclassified test images; the most confident errors come first."""
    names, truth = [row["name"] for row in run.summary["per_class"]], run.labels > 0
    scores = run.scores.mean(axis=0)
    wrong = (scores > 0) != truth
    trials = ((run.scores > 0) != truth).any(axis=2).sum(axis=0)
    sureness = np.where(wrong, abs(scores), -1.0).max(axis=1, initial=-1.0)
    order = np.argsort(-sureness, kind="stable")[: min(MISTAKES, wrong.any(axis=1).sum())]

    def named(labels: Bool[np.ndarray, " labels"]) -> str:
        return ", ".join(name for name, has in zip(names, labels, strict=True) if has) or "none"

    return [
        {
            "index": index,
            "image": run.images[index],
            "true": named(truth[index]),
            "seen": named(scores[index] > 0),
            "wrong": int(trials[index]),
        }
        for index in order.tolist()
    ]


def _restored(run: FinishedRun) -> dict[str, list[dict[str, Any]]]:
    """Test images of a denoising run, by title: noisy, restored (the mean of trials), clean."""
    noisy = run.noisy
    if noisy is None:
        return {}
    restored = run.scores.mean(axis=0).reshape(run.images.shape).clip(0, 1)
    errors = np.square(restored - run.images / np.float32(255)).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        psnr = -10 * np.log10(errors)

    def show(index: int) -> dict[str, Any]:
        images = pictures.grey(noisy[index]), pictures.grey(restored[index]), run.images[index]
        return {"index": index, "images": images, "psnr": float(psnr[index])}

    worst = np.argsort(-errors, kind="stable")[:RESTORED].tolist()
    return {
        "The first test images": [*map(show, range(min(RESTORED, len(errors))))],
        "The worst restored images": [*map(show, worst)],
    }
