"""Errors of a model: pure NumPy on its logits or probabilities and the true classes.

Functions that select examples return their indices, the most relevant first.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

Labels = Int32[np.ndarray, "N"]
Indices = Int[np.ndarray, "M"]  # of examples


class Decisions(NamedTuple):
    """Decisions from logits, one entry per example."""

    predicted: Int[np.ndarray, "N"]
    odds_against: np.ndarray  # (N,) float64: p(any other class) / p(predicted)

    @property
    def confidence(self) -> np.ndarray:
        """The softmax probability of the predicted class, (N,) float64."""
        return 1.0 / (1.0 + self.odds_against)


def decide(logits: Float32[np.ndarray, "N K"]) -> Decisions:
    """Return the most probable class of each example, and the odds against it.

    Odds are float64: a long-trained net gives thousands of examples a probability of exactly 1, but
    their odds still differ.
    """
    predicted = logits.argmax(axis=1)
    with np.errstate(invalid="ignore"):  # diverged: inf - inf is NaN, which propagates
        gaps = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    others = np.arange(logits.shape[1]) != predicted[:, None]
    return Decisions(predicted, np.exp(gaps).sum(axis=1, where=others))


def worst_mistakes(decisions: Decisions, labels: Labels, limit: int | None = None) -> Indices:
    """Return at most `limit` indices of errors, the most confident first; NaN comes last."""
    return _surest(decisions, decisions.predicted != labels)[:limit]


def gallery(decisions: Decisions, labels: Labels, actual: int, predicted: int) -> Indices:
    """Return indices of the examples of one class that were taken for one class.

    The most confident come first; `actual` and `predicted` may be the same.
    """
    return _surest(decisions, (labels == actual) & (decisions.predicted == predicted))


def _surest(decisions: Decisions, among: Bool[np.ndarray, "N"]) -> Indices:
    chosen = np.flatnonzero(among)
    return chosen[np.argsort(decisions.odds_against[chosen], kind="stable")]


def most_ambiguous(probabilities: Float[np.ndarray, "N K"], limit: int | None = None) -> Indices:
    """Return indices by the margin between the two most probable classes, the smallest first.

    Source: margin sampling, Scheffer et al. 2001.
    """
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return np.argsort(first - second, kind="stable")[:limit]


def confusion_shares(matrix: Int[np.ndarray, "K K"]) -> Float[np.ndarray, "K K"]:
    """Return the share of each true class (row) predicted as each other class; the diagonal is 0.

    Unlike counts, shares compare kinds of error between classes of different sizes. The row of a
    class without examples is 0.
    """
    errors = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    return errors / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def most_confused(matrix: Int[np.ndarray, "K K"]) -> tuple[int, int] | None:
    """Return the two classes that are confused most often, both directions summed.

    In ascending order; None without errors.
    """
    both = np.triu(matrix + matrix.T, k=1)
    first, second = divmod(int(both.argmax()), len(both))
    return (first, second) if both[first, second] else None


class Suspects(NamedTuple):
    """Examples whose given label is probably wrong, the most suspect first."""

    indices: Indices
    suggested: Int[np.ndarray, "M"]  # the class that they seem to be of
    margin: Float[np.ndarray, "M"]  # p(given label) - p(suggested class)


def suspects(probabilities: Float[np.ndarray, "N K"], labels: Labels) -> Suspects:
    """Suspected wrong labels, by confident learning (Northcutt et al. 2021, equations 1 and 2).

    A class claims an example if its probability is at least the average over the examples with its
    label, so that the threshold is lower for a class that the model is rarely sure of. An example
    is suspect if another class than the given one claims it; the most probable claim counts.

    Args:
        probabilities: from a model that was not trained on these labels (out of fold, or on a test
            split); otherwise it has learnt the errors, too.
        labels: as given.
    """
    rows = np.arange(len(labels))
    given = labels[:, None] == np.arange(probabilities.shape[1])
    counts = given.sum(axis=0)
    means = np.where(given, probabilities, 0).sum(axis=0) / np.maximum(counts, 1)
    claims = (probabilities >= means) & (counts > 0)
    claimant = np.where(claims, probabilities, -1.0).argmax(axis=1)
    margin = probabilities[rows, labels] - probabilities[rows, claimant]
    found = np.flatnonzero(claims.any(axis=1) & (claimant != labels))
    found = found[np.argsort(margin[found], kind="stable")]
    return Suspects(found, claimant[found], margin[found])
