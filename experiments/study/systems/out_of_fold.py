"""Figures from out-of-fold scores: kinds of error and the effect of thresholds."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8

from experiments.study import curves
from experiments.study.row import confusion
from mnist_jax.analysis import error_analysis, thresholds
from mnist_jax.report import error_plots, plots, threshold_plots

PRECISION = 0.9
PAIR = 3, 5  # the classes whose confusion the study looks into


def of_yes_or_no(
    name: str, scores: Float[np.ndarray, " n"], yes: Bool[np.ndarray, " n"], threshold: float
) -> dict[str, str]:
    """Draw the curves of two classes; return them by caption.

    Args:
        name: of the system, unique on the page.
        scores: higher for a likelier yes.
        yes: the true answers; neither all true nor all false.
        threshold: the score from which the system answers yes.

    Raises:
        UserError: no threshold has the precision of 90%.
    """
    marked = {
        "as it decides": threshold,
        f"{PRECISION:.0%} precision": thresholds.at_precision(scores, yes, PRECISION),
    }
    points = {key: thresholds.operating_point(scores, yes, at) for key, at in marked.items()}
    curve = thresholds.precision_recall(scores, yes)
    figures = {
        "Precision and recall against the threshold": curves.against_threshold(curve, points),
        "Precision against recall": threshold_plots.precision_recall(
            curve, float(yes.mean()), points
        ),
        "ROC curve": threshold_plots.roc(thresholds.roc(scores, yes), points),
    }
    return {key: plots.svg(figure, f"{name}: {key}") for key, figure in figures.items()}


def side_by_side(
    name: str,
    systems: Mapping[str, tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]],
) -> dict[str, str]:
    """Draw the ROC curves of several systems in one plot; return it by caption.

    Args:
        name: of the row, unique on the page.
        systems: scores and true answers, as in `of_yes_or_no`.
    """
    by_system = {
        f"{system}, AUC {thresholds.ranking(scores, yes).auc:.4f}": thresholds.roc(scores, yes)
        for system, (scores, yes) in systems.items()
    }
    caption = "ROC curves"
    return {caption: plots.svg(curves.rocs(by_system), f"{name}: {caption}")}


def of_classes(
    name: str,
    images: UInt8[np.ndarray, "n 28 28 1"],
    scores: Float32[np.ndarray, "n classes"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
) -> dict[str, str]:
    """Draw kinds of error, galleries of two classes and suspected labels; return them by caption.

    Args:
        name: of the system, unique on the page.
        images: the training images.
        scores: of each, from the fold that held it out.
        labels: as given.
        class_names: one a class.
    """
    decisions = error_analysis.decide(scores)
    matrix = confusion(labels, decisions.predicted, class_names)["confusion"]
    shares = error_analysis.confusion_shares(np.asarray(matrix))
    first, second = (class_names[k] for k in PAIR)
    figures = {
        "Kinds of error, in percent of the row's class": error_plots.confusion_shares(
            shares, class_names
        ),
        f"{first} and {second}, the surest of each": error_plots.galleries(
            images, decisions, labels, PAIR, class_names
        ),
    }
    found = error_analysis.suspects(thresholds.probability(thresholds.log_odds(scores)), labels)
    if len(found.indices):
        caption = f"Suspected wrong labels, the most suspect of {len(found.indices):,}"
        figures[caption] = error_plots.suspects(images, found, labels, class_names)
    return {key: plots.svg(figure, f"{name}: {key}") for key, figure in figures.items()}
