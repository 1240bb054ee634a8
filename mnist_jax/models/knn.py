"""Exact nearest neighbours on the device, and predictions from them.

Pixels are integers, and so are sums of their products: after subtracting the middle of their range,
bfloat16 represents them exactly and float32 their sums, so that a device's fastest matrix product
is exact. Equal distances are equal to the bit, and the first reference wins:

    neighbours = nearest(queries, references, k=5)
    labels = vote(neighbours, reference_labels, num_classes=10, weights="distance")
    pixels = average(neighbours, reference_pixels)

Neighbours are sorted: for a smaller k, `first` takes the first columns of the same arrays.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, Int, Int32, Integer, Num, Shaped

Metric = Literal["l1", "l2"]
Weights = Literal["uniform", "distance"]
WEIGHTS: tuple[Weights, ...] = ("uniform", "distance")

# Distances are computed in blocks of queries and references of 16 MB, close to a CPU's caches.
_QUERIES = 1_000
_REFERENCES = 4_000
_CHUNK = 32  # references; their minimum decides if they are searched
_STRIPE = 32  # pixels whose absolute differences are summed in int16

_LARGEST = 0x7F7FFFFF  # the bits of the largest finite float32
_FAR = _LARGEST - 0x00800000  # beyond all distances; the difference is the smallest normal float32


Best = tuple[Int32[Array, "q k"], Int32[Array, "q k"]]  # the nearest so far: distances, indices


class Neighbours(NamedTuple):
    """The nearest references of every query, nearest first."""

    # In grey levels; infinite if there are too few references.
    distances: Float32[Array, "queries k"]
    indices: Int32[Array, "queries k"]  # of references; at equal distances in their order


@partial(jax.jit, static_argnames=("k", "metric", "levels"))
def nearest(
    queries: Integer[Array, "queries *pixels"],
    references: Integer[Array, "references *pixels"],
    k: int,
    *,
    metric: Metric = "l2",
    levels: int = 256,
    groups: tuple[Int[Array, " queries"], Int[Array, " references"]] | None = None,
) -> Neighbours:
    """Find the k nearest references of every query in one pass over all pairs.

    Besides the arguments this takes a copy of each, and less than 100 MB.

    Args:
      queries: images, or rows of pixels.
      references: of the same number of pixels.
      k: number of neighbours; static, like all further arguments except `groups`.
      metric: "l2", the root of the sum of squares, or "l1", the sum of absolute differences.
      levels: pixels are in [0, levels); 2 to 512.
      groups: if given, neighbours come from other groups than the query's own (`cross_validate`).

    Raises:
      ValueError: there are fewer than k references, or distances could exceed int32.
    """
    n, m = len(queries), len(references)
    if not 1 <= k <= m:
        raise ValueError(f"k={k}: must be 1 to {m}, the number of references")
    references = references.reshape(m, -1)
    queries = queries.reshape(n, references.shape[1])
    pixels = queries.shape[1]
    if not 2 <= levels <= 512 or pixels * levels**2 > _FAR:
        raise ValueError(f"{levels} levels of {pixels} pixels: their distances exceed int32")
    own, other = groups or (jnp.zeros(n, jnp.int32), jnp.ones(m, jnp.int32))
    num_queries, num_references = _even(max(n, 1), _QUERIES, 1), _even(m, _REFERENCES, _CHUNK)
    metrics: dict[Metric, Callable] = {"l1": _l1, "l2": partial(_squared_l2, middle=levels // 2)}
    indices = jnp.arange(m + -m % num_references, dtype=jnp.int32)
    blocks = tuple(_blocks(x, num_references) for x in (references, other, indices))

    def of_queries(block: tuple[Array, Array]) -> tuple[Array, Array]:
        queries, own = block

        def step(best: tuple[Array, Array], block: tuple[Array, ...]) -> tuple:
            references, other, indices = block
            allowed = (own[:, None] != other[None, :]) & (indices < m)[None, :]
            far = jnp.where(allowed, metrics[metric](queries, references), _FAR)
            return _nearer(best, far, indices), None

        none = jnp.full((num_queries, k), _FAR, jnp.int32)
        return lax.scan(step, (none, jnp.zeros_like(none)), blocks)[0]

    found = lax.map(of_queries, (_blocks(queries, num_queries), _blocks(own, num_queries)))
    far, indices = (x.reshape(-1, k)[:n] for x in found)
    distance = far.astype(jnp.float32)
    distance = jnp.sqrt(distance) if metric == "l2" else distance
    return Neighbours(jnp.where(far < _FAR, distance, jnp.inf), indices)


def first(neighbours: Neighbours, k: int) -> Neighbours:
    """Return the k nearest of the neighbours."""
    return Neighbours(*(x[:, :k] for x in neighbours))


@partial(jax.jit, static_argnames=("num_classes", "weights"))
def vote(
    neighbours: Neighbours,
    labels: Integer[Array, "references *outputs"],
    num_classes: int,
    weights: Weights = "uniform",
) -> Int32[Array, "queries *outputs"]:
    """Predict the class with the largest weight, the first of equals, as in scikit-learn.

    Args:
      neighbours: as `nearest` returns.
      labels: classes in [0, num_classes) of every reference; several outputs (of multilabel data,
        of two classes each) are voted on one by one.
      num_classes: static, as the weights.
      weights: "uniform": equal; "distance": one over the distance.
    """
    classes = jnp.arange(num_classes, dtype=labels.dtype)
    votes = labels[neighbours.indices][..., None]
    weight = weigh(neighbours.distances, weights)
    weight = weight.reshape(*weight.shape, *(1,) * (votes.ndim - weight.ndim))
    won = votes == classes.reshape(*(1,) * (votes.ndim - 1), -1)
    return jnp.sum(jnp.where(won, weight, 0), axis=1).argmax(-1).astype(jnp.int32)


@partial(jax.jit, static_argnames="weights")
def average(
    neighbours: Neighbours,
    targets: Num[Array, "references *outputs"],
    weights: Weights = "uniform",
) -> Float32[Array, "queries *outputs"]:
    """Regression: the weighted mean of the neighbours' targets; see `vote`."""
    weight = weigh(neighbours.distances, weights)
    weight /= weight.sum(axis=1, keepdims=True)
    weight = weight.reshape(*weight.shape, *(1,) * (targets.ndim - 1))
    total = jnp.float32(0)
    for i in range(weight.shape[1]):  # one neighbour after the other, to save memory
        total += weight[:, i] * targets[neighbours.indices[:, i]].astype(jnp.float32)
    return total


def weigh(distances: Float[Array, "queries k"], weights: Weights) -> Float32[Array, "queries k"]:
    """Return the weight of each neighbour; 0 for missing ones, at infinite distance.

    With "distance", only exact matches count if there are any.
    """
    if weights == "uniform":
        return jnp.isfinite(distances).astype(jnp.float32)
    same = distances == 0
    return jnp.where(same.any(axis=1, keepdims=True), same.astype(jnp.float32), 1 / distances)


def out_of_fold(
    images: Integer[Array | np.ndarray, "n *pixels"],
    folds: Int[np.ndarray, " n"],
    k: int,
    metric: Metric = "l2",
) -> Neighbours:
    """Find the k nearest examples in other folds of every example, for out-of-fold predictions.

    `vote` turns them into predictions; `average` of `jax.nn.one_hot(labels, num_classes)` into the
    share of each class, a score.

    Args:
      images: bytes.
      folds: number of the fold in which each example is held out.
      k: number of neighbours.
      metric: see `nearest`.

    Raises:
      ValueError: k is less than 1, or more than the examples outside of some fold.
    """
    outside = len(folds) - np.bincount(folds).max()
    if not 1 <= k <= outside:
        raise ValueError(f"k={k}: must be 1 to {outside}, the number of examples outside a fold")
    images, group = jnp.asarray(images), jnp.asarray(folds)
    return nearest(images, images, k, metric=metric, groups=(group, group))


def cross_validate(
    images: Integer[Array | np.ndarray, "n *pixels"],
    labels: Integer[Array | np.ndarray, " n"],
    folds: Int[np.ndarray, " n"],
    ks: Sequence[int],
    num_classes: int,
    metric: Metric = "l2",
) -> dict[tuple[int, Weights], Float[np.ndarray, " folds"]]:
    """Search a grid of k and weights in one pass over all pairs of images.

    Args:
      images: bytes.
      labels: classes in [0, num_classes).
      folds: number of the fold in which each example is held out.
      ks: numbers of neighbours.
      num_classes: number of classes.
      metric: see `nearest`.

    Returns:
      The accuracy of each fold for every k, in that order, and both weights.

    Raises:
      ValueError: a k is less than 1, or more than the examples outside of some fold.
    """
    if min(ks) < 1:
        raise ValueError(f"ks={list(ks)}: must be 1 or more")
    neighbours = out_of_fold(images, folds, max(ks), metric)
    labels, accuracies = np.asarray(labels), {}
    for k, weights in product(ks, WEIGHTS):
        decided = vote(first(neighbours, k), jnp.asarray(labels), num_classes, weights)
        right = np.bincount(folds, np.asarray(decided) == labels)
        accuracies[k, weights] = right / np.bincount(folds)
    return accuracies


def _squared_l2(
    queries: Integer[Array, "q pixels"], references: Integer[Array, "r pixels"], middle: int
) -> Int32[Array, "q r"]:
    """Compute all squared distances |q|² + |r|² - 2 q·r of pixels in [0, 2 * middle]."""
    a, b = (x.astype(jnp.int32) - middle for x in (queries, references))
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :]
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    exact = 2**24 // middle**2  # pixels whose products float32 sums exactly: 1024 at 256 levels
    for i in range(0, a.shape[1], exact):
        q, r = a[:, i : i + exact], b[:, i : i + exact]
        products = jnp.einsum("qp,rp->qr", q, r, preferred_element_type=jnp.float32)
        squares -= 2 * products.astype(jnp.int32)
    return squares


def _l1(
    queries: Integer[Array, "q pixels"], references: Integer[Array, "r pixels"]
) -> Int32[Array, "q r"]:
    """Compute all sums of absolute differences."""
    stripes = ((0, 0), (0, -queries.shape[1] % _STRIPE))
    a, b = (jnp.pad(x.astype(jnp.int16), stripes).T for x in (queries, references))
    a, b = (x.reshape(-1, _STRIPE, x.shape[1]) for x in (a, b))

    def add(total: Array, stripe: tuple[Array, Array]) -> tuple[Array, None]:
        parts = (jnp.abs(x[:, None] - y[None, :]) for x, y in zip(*stripe, strict=True))
        return total + sum(parts, jnp.int16(0)).astype(jnp.int32), None

    return lax.scan(add, jnp.zeros((len(queries), len(references)), jnp.int32), (a, b))[0]


def _nearer(best: Best, far: Int32[Array, "q r"], indices: Int32[Array, " r"]) -> Best:
    """Merge the k nearest so far with a block of later references.

    New ones are only in the k chunks with the smallest minima: anything in another chunk has at
    least k references before it, one in each of these.
    """
    num_queries, k = best[0].shape
    chunks = far.reshape(num_queries, -1, _CHUNK)
    _, chosen = _smallest(chunks.min(axis=2), min(k, chunks.shape[1]))
    chosen = jnp.sort(chosen, axis=1)  # at equal distances the first reference wins
    near = jnp.take_along_axis(chunks, chosen[:, :, None], axis=1)
    candidates = near, indices.reshape(-1, _CHUNK)[chosen]
    far, indices = (
        jnp.concatenate([old, new.reshape(num_queries, -1)], axis=1)
        for old, new in zip(best, candidates, strict=True)
    )
    far, place = _smallest(far, k)
    return far, jnp.take_along_axis(indices, place, axis=1)


def _smallest(values: Int32[Array, "q n"], k: int) -> tuple[Int32[Array, "q k"], Array]:
    """Return the k smallest values in [0, _FAR] and their indices, ascending and stable.

    Only the `top_k` of float32 is fast on a CPU; positive floats are ordered like their bits.
    """
    largest, places = lax.top_k(lax.bitcast_convert_type(_LARGEST - values, jnp.float32), k)
    return _LARGEST - lax.bitcast_convert_type(largest, jnp.int32), places


def _even(n: int, most: int, multiple: int) -> int:
    """Return a block size up to about `most` that splits n examples with the least padding."""
    return -(-n // -(-n // most) // multiple) * multiple


def _blocks(x: Shaped[Array, "n ..."], size: int) -> Shaped[Array, "blocks size ..."]:
    """Pad with zeros and split into blocks."""
    padding = [(0, -len(x) % size)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding).reshape(-1, size, *x.shape[1:])
