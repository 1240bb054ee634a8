"""Ensembles: combined predictions of several trials, from their logits, in NumPy."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Logits = Float[np.ndarray, "trials n classes"]
Scores = Float[np.ndarray, "n classes"]
Labels = Int[np.ndarray, " n"]


def mean_logits(logits: Logits) -> Scores:
    """Score by the geometric mean of the trials' probabilities, up to a factor."""
    return logits.mean(axis=0)


def probabilities(logits: Logits) -> Scores:
    """Return the arithmetic mean of the trials' probabilities."""
    from scipy.special import softmax

    return softmax(logits, axis=-1).mean(axis=0)


def mean_probabilities(logits: Logits) -> Scores:
    """Score by the logarithm of `probabilities`."""
    return np.log(np.maximum(probabilities(logits), np.finfo(np.float32).tiny))


def vote(logits: Logits) -> Scores:
    """Score by the share of trials that predict a class; mean probabilities break ties."""
    classes = np.arange(logits.shape[-1])
    shares = (logits.argmax(axis=-1)[..., None] == classes).mean(axis=0)
    # A tie-breaker of less than half a vote.
    return shares + probabilities(logits) / (3 * len(logits))


RULES: dict[str, Callable] = {
    "mean of logits": mean_logits,
    "mean of probabilities": mean_probabilities,
    "vote": vote,
}


def accuracies(logits: Logits, labels: Labels) -> dict[str, float]:
    """Return the accuracy of the ensemble of all trials, by each rule."""
    decided = {name: rule(logits).argmax(axis=-1) for name, rule in RULES.items()}
    return {name: float((classes == labels).mean()) for name, classes in decided.items()}


def by_size(logits: Logits, labels: Labels, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Measure the accuracy of ensembles of several sizes.

    Args:
      logits: of all trials.
      labels: classes.
      sizes: numbers of trials, at most all of them.

    Returns:
      For each size the `accuracies` of its ensembles, by the mean of probabilities: 20 random ones,
      of size 1 all trials, of full size the only ensemble.
    """
    from scipy.special import softmax

    rng = np.random.default_rng(0)
    by_trial = softmax(logits, axis=-1)
    rows = []
    for size in sizes:
        if size in (1, len(logits)):
            ensembles = [list(chosen) for chosen in combinations(range(len(logits)), size)]
        else:
            ensembles = [rng.permutation(len(logits))[:size].tolist() for _ in range(20)]
        predicted = [by_trial[e].mean(axis=0).argmax(axis=-1) for e in ensembles]
        rows.append({"size": size, "accuracies": [float((p == labels).mean()) for p in predicted]})
    return rows
