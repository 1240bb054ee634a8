"""Errors of a model: pure NumPy on its logits or probabilities and the true classes.

Every function that picks examples returns their indices, the most telling first.
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
    """The most probable class of each example, and how sure the model was of it.

    Sureness is kept as odds against, in float64: a net trained for long gives thousands of examples
    a probability of exactly 1, but their odds still tell them apart.
    """
    predicted = logits.argmax(axis=1)
    with np.errstate(invalid="ignore"):  # logits of a diverged run: inf - inf; NaN goes all the way
        gaps = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    others = np.arange(logits.shape[1]) != predicted[:, None]
    return Decisions(predicted, np.exp(gaps).sum(axis=1, where=others))


def worst_mistakes(decisions: Decisions, labels: Labels, limit: int | None = None) -> Indices:
    """Indices of at most `limit` wrong predictions, the most confident first; NaN comes last."""
    return _surest(decisions, decisions.predicted != labels)[:limit]


def gallery(decisions: Decisions, labels: Labels, actual: int, predicted: int) -> Indices:
    """Indices of the examples of one class that were taken for one class.

    The most confident come first; `actual` and `predicted` may be the same.
    """
    return _surest(decisions, (labels == actual) & (decisions.predicted == predicted))


def _surest(decisions: Decisions, among: Bool[np.ndarray, "N"]) -> Indices:
    chosen = np.flatnonzero(among)
    return chosen[np.argsort(decisions.odds_against[chosen], kind="stable")]


def most_ambiguous(probabilities: Float[np.ndarray, "N K"], limit: int | None = None) -> Indices:
    """Indices of the examples with the smallest margin between the two most probable classes.

    Source: margin sampling, Scheffer et al. 2001.
    """
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return np.argsort(first - second, kind="stable")[:limit]


def confusion_shares(matrix: Int[np.ndarray, "K K"]) -> Float[np.ndarray, "K K"]:
    """The share of each true class (row) that was taken for each other one; the diagonal is 0.

    Unlike counts, shares compare kinds of error between classes of different sizes. The row of a
    class without examples is 0.
    """
    errors = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    return errors / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def most_confused(matrix: Int[np.ndarray, "K K"]) -> tuple[int, int] | None:
    """The two classes that are taken for each other most often, both ways together.

    In their order; None where nothing is taken for anything else.
    """
    both = np.triu(matrix + matrix.T, k=1)
    first, second = divmod(int(both.argmax()), len(both))
    return (first, second) if both[first, second] else None


class Suspects(NamedTuple):
    """Examples whose given label is likely to be wrong, the most suspect first."""

    indices: Indices
    suggested: Int[np.ndarray, "M"]  # the class that they seem to be of
    margin: Float[np.ndarray, "M"]  # p(given label) - p(suggested class)


def suspects(probabilities: Float[np.ndarray, "N K"], labels: Labels) -> Suspects:
    """Suspected wrong labels, by confident learning (Northcutt et al. 2021, equations 1 and 2).

    A class claims an example if it is at least as probable for it as on average for the examples
    that bear its label: so a class that the model is seldom sure of needs less. Suspect is what
    another class than the given one claims; of several, the most probable one counts.

    Args:
        probabilities: from a model that did not learn from these labels: out of fold, or of a test
            split. A model that did has learnt the mistakes too.
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
