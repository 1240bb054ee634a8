"""What is predicted: targets, loss and decision rule."""

import jax
import optax
from jaxtyping import Array, Float, Int


def cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, "batch"],
    label_smoothing: float | Float[Array, ""] = 0.0,
) -> Float[Array, "batch"]:
    """Softmax cross-entropy of each example, in nats.

    Smoothing gives the share `label_smoothing` of a target to all classes alike (Szegedy et al.
    2016, section 7).
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def decide(logits: Float[Array, "*batch classes"]) -> Int[Array, "*batch"]:
    """The class with the largest logit; the first of equals."""
    return logits.argmax(-1)
