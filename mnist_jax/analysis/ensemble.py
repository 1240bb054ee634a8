"""Committees: what several members decide together. NumPy, on the logits that they left."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int


def mean_logits(logits: Float[np.ndarray, "members n classes"]) -> Float[np.ndarray, "n classes"]:
    """Scores: the geometric mean of the members' probabilities, up to a factor."""
    return logits.mean(axis=0)


def probabilities(
    logits: Float[np.ndarray, "members n classes"],
) -> Float[np.ndarray, "n classes"]:
    """What a committee believes: the arithmetic mean of its members' probabilities."""
    return _softmax(logits).mean(axis=0)


def mean_probabilities(
    logits: Float[np.ndarray, "members n classes"],
) -> Float[np.ndarray, "n classes"]:
    """Scores: the logarithm of `probabilities`."""
    return np.log(np.maximum(probabilities(logits), np.finfo(np.float32).tiny))


def vote(logits: Float[np.ndarray, "members n classes"]) -> Float[np.ndarray, "n classes"]:
    """Scores: the share of members that decide for a class; mean probabilities break ties."""
    classes = np.arange(logits.shape[-1])
    shares = (logits.argmax(axis=-1)[..., None] == classes).mean(axis=0)
    # Less than half a vote, whatever they are.
    return shares + probabilities(logits) / (3 * len(logits))


RULES: dict[str, Callable] = {
    "mean of logits": mean_logits,
    "mean of probabilities": mean_probabilities,
    "vote": vote,
}


def accuracies(
    logits: Float[np.ndarray, "members n classes"], labels: Int[np.ndarray, " n"]
) -> dict[str, float]:
    """The accuracy of all members together, by each rule."""
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
    """How much a committee gains with its size.

    Args:
      logits: of all members.
      labels: classes.
      sizes: of the committees, at most the number of members.
      draws: random committees of each size, but of one member each and of all members all.
      seed: of the draws.

    Returns:
      For each size the `accuracies` of the committees, by the mean of probabilities.
    """
    rng = np.random.default_rng(seed)
    believed = _softmax(logits)
    rows = []
    for size in sizes:
        if size == 1:
            committees = [[member] for member in range(len(logits))]
        elif size == len(logits):
            committees = [list(range(size))]
        else:
            committees = [rng.permutation(len(logits))[:size].tolist() for _ in range(draws)]
        decided = [believed[chosen].mean(axis=0).argmax(axis=-1) for chosen in committees]
        rows.append({"size": size, "accuracies": [float((d == labels).mean()) for d in decided]})
    return rows


def _softmax(
    logits: Float[np.ndarray, "members n classes"],
) -> Float[np.ndarray, "members n classes"]:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
