"""Thresholds between no and yes: the trade-off of each, and one for a goal.

A score is any finite number that is higher for a likelier yes; an example is predicted as yes if
its score is at least the threshold. Choose thresholds only on validation or out-of-fold scores: on
the test split, the best threshold is partly luck.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mnist_jax.types import UserError

Scores = Float[np.ndarray, " n"]
Labels = Bool[np.ndarray, " n"] | Int[np.ndarray, " n"]  # 1: yes, 0: no


class Curve(NamedTuple):
    """Points of a curve, by falling threshold."""

    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]
    thresholds: Float[np.ndarray, " points"]


class Ranking(NamedTuple):
    """Quality of a ranking of yes above no, at all thresholds; NaN where it is undefined."""

    auc: float  # area under the ROC curve: P(a yes scores more than a no)
    average_precision: float  # area under the precision-recall curve, as steps


class Point(NamedTuple):
    """Results at a threshold: counts, and rates that are NaN over no examples."""

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def precision(self) -> float:
        """Share of the examples called a yes that are a yes."""
        return _share(self.true_positives, self.false_positives)

    @property
    def recall(self) -> float:
        """Share of positives predicted as such: the true positive rate."""
        return _share(self.true_positives, self.false_negatives)

    @property
    def false_positive_rate(self) -> float:
        """Share of negatives predicted as positive."""
        return _share(self.false_positives, self.true_negatives)


def log_odds(logits: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """Return log(p / (1 - p)) of the softmax probability p of each class.

    They have the order of p, but still differ where p rounds to 0 or 1.
    """
    x = np.pad(logits.astype(np.float64), ((0, 0), (1, 1)), constant_values=-np.inf)
    with np.errstate(invalid="ignore"):  # of a diverged run: inf - inf is NaN
        before = np.logaddexp.accumulate(x[:, :-2], axis=1)  # of the classes before each
        after = np.logaddexp.accumulate(x[:, :1:-1], axis=1)[:, ::-1]
        return x[:, 1:-1] - np.logaddexp(before, after)


def probability(odds: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return the p of each log(p / (1 - p))."""
    from scipy.special import expit

    return expit(odds)


def ranking(scores: Scores, labels: Labels) -> Ranking:
    """Return the areas under both curves; NaN if a class is missing or a score is not finite."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if not np.isfinite(scores).all() or not 0 < np.count_nonzero(labels) < len(labels):
        return Ranking(math.nan, math.nan)
    auc, precision = roc_auc_score(labels, scores), average_precision_score(labels, scores)
    return Ranking(float(auc), float(precision))


def precision_recall(scores: Scores, labels: Labels, limit: int = 200) -> Curve:
    """Return precision (y) against recall (x), at most `limit` points; needs a positive example."""
    precision, recall, thresholds = _precision_recall(scores, labels)
    return _thin(Curve(recall[::-1], precision[::-1], thresholds[::-1]), limit)


def roc(scores: Scores, labels: Labels, limit: int = 200) -> Curve:
    """Return the true (y) against the false positive rate (x), at most `limit` points.

    Needs examples of both classes. The curve runs from (0, 0), at an infinite threshold, to (1, 1).
    """
    from sklearn.metrics import roc_curve

    return _thin(Curve(*roc_curve(labels, scores)), limit)


def at_precision(scores: Scores, labels: Labels, precision: float) -> float:
    """Return the lowest threshold, with the most recall, of at least this precision.

    Raises:
        UserError: no threshold reaches it; names the best one.
    """
    precisions, _, thresholds = _precision_recall(scores, labels)
    reached = np.flatnonzero(precisions >= precision)
    if not len(reached):
        best = precisions.argmax()
        raise UserError(
            f"no threshold has a precision of {precision:.4g}; the best is "
            f"{precisions[best]:.4g}, at a threshold of {thresholds[best]:.4g}"
        )
    return float(thresholds[reached[0]])


def at_recall(scores: Scores, labels: Labels, recall: float) -> float:
    """Return the highest threshold, usually with the most precision, of at least this recall.

    Raises:
        UserError: no threshold reaches it: it is above 1, or no example is positive.
    """
    _, recalls, thresholds = _precision_recall(scores, labels)
    reached = np.flatnonzero(recalls >= recall)
    if not len(reached):
        raise UserError(
            f"no threshold has a recall of {recall:.4g}; the largest possible recall is 1"
        )
    return float(thresholds[reached[-1]])


def operating_point(scores: Scores, labels: Labels, threshold: float) -> Point:
    """Count these examples by truth and decision at a threshold."""
    called, yes = scores >= threshold, labels.astype(bool)
    pairs = ((called, yes), (called, ~yes), (~called, yes), (~called, ~yes))
    return Point(threshold, *(int(np.count_nonzero(a & b)) for a, b in pairs))


def _precision_recall(scores: Scores, labels: Labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision, recall and all thresholds that change them, ascending.

    Raises:
        UserError: no example is positive.
    """
    from sklearn.metrics import precision_recall_curve

    if not np.any(labels):
        raise UserError("no example is positive, so recall is undefined; give labels of 0 and 1")
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    return precision[:-1], recall[:-1], thresholds  # its last point has no threshold


def _thin(curve: Curve, limit: int) -> Curve:
    """Thin a curve to `limit` points, evenly spaced along its drawn length, with both ends."""
    if len(curve.x) <= limit:
        return curve
    steps = np.abs(np.diff(curve.x)) + np.abs(np.diff(curve.y))
    length = np.concatenate([[0.0], np.cumsum(steps)])
    chosen = np.unique(np.searchsorted(length, np.linspace(0, length[-1], limit)))
    return Curve(*(values[chosen] for values in curve))


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else math.nan
