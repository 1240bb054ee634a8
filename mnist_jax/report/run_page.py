"""The page that a run leaves behind: everything a person wants to know of it, in one HTML file.

`render` is pure: a run's results in, the page out. The page needs nothing else: no script, no font,
no picture from outside, and its Content-Security-Policy forbids them.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8
from markupsafe import Markup

from mnist_jax.analysis import error_analysis, metrics, slices, stats, thresholds
from mnist_jax.config import flatten
from mnist_jax.models.registry import Layer
from mnist_jax.report import architecture, error_plots, formats, pictures, plots, threshold_plots
from mnist_jax.types import UserError

MISTAKES = 32  # how many are shown
AMBIGUOUS = 16
CONFUSIONS = 8  # how many pairs of classes are named
LARGE = 15  # of more classes, kinds of error are too many for a number each
GOAL = 0.9  # the precision and the recall for which a threshold is chosen


class Inside(NamedTuple):
    """What a trained net can tell besides its logits of the test split."""

    layers: Sequence[Layer]  # what it consists of
    weights: Mapping[str, Float32[np.ndarray, "H W"]]  # of units of the first layer, over pixels
    relevance: Float[np.ndarray, "M 28 28"]  # of pixels for the truth in the worst mistakes
    validation: tuple[Float32[np.ndarray, "val K"], Int32[np.ndarray, " val"]] | None


def next_commands(
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    command: str,
) -> list[tuple[str, str]]:
    """Two or three commands worth running next, each with the reason: `[(reason, command), ...]`.

    An override is proposed only where the configuration has that field.
    """
    fields = dict(flatten(config))
    steps: list[tuple[str, str, Any]] = []
    last = history[-1] if history else {}
    epochs, decay = fields.get("train.epochs"), fields.get("optim.weight_decay")
    if epochs and last.get("val_accuracy") is not None and summary["best_epoch"] == last["epoch"]:
        reason = "The last epoch was the best one: it may not be done learning."
        steps.append((reason, "train.epochs", 2 * epochs))
    gap = (last.get("train_accuracy") or math.nan) - (last.get("val_accuracy") or math.nan)
    reason = f"It does {100 * gap:.1f} points better on what it was trained on"
    if gap > 0.01 and fields.get("train.augment.shift") == 0:
        steps.append((f"{reason}: show it more.", "train.augment.shift", 0.1))
    elif gap > 0.01 and decay is not None:
        # The usual first value, decoupled and as an L2 term in the gradient.
        start = 0.01 if fields.get("optim.name") == "adamw" else 0.0001
        steps.append((f"{reason}: hold it back.", "optim.weight_decay", _short(3 * decay) or start))
    if "seed" in fields:
        reason = "How much of the result is luck? Another seed tells."
        steps.append((reason, "seed", fields["seed"] + 1))
    if rate := fields.get("optim.learning_rate"):
        reason = "Does it want a gentler learning rate?"
        steps.append((reason, "optim.learning_rate", _short(rate / 2)))
    return [(reason, override(command, field, value)) for reason, field, value in steps[:3]]


def _short(value: int | float) -> float:
    """To three significant digits, so that 3 * 0.1 is 0.3 on a command line."""
    return float(f"{value:.3g}")


def override(command: str, field: str, value: object) -> str:
    """The command with `--config.field=value`, and with its `--workdir`, if any, renamed after it.

    Two runs in one directory would be taken for one that was interrupted.
    """
    flag = f"--config.{field}="
    words = [word for word in shlex.split(command) if not word.startswith(flag)]
    suffix = f"-{field.rpartition('.')[2]}-{value}"
    for place, word in enumerate(words):
        if word.startswith("--workdir=") or (place and words[place - 1] == "--workdir"):
            words[place] = word.rstrip("/") + suffix
    return shlex.join([*words, f"{flag}{value}"])


def confusions(
    matrix: Int[np.ndarray, "K K"], limit: int = CONFUSIONS
) -> list[tuple[int, int, int]]:
    """The most frequent kinds of error, `[(true, predicted, count), ...]`, at most `limit`."""
    counts = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    order = np.argsort(-counts, axis=None, kind="stable")[:limit]
    pairs = [(int(cell // len(matrix)), int(cell % len(matrix))) for cell in order]
    return [(*pair, int(counts[pair])) for pair in pairs if counts[pair] > 0]


def majority(matrix: Int[np.ndarray, "K K"], names: Sequence[str]) -> tuple[str, float] | None:
    """The most frequent class of a confusion matrix, and the accuracy of always answering it."""
    support = matrix.sum(axis=1)
    return (names[support.argmax()], support.max() / support.sum()) if support.any() else None


def render(
    *,
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    images: UInt8[np.ndarray, "N 28 28 1"],
    logits: Float32[np.ndarray, "N K"],
    labels: Int32[np.ndarray, "N"],
    command: str,
    inside: Inside,
) -> str:
    """The report of one run, as the text of a self-contained HTML file.

    Args:
        summary: what `summary.json` holds.
        history: the rows of `metrics.jsonl`.
        config: the run's whole configuration.
        images: the test images, each shown as it was before any scaling.
        logits: the trained model's output for them.
        labels: their true classes.
        command: the shell command that does the run again.
        inside: what the net tells besides; of two classes, the logits and labels of validation.
    """
    names = [str(name) for name in summary["class_names"]]
    matrix = np.asarray(summary["confusion_matrix"], np.int64)
    support, total, wrong = matrix.sum(axis=1), summary["num_test"], summary["test_errors"]
    odds = thresholds.log_odds(logits)
    probabilities = thresholds.probability(odds)

    def show(index: int, guesses: int) -> dict[str, Any]:
        """A test image and the model's first guesses of it."""
        first = np.argsort(-odds[index], kind="stable")[:guesses]
        return {
            "index": index,
            "true": names[labels[index]],
            "guesses": [(names[k], float(probabilities[index, k])) for k in first],
            "image": pictures.png(images[index]),
        }

    decisions = error_analysis.decide(logits)
    worst = error_analysis.worst_mistakes(decisions, labels, MISTAKES)
    mistakes = [show(index, 1) for index in worst.tolist()]
    explained = [
        (mistake, pictures.png(pictures.overlay(images[mistake["index"]], relevance)))
        for mistake, relevance in zip(mistakes, inside.relevance, strict=False)  # the worst few
    ]
    closest = error_analysis.most_ambiguous(probabilities, AMBIGUOUS)
    closest = closest[np.isfinite(probabilities[closest]).all(axis=1)]
    rankings = [thresholds.ranking(odds[:, k], labels == k) for k in range(len(names))]
    curves = plots.learning_curves(history, summary["best_epoch"])
    probable = metrics.has_probabilities(summary)
    return template("report.html.jinja").render(
        summary=summary,
        history=history,
        command=command,
        next_commands=next_commands(summary, history, config, command),
        interval=stats.wilson(total - wrong, total) if total and wrong is not None else None,
        majority=majority(matrix, names),
        config_rows=list(flatten(config)),
        large=len(names) > LARGE,
        names=names,
        class_errors=(support - matrix.diagonal()).tolist(),
        rankings=rankings,
        mean_rankings=_means(rankings, support),
        absent=not support.all(),
        confusions=confusions(matrix),
        kinds=_kinds_of_error(images, decisions, labels, matrix, names),
        mistakes=mistakes,
        explained=explained,
        ambiguous=[show(index, 2) for index in closest.tolist()],
        small=any(min(x.shape) < min(images.shape[1:3]) for x in inside.weights.values()),
        weights={name: pictures.png(pictures.signed(x)) for name, x in inside.weights.items()},
        architecture=Markup(plots.svg(architecture.architecture(inside.layers), "The net")),
        learning_curves=Markup(plots.svg(curves, "Learning curves")),
        confusion=Markup(plots.svg(plots.confusion(matrix, names), "Confusion matrix")),
        reliability=Markup(
            plots.svg(plots.reliability(summary["reliability"]), "Reliability diagram")
        )
        if probable
        else "",
        probable=probable,
        two_classes=trade_offs(logits, labels, inside.validation, "on validation")
        if len(names) == 2
        else None,
    )


def _kinds_of_error(
    images: UInt8[np.ndarray, "N 28 28 1"],
    decisions: error_analysis.Decisions,
    labels: Int32[np.ndarray, " N"],
    matrix: Int[np.ndarray, "K K"],
    names: Sequence[str],
) -> dict[str, Any] | None:
    """Which classes are taken for which, the two that are most confused, errors by shape.

    None if nothing is wrong, or the run diverged.
    """
    pair = error_analysis.most_confused(matrix)
    if pair is None or not np.isfinite(decisions.odds_against).all():
        return None
    by_shape = slices.by_shape(decisions.predicted == labels, images)
    by_shape = {name: parts for name, parts in by_shape.items() if parts}  # of black images none
    shares = error_analysis.confusion_shares(matrix)
    figures = {
        "classes": error_plots.confusion_shares(shares, names) if len(names) <= LARGE else None,
        "shapes": error_plots.slice_bars(by_shape) if by_shape else None,
        "galleries": error_plots.galleries(images, decisions, labels, pair, names),
    }
    drawn = {
        key: Markup(plots.svg(figure, f"Kinds of error: {key}")) if figure else ""
        for key, figure in figures.items()
    }
    return {"pair": [names[k] for k in pair], **drawn}


def _means(
    rankings: Sequence[thresholds.Ranking], support: Int[np.ndarray, " K"]
) -> list[thresholds.Ranking]:
    """The means over the classes that have images: of each alike, and of each image alike."""
    there = support > 0
    if not there.any():
        return [thresholds.Ranking(math.nan, math.nan)] * 2
    return [
        thresholds.Ranking(*np.average(np.array(rankings)[there], axis=0, weights=w).tolist())
        for w in (None, support[there])
    ]


def trade_offs(
    logits: Float32[np.ndarray, "N 2"],
    labels: Int32[np.ndarray, " N"],
    others: tuple[Float32[np.ndarray, "M 2"], Int32[np.ndarray, " M"]] | None,
    where: str,
) -> dict[str, Any] | None:
    """Of two classes both curves, and what thresholds chosen elsewhere make of the test split.

    Args:
        logits: of the test images.
        labels: their true classes, 0 or 1: the yes.
        others: logits and true classes of the examples by which thresholds are chosen, if any.
        where: how those are named: "on validation".

    Returns:
        What the macro `trade_offs` shows; None if the test split lacks a class, or the run
        diverged.
    """
    odds = thresholds.log_odds(logits)[:, 1]
    ranking = thresholds.ranking(odds, labels)
    if math.isnan(ranking.auc):
        return None
    chosen, out_of_reach = {"the higher score": 0.0}, []
    goals = {"precision": thresholds.at_precision, "recall": thresholds.at_recall}
    if others:
        other_odds = thresholds.log_odds(others[0])[:, 1]
        for what, choose in goals.items():
            name = f"{GOAL:.0%} {what} {where}"
            try:
                chosen[name] = choose(other_odds, others[1], GOAL)
            except UserError:
                out_of_reach.append(name)
    points = {name: thresholds.operating_point(odds, labels, at) for name, at in chosen.items()}
    curve, share = thresholds.precision_recall(odds, labels), float(labels.mean())
    figures = {
        "precision_recall": (
            threshold_plots.precision_recall(curve, share, points),
            "Precision against recall",
        ),
        "roc": (threshold_plots.roc(thresholds.roc(odds, labels), points), "ROC curve"),
    }
    return {
        "ranking": ranking,
        "points": points,
        "probabilities": thresholds.probability(np.array([*chosen.values()])).tolist(),
        "out_of_reach": out_of_reach,
        **{name: Markup(plots.svg(*figure)) for name, figure in figures.items()},
    }


def template(name: str, *folders: Path) -> jinja2.Template:
    """A page of the package, or of some folders; an unknown name is an error, text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent / "templates"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        percent=formats.percent,
        count=formats.count,
        loss=formats.loss,
        duration=formats.duration,
        memory=formats.memory,
    )
    return environment.get_template(name)
