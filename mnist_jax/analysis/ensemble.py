"""Ensembles: combined predictions of several members, from their logits, in NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int


def mean_logits(logits: Float[np.ndarray, "members n classes"]) -> Float[np.ndarray, "n classes"]:
    """Score by the geometric mean of the members' probabilities, up to a factor."""
    return logits.mean(axis=0)


def probabilities(
    logits: Float[np.ndarray, "members n classes"],
) -> Float[np.ndarray, "n classes"]:
    """Return the arithmetic mean of the members' probabilities."""
    from scipy.special import softmax

    return softmax(logits, axis=-1).mean(axis=0)


def mean_probabilities(
    logits: Float[np.ndarray, "members n classes"],
) -> Float[np.ndarray, "n classes"]:
    """Score by the logarithm of `probabilities`."""
    return np.log(np.maximum(probabilities(logits), np.finfo(np.float32).tiny))


def vote(logits: Float[np.ndarray, "members n classes"]) -> Float[np.ndarray, "n classes"]:
    """Score by the share of members that predict a class; mean probabilities break ties."""
    classes = np.arange(logits.shape[-1])
    shares = (logits.argmax(axis=-1)[..., None] == classes).mean(axis=0)
    # A tie-breaker of less than half a vote.
    return shares + probabilities(logits) / (3 * len(logits))


RULES: dict[str, Callable] = {
    "mean of logits": mean_logits,
    "mean of probabilities": mean_probabilities,
    "vote": vote,
}


def accuracies(
    logits: Float[np.ndarray, "members n classes"], labels: Int[np.ndarray, " n"]
) -> dict[str, float]:
    """Return the accuracy of the ensemble of all members, by each rule."""
    return {
        name: float((rule(logits).argmax(axis=-1) == labels).mean()) for name, rule in RULES.items()
    }


def by_size(
    logits: Float[np.ndarray, "members n classes"],
    labels: Int[np.ndarray, " n"],
    sizes: Sequence[int],
    draws: int = 20,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure the accuracy of ensembles of several sizes.

    Args:
      logits: of all members.
      labels: classes.
      sizes: numbers of members, at most all of them.
      draws: random ensembles of each size; of size 1 all members, of full size the only ensemble.
      seed: of the draws.

    Returns:
      For each size the `accuracies` of its ensembles, by the mean of probabilities.
    """
    from scipy.special import softmax

    rng = np.random.default_rng(seed)
    member_probabilities = softmax(logits, axis=-1)
    rows = []
    for size in sizes:
        if size == 1:
            ensembles = [[member] for member in range(len(logits))]
        elif size == len(logits):
            ensembles = [list(range(size))]
        else:
            ensembles = [rng.permutation(len(logits))[:size].tolist() for _ in range(draws)]
        predicted = [member_probabilities[e].mean(axis=0).argmax(axis=-1) for e in ensembles]
        rows.append({"size": size, "accuracies": [float((p == labels).mean()) for p in predicted]})
    return rows
