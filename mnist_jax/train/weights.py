"""Weights of classes in the training loss, for data in which some classes are rare."""

import ast
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxtyping import Float32, Int

from mnist_jax.types import Array, UserError

if TYPE_CHECKING:
    from collections.abc import Callable

BALANCED = "balanced"


def read(value: Any) -> str | tuple[float, ...] | None:
    """Read `config.train.class_weights`: "balanced", a number for each class, or None.

    Raises:
      UserError: it is none of these.
    """
    found = value
    if isinstance(value, str) and value != BALANCED:
        try:
            found = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            found = ()
    if found is None or found == BALANCED:
        return found
    if isinstance(found, tuple | list) and len(found) > 1:
        numbers = [type(weight) in (int, float) and 0 < weight < 1e30 for weight in found]
        if all(numbers):
            return tuple(map(float, found))
    raise UserError(
        f"config.train.class_weights: {value!r} is not 'balanced', nor a number above 0 for each "
        "class, as in 1,1,5"
    )


def make(value: Any, num_classes: int) -> "Callable | None":
    """Return `of_examples` for a value of `config.train.class_weights`; None if it is None.

    Raises:
      UserError: it has not one weight for each class.
    """
    weights = read(value)
    if weights is None:
        return None
    if weights != BALANCED and len(weights) != num_classes:
        raise UserError(
            f"config.train.class_weights: {len(weights)} weights for {num_classes} classes; "
            "give one for each"
        )
    return partial(of_examples, weights, num_classes)


def of_examples(
    weights: str | tuple[float, ...],
    num_classes: int,
    labels: Int[Array, "n"],
    counted: Float32[Array, "n"] | None,
) -> Float32[Array, "n"]:
    """Return the weight of each example in the loss: at least 1, or 0 if it does not count.

    Args:
      weights: of each class, or "balanced": the inverse of its number of examples, as in
        scikit-learn. Only their ratios matter, because the loss is divided by their sum.
      num_classes: static.
      labels: classes.
      counted: 1 or 0 for each example; None: all count.
    """
    import jax.numpy as jnp

    if weights == BALANCED:
        ones = 1 if counted is None else (counted > 0).astype(jnp.int32)
        counts = jnp.maximum(jnp.zeros(num_classes, jnp.int32).at[labels].add(ones), 1)
        own = counts.max().astype(jnp.float32) / counts.astype(jnp.float32)
    else:
        own = jnp.asarray(weights, jnp.float32)
        own = own / own.min()
    return own[labels] if counted is None else own[labels] * counted
