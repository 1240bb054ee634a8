"""Winograd's minimal filtering: convolutions by fewer multiplications, for CPUs.

A convolution is a product of polynomials. Evaluated at enough points, it takes one multiplication
per point: m outputs of a kernel of r elements need m + r - 1 of them instead of m r (Winograd 1980;
for networks Lavin and Gray 2016, whose notation this is). In two dimensions a tile of m x m outputs
has (m + r - 1)^2 points, and at each point the channels of all tiles are one matrix product: a 5x5
kernel of 25 elements takes 4 multiplications per output. Small matrices transform to the points and
back; their rounding costs about one decimal digit.

Images are processed in groups, so that intermediate values stay in the cache. XLA runs such small
matrix products on one core each, but spreads more than nine independent ones over the cores: a
group has one for each point of the columns and each pair of points of the rows. A barrier keeps
their inputs alive until all are done; otherwise a product would wait to reuse another's memory.
"""

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32

MAX_SIDE = 6  # of a kernel

_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # and infinity
_TILES = (6, 8)  # numbers of points; more would cost precision
_CACHED = 2**20  # values of a group of images at the points

Pads = tuple[tuple[int, int], tuple[int, int]]
Points = list[list[Array]]  # per column point, the row points in pairs: [2, ...]


class Axis(NamedTuple):
    """Tiles along the rows or the columns."""

    kernel: int  # elements: r
    outputs: int  # per tile: m
    tiles: int
    size: int  # outputs needed in total

    @property
    def tile(self) -> int:
        """Number of inputs, and of points, of a tile."""
        return self.outputs + self.kernel - 1


class Matrices(NamedTuple):
    """Transforms to the points and back in one dimension: y = AT (G g * BT d)."""

    AT: Float32[np.ndarray, "outputs tile"]
    G: Float32[np.ndarray, "tile kernel"]
    BT: Float32[np.ndarray, "tile tile"]


def convolve(
    x: Float32[Array, "n h w cin"], kernel: Float32[Array, "kh kw cin cout"], pads: Pads
) -> Float32[Array, "n h2 w2 cout"]:
    """Cross-correlate images with a kernel of 2 to 6 elements per side, at stride 1.

    Args:
      x: images.
      kernel: one filter per output channel.
      pads: zeros before and after the rows, and the columns; negative: cropped.
    """
    rows, columns = _axes(x.shape[1:3], kernel.shape[:2], pads)
    down, across = matrices(rows), matrices(columns)
    at_rows = lax.optimization_barrier(_combine(down.G, kernel))
    pairs = [pair.swapaxes(0, 1) for pair in _pairs(at_rows)]
    weights = [[_sum(point, pair) for pair in pairs] for point in across.G]

    def group(x: Array) -> Array:
        inputs = _at_points(x, rows, columns, pads)
        products, _ = lax.optimization_barrier((_products("apc,aco->apo", inputs, weights), inputs))
        shape = len(x), rows.tiles, columns.tiles, kernel.shape[-1]
        halfway = [
            _combine(down.AT, [x.reshape(shape) for pair in pairs for x in pair])
            for pairs in products
        ]
        out = _combine(across.AT, lax.optimization_barrier(halfway))
        padded = rows.tiles * rows.outputs, columns.tiles * columns.outputs
        out = out.transpose(2, 3, 1, 4, 0, 5).reshape(len(x), *padded, -1)
        return lax.optimization_barrier(out[:, : rows.size, : columns.size])

    channels = max(kernel.shape[2:])
    out = lax.map(group, _groups(x, rows, columns, channels))
    return out.reshape(-1, *out.shape[2:])[: len(x)]


def kernel_gradient(
    x: Float32[Array, "n h w cin"], g: Float32[Array, "n h2 w2 cout"], pads: Pads
) -> Float32[Array, "kh kw cin cout"]:
    """Return the gradient of `convolve` with respect to its kernel.

    Args:
      x: images.
      g: gradient of the output.
      pads: as in `convolve`.
    """
    sides = [x.shape[i] + sum(pads[i - 1]) - g.shape[i] + 1 for i in (1, 2)]
    rows, columns = _axes(x.shape[1:3], sides, pads)
    down, across = matrices(rows), matrices(columns)
    missing = [(0, axis.tiles * axis.outputs - axis.size, 0) for axis in (rows, columns)]

    def add(total: Array, group: tuple[Array, Array]) -> tuple[Array, None]:
        x, g = group
        inputs = _at_points(x, rows, columns, pads)
        g = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *missing, (0, 0, 0)])
        g = _combine(down.AT.T, [g[:, i :: rows.outputs] for i in range(rows.outputs)])
        ends = [slice(i, None, columns.outputs) for i in range(columns.outputs)]
        parts = _across(g, across.AT.T, ends)
        products = _products("apc,apo->aco", inputs, parts)
        products, _ = lax.optimization_barrier((products, (inputs, parts)))
        return total + jnp.stack([jnp.concatenate(pairs) for pairs in products]), None

    channels = x.shape[-1], g.shape[-1]
    zeros = jnp.zeros((columns.tile, rows.tile, *channels), x.dtype)
    x, g = (_groups(images, rows, columns, max(channels)) for images in (x, g))
    total, _ = lax.scan(add, zeros, (x, g))
    total = lax.optimization_barrier(_combine(across.G.T, total)).swapaxes(0, 1)
    return _combine(down.G.T, total)


@lru_cache
def matrices(axis: Axis) -> Matrices:
    """Return the Toom-Cook matrices for the first points and infinity."""
    points = np.asarray(_POINTS[: axis.tile - 1])
    others = [np.delete(points, i) for i in range(len(points))]
    powers = points[:, None] ** np.arange(max(axis.outputs, axis.kernel))
    scales = np.array([[np.prod(point - rest)] for point, rest in zip(points, others, strict=True)])
    last = np.eye(1, axis.tile, axis.tile - 1)[0]
    at = np.vstack([powers[:, : axis.outputs], last[-axis.outputs :]]).T
    g = np.vstack([powers[:, : axis.kernel] / scales, last[-axis.kernel :]])
    polynomials = [np.append(np.poly(rest)[::-1], 0) for rest in others]
    bt = np.vstack([*polynomials, np.poly(points)[::-1]])
    return Matrices(*(matrix.astype(np.float32) for matrix in (at, g, bt)))


def _axes(inputs: Sequence[int], sides: Sequence[int], pads: Pads) -> tuple[Axis, Axis]:
    """Choose the tiles that need the fewest points in total."""

    def axis(inputs: int, kernel: int, pad: tuple[int, int]) -> Axis:
        size = inputs + sum(pad) - kernel + 1
        outputs = [tile - kernel + 1 for tile in _TILES if tile > kernel]
        choices = [Axis(kernel, m, -(-size // m), size) for m in outputs]
        return min(choices, key=lambda choice: choice.tile * choice.tiles)

    rows, columns = map(axis, inputs, sides, pads)
    return rows, columns


def _at_points(x: Array, rows: Axis, columns: Axis, pads: Pads) -> Points:
    """Transform images to the points: pair of row points, image, tile, channel."""
    edges = []
    for axis, inputs, (before, _) in zip((rows, columns), x.shape[1:3], pads, strict=True):
        reach = axis.outputs * (axis.tiles - 1) + axis.tile
        edges.append((before, reach - before - inputs, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])

    def starts(axis: Axis) -> list[slice]:
        reach = axis.outputs * (axis.tiles - 1) + 1
        return [slice(i, i + reach, axis.outputs) for i in range(axis.tile)]

    x = _combine(matrices(rows).BT, [x[:, i] for i in starts(rows)])
    return _across(x, matrices(columns).BT, starts(columns))


def _across(
    x: Float[Array, "a n p w c"], matrix: Float32[np.ndarray, "b tile"], starts: Sequence[slice]
) -> Points:
    """Transform what is already at the points of the rows to the points of the columns."""
    x = lax.optimization_barrier(x)  # read more than once
    pairs = [[pair[:, :, :, i] for i in starts] for pair in _pairs(x)]
    return [[_sum(row, pair) for pair in pairs] for row in matrix]


def _products(equation: str, left: Points, right: Points) -> Points:
    """Multiply matrices at each point."""
    flat = partial(jax.tree.map, lambda x: x.reshape(len(x), -1, x.shape[-1]))
    return jax.tree.map(partial(jnp.einsum, equation), flat(left), flat(right))


def _combine(matrix: Float32[np.ndarray, "m n"], parts: Sequence[Array] | Array) -> Array:
    """Multiply a small matrix by a long one, given as rows, without copying the rows."""
    return jnp.stack([_sum(row, parts) for row in matrix])


def _sum(factors: Float32[np.ndarray, "n"], parts: Sequence[Array] | Array) -> Array:
    return sum(float(factor) * x for factor, x in zip(factors, parts, strict=True) if factor)


def _pairs(x: Float[Array, "a *_"]) -> list[Array]:
    return [x[i : i + 2] for i in range(0, len(x), 2)]


def _groups(x: Array, rows: Axis, columns: Axis, channels: int) -> Float[Array, "_ images h w c"]:
    """Group images by a power of two, which suits matrix products; zeros fill the last group."""
    numbers = math.prod(axis.tile * axis.tiles for axis in (rows, columns)) * channels
    size = max(1, min(len(x), 2 ** int(math.log2(max(1, _CACHED // numbers)))))
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, -len(x) % size, 0), *[(0, 0, 0)] * 3])
    return x.reshape(-1, size, *x.shape[1:])
