"""Accuracy by slice: by class, and by a digit's shape, from image moments.

A slice is a subset of similar examples; low accuracy on a slice shows where a model can improve.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mnist_jax.analysis import stats


class Slice(NamedTuple):
    """Accuracy on a subset of the examples."""

    name: str
    total: int
    correct: int
    low: float  # of the accuracy's 95% interval, by Wilson
    high: float

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return self.correct / self.total


def by_class(
    correct: Bool[np.ndarray, "N"], labels: Int[np.ndarray, "N"], class_names: Sequence[str]
) -> list[Slice]:
    """Return a slice for each class that has examples.

    Args:
        correct: whether each prediction was right.
        labels: the true classes.
        class_names: one per class.
    """
    parts = [(name, correct[labels == label]) for label, name in enumerate(class_names)]
    return [_slice(name, part) for name, part in parts if part.size]


def by_value(
    correct: Bool[np.ndarray, "N"], values: Float[np.ndarray, "N"], parts: int = 5, unit: str = ""
) -> list[Slice]:
    """Return slices of about equal size, from the smallest to the largest values.

    There are fewer than `parts` if many values are equal. Examples without a finite value (a black
    image has no slant) are left out.

    Args:
        correct: whether each prediction was right.
        values: what to slice by, such as `slant(images)`.
        parts: number of slices.
        unit: of the values, for the names: "1.2 to 2.3 px".
    """
    finite = np.isfinite(values)
    correct, values = correct[finite], values[finite]
    edges = [np.quantile(values, part / parts) for part in range(1, parts) if values.size]
    place = np.searchsorted(np.array(edges), values)
    slices = []
    for part in np.unique(place):
        own = values[place == part]
        name = f"{own.min():.3g} to {own.max():.3g} {unit}".rstrip()
        slices.append(_slice(name, correct[place == part]))
    return slices


def by_shape(
    correct: Bool[np.ndarray, "N"], images: UInt8[np.ndarray, "N H W 1"]
) -> dict[str, list[Slice]]:
    """Return five slices each by stroke thickness, slant and size."""
    return {
        "stroke thickness": by_value(correct, thickness(images), unit="px"),
        "slant": by_value(correct, slant(images), unit="°"),
        "size": by_value(correct, size(images), unit="px"),
    }


def _slice(name: str, correct: Bool[np.ndarray, "n"]) -> Slice:
    total, right = len(correct), int(correct.sum())
    return Slice(name, total, right, *stats.wilson(right, total))


def slant(images: UInt8[np.ndarray, "N H W 1"]) -> Float[np.ndarray, "N"]:
    """Slant of each digit to the right, in degrees; NaN for a black image.

    The shear that would make it upright, from its central moments: tan(slant) = -mu11 / mu02, with
    y pointing down. Deskewing removes it before a linear classifier (LeCun et al. 1998).
    """
    moments = _moments(images)
    return np.degrees(np.arctan2(-moments.xy, moments.yy))


def size(images: UInt8[np.ndarray, "N H W 1"]) -> Float[np.ndarray, "N"]:
    """Radius of gyration of each digit's ink, in pixels; NaN for a black image."""
    moments = _moments(images)
    return np.sqrt(moments.xx + moments.yy)


def thickness(images: UInt8[np.ndarray, "N H W 1"]) -> Float[np.ndarray, "N"]:
    """Mean width of each digit's strokes, in pixels; NaN for a black image.

    A stroke much longer than wide has an area of width times length, and an edge of twice its
    length: width = 2 area / edge. For a grey image the area is the sum of its pixels, and the edge
    of all grey levels is its total variation (the coarea formula): the sum of the gradients between
    every four neighbours. Brightness does not matter, but strokes thinner than a pixel come out too
    wide.
    """
    grey = np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1))).astype(np.float32)
    right, down = np.diff(grey, axis=2), np.diff(grey, axis=1)
    across = (right[:, 1:] + right[:, :-1]) / 2
    along = (down[:, :, 1:] + down[:, :, :-1]) / 2
    with np.errstate(invalid="ignore"):
        return 2 * grey.sum(axis=(1, 2)) / np.hypot(across, along).sum(axis=(1, 2))


class _Moments(NamedTuple):
    """Central second moments of the ink, normalized by its mass, in square pixels; NaN if black."""

    xx: Float[np.ndarray, "N"]
    xy: Float[np.ndarray, "N"]
    yy: Float[np.ndarray, "N"]


def _moments(images: UInt8[np.ndarray, "N H W 1"]) -> _Moments:
    ink = images[..., 0].astype(np.float64)
    with np.errstate(invalid="ignore"):
        ink /= ink.sum(axis=(1, 2), keepdims=True)
    columns, rows = ink.sum(axis=1), ink.sum(axis=2)
    x, y = np.arange(columns.shape[1]), np.arange(rows.shape[1])
    x = x - (columns @ x)[:, None]
    y = y - (rows @ y)[:, None]
    xy = np.einsum("nyx,ny,nx->n", ink, y, x)
    return _Moments((columns * x**2).sum(axis=1), xy, (rows * y**2).sum(axis=1))
