"""Convolutions by fewer multiplications, for CPUs: Winograd's minimal filtering.

A convolution is a product of polynomials. Evaluated at as many points as the product needs, it is
one multiplication a point: m outputs of a kernel of r elements take m + r - 1 of them, not m r
(Winograd 1980; for networks Lavin and Gray 2016, whose notation this is). In two dimensions tiles
of m x m outputs have (m + r - 1)^2 points, and at each point the channels of all tiles are one
matrix product: a 5x5 kernel takes 4 multiplications an output where it has 25 elements. The way to
the points and back is by small matrices, whose rounding costs about a decimal.

Images pass through in groups, so that what is made of them stays in the cache. XLA multiplies
matrices as small as these on one core, but divides more than nine products that are ready among the
cores: a group has one for each point of the columns and pair of points of the rows. A barrier keeps
what they read until all are done: given the memory of one, the next would wait for it.
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
_TILES = (6, 8)  # points that may be used: more would cost precision
_CACHED = 2**20  # numbers that a group's images are at the points

Pads = tuple[tuple[int, int], tuple[int, int]]
Points = list[list[Array]]  # for each of the columns', those of the rows in pairs: [2, ...]


class Axis(NamedTuple):
    """How rows, or columns, are cut into tiles."""

    kernel: int  # its elements: r
    outputs: int  # of a tile: m
    tiles: int
    size: int  # outputs that are wanted of all tiles

    @property
    def tile(self) -> int:
        """The inputs that a tile needs, and its points."""
        return self.outputs + self.kernel - 1


class Matrices(NamedTuple):
    """To the points and back, in one dimension: y = AT (G g * BT d)."""

    AT: Float32[np.ndarray, "outputs tile"]
    G: Float32[np.ndarray, "tile kernel"]
    BT: Float32[np.ndarray, "tile tile"]


def convolve(
    x: Float32[Array, "n h w cin"], kernel: Float32[Array, "kh kw cin cout"], pads: Pads
) -> Float32[Array, "n h2 w2 cout"]:
    """Cross-correlates images with a kernel of 2 to 6 elements a side; every pixel is a place.

    Args:
      x: images.
      kernel: a filter an output channel.
      pads: zeros before and after the rows, and the columns; negative ones cut off.
    """
    rows, columns = _axes(x.shape[1:3], kernel.shape[:2], pads)
    down, across = matrices(rows), matrices(columns)
    pairs = [
        pair.swapaxes(0, 1) for pair in _pairs(lax.optimization_barrier(_combine(down.G, kernel)))
    ]
    weights = [[_sum(point, pair) for pair in pairs] for point in across.G]

    def group(x: Array) -> Array:
        seen = _at_points(x, rows, columns, pads)
        products, _ = lax.optimization_barrier((_products("apc,aco->apo", seen, weights), seen))
        shape = len(x), rows.tiles, columns.tiles, kernel.shape[-1]
        halfway = [
            _combine(down.AT, [x.reshape(shape) for pair in pairs for x in pair])
            for pairs in products
        ]
        out = _combine(across.AT, lax.optimization_barrier(halfway))
        whole = rows.tiles * rows.outputs, columns.tiles * columns.outputs
        out = out.transpose(2, 3, 1, 4, 0, 5).reshape(len(x), *whole, -1)
        return lax.optimization_barrier(out[:, : rows.size, : columns.size])

    channels = max(kernel.shape[2:])
    out = lax.map(group, _groups(x, rows, columns, channels))
    return out.reshape(-1, *out.shape[2:])[: len(x)]


def kernel_gradient(
    x: Float32[Array, "n h w cin"], g: Float32[Array, "n h2 w2 cout"], pads: Pads
) -> Float32[Array, "kh kw cin cout"]:
    """The gradient of `convolve` for its kernel.

    Args:
      x: its images.
      g: the gradient of what it returned.
      pads: its own.
    """
    sides = [x.shape[i] + sum(pads[i - 1]) - g.shape[i] + 1 for i in (1, 2)]
    rows, columns = _axes(x.shape[1:3], sides, pads)
    down, across = matrices(rows), matrices(columns)
    missing = [(0, axis.tiles * axis.outputs - axis.size, 0) for axis in (rows, columns)]

    def add(total: Array, group: tuple[Array, Array]) -> tuple[Array, None]:
        x, g = group
        seen = _at_points(x, rows, columns, pads)
        g = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *missing, (0, 0, 0)])
        g = _combine(down.AT.T, [g[:, i :: rows.outputs] for i in range(rows.outputs)])
        ends = [slice(i, None, columns.outputs) for i in range(columns.outputs)]
        parts = _across(g, across.AT.T, ends)
        products = _products("apc,apo->aco", seen, parts)
        products, _ = lax.optimization_barrier((products, (seen, parts)))
        return total + jnp.stack([jnp.concatenate(pairs) for pairs in products]), None

    channels = x.shape[-1], g.shape[-1]
    none = jnp.zeros((columns.tile, rows.tile, *channels), x.dtype)
    x, g = (_groups(images, rows, columns, max(channels)) for images in (x, g))
    total, _ = lax.scan(add, none, (x, g))
    total = lax.optimization_barrier(_combine(across.G.T, total)).swapaxes(0, 1)
    return _combine(down.G.T, total)


@lru_cache
def matrices(axis: Axis) -> Matrices:
    """Those of Toom and Cook, for the first points and infinity."""
    points = np.asarray(_POINTS[: axis.tile - 1])
    others = [np.delete(points, i) for i in range(len(points))]
    powers = points[:, None] ** np.arange(max(axis.outputs, axis.kernel))
    scales = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    last = np.eye(1, axis.tile, axis.tile - 1)[0]
    return Matrices(
        AT=np.vstack([powers[:, : axis.outputs], last[-axis.outputs :]]).T.astype(np.float32),
        G=np.vstack(
            [powers[:, : axis.kernel] / np.array(scales)[:, None], last[-axis.kernel :]]
        ).astype(np.float32),
        BT=np.vstack(
            [*(np.append(np.poly(rest)[::-1], 0) for rest in others), np.poly(points)[::-1]]
        ).astype(np.float32),
    )


def _axes(inputs: Sequence[int], sides: Sequence[int], pads: Pads) -> tuple[Axis, Axis]:
    """The tiles that need the fewest points in all."""

    def axis(inputs: int, kernel: int, pad: tuple[int, int]) -> Axis:
        size = inputs + sum(pad) - kernel + 1
        outputs = [tile - kernel + 1 for tile in _TILES if tile > kernel]
        choices = [Axis(kernel, m, -(-size // m), size) for m in outputs]
        return min(choices, key=lambda choice: choice.tile * choice.tiles)

    rows, columns = map(axis, inputs, sides, pads)
    return rows, columns


def _at_points(x: Array, rows: Axis, columns: Axis, pads: Pads) -> Points:
    """Images at the points: a pair of rows' points, image, tile, channel."""
    edges = []
    for axis, inputs, (before, _) in zip((rows, columns), x.shape[1:3], pads, strict=True):
        seen = axis.outputs * (axis.tiles - 1) + axis.tile
        edges.append((before, seen - before - inputs, 0))
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])

    def starts(axis: Axis) -> list[slice]:
        reach = axis.outputs * (axis.tiles - 1) + 1
        return [slice(i, i + reach, axis.outputs) for i in range(axis.tile)]

    x = _combine(matrices(rows).BT, [x[:, i] for i in starts(rows)])
    return _across(x, matrices(columns).BT, starts(columns))


def _across(
    x: Float[Array, "a n p w c"], matrix: Float32[np.ndarray, "b tile"], starts: Sequence[slice]
) -> Points:
    """What is at the points of the rows, at those of the columns as well."""
    x = lax.optimization_barrier(x)  # each is read more than once, and shall be computed once
    pairs = [[pair[:, :, :, i] for i in starts] for pair in _pairs(x)]
    return [[_sum(row, pair) for pair in pairs] for row in matrix]


def _products(equation: str, left: Points, right: Points) -> Points:
    """A matrix product at each of the points."""
    flat = partial(jax.tree.map, lambda x: x.reshape(len(x), -1, x.shape[-1]))
    return jax.tree.map(partial(jnp.einsum, equation), flat(left), flat(right))


def _combine(matrix: Float32[np.ndarray, "m n"], parts: Sequence[Array] | Array) -> Array:
    """A small matrix times a long one whose rows are given; they are read where they are."""
    return jnp.stack([_sum(row, parts) for row in matrix])


def _sum(factors: Float32[np.ndarray, "n"], parts: Sequence[Array] | Array) -> Array:
    return sum(float(factor) * x for factor, x in zip(factors, parts, strict=True) if factor)


def _pairs(x: Float[Array, "a *_"]) -> list[Array]:
    return [x[i : i + 2] for i in range(0, len(x), 2)]


def _groups(x: Array, rows: Axis, columns: Axis, channels: int) -> Float[Array, "_ images h w c"]:
    """Images in groups of a power of two, which matrix products like; black ones fill the last."""
    numbers = math.prod(axis.tile * axis.tiles for axis in (rows, columns)) * channels
    size = max(1, min(len(x), 2 ** int(math.log2(max(1, _CACHED // numbers)))))
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, -len(x) % size, 0), *[(0, 0, 0)] * 3])
    return x.reshape(-1, size, *x.shape[1:])
