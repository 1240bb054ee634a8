"""Post-training quantization: weights of a few bits, for small devices."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int8

from mnist_jax.types import PyTree


class Quantized(NamedTuple):
    """Weights as integers: `values * scale`."""

    values: Int8[Array, "*shape outputs"]
    scale: Float32[Array, " outputs"]  # a step, of each output's weights


def quantize(params: PyTree, bits: int = 8) -> PyTree:
    """Quantize every kernel of a net; biases and scales, which are few, stay as they are.

    Symmetric, with one scale per output: its largest weight becomes the largest integer
    (Krishnamoorthi 2018, Quantizing deep convolutional networks for efficient inference, 3.2).

    Args:
      params: of a net, float32.
      bits: of a weight, 2 to 8.

    Returns:
      The same tree with a `Quantized` in place of each array of two axes or more.

    Raises:
      ValueError: `bits` is not 2 to 8.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits: must be 2 to 8")
    largest = 2 ** (bits - 1) - 1

    def rounded(kernel: Float[Array, "*shape outputs"]) -> Quantized | Array:
        if kernel.ndim < 2:
            return kernel
        size = jnp.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
        scale = jnp.where(size > 0, size, 1.0) / largest
        steps = jnp.round(kernel / scale.reshape((1,) * (kernel.ndim - 1) + (-1,)))
        return Quantized(steps.astype(jnp.int8), scale)

    return jax.tree.map(lambda x: rounded(jnp.asarray(x)), params)


def dequantize(params: PyTree) -> PyTree:
    """Return the float32 values of quantized parameters."""

    def floats(leaf: Quantized) -> Float32[Array, "*shape outputs"]:
        scale = leaf.scale.reshape((1,) * (leaf.values.ndim - 1) + (-1,))
        return leaf.values.astype(jnp.float32) * scale

    def is_quantized(leaf: object) -> bool:
        return isinstance(leaf, Quantized)

    return jax.tree.map(lambda x: floats(x) if is_quantized(x) else x, params, is_leaf=is_quantized)


def num_bytes(params: PyTree, bits: int = 8) -> int:
    """Return the size of packed parameters; quantized ones take `bits` bits per weight."""
    leaves = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, Quantized))
    return sum(
        math.ceil(leaf.values.size * bits / 8) + leaf.scale.nbytes
        if isinstance(leaf, Quantized)
        else leaf.nbytes
        for leaf in leaves
    )
