"""Accuracy by slice: by any value, such as the shape of a digit from its image moments.

A slice is a subset of similar examples; low accuracy on a slice shows where a model can improve.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from mnist_jax.analysis import stats


class Slice(NamedTuple):
    """Accuracy of a model on a part of the examples."""

    name: str
    total: int
    correct: int
    low: float  # of the accuracy's 95% interval, by Wilson
    high: float

    @property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return self.correct / self.total


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
        own, right = values[place == part], int(correct[place == part].sum())
        name = f"{own.min():.3g} to {own.max():.3g} {unit}".rstrip()
        slices.append(Slice(name, len(own), right, *stats.wilson(right, len(own))))
    return slices


def by_shape(
    correct: Bool[np.ndarray, "N"], images: UInt8[np.ndarray, "N H W 1"]
) -> dict[str, list[Slice]]:
    """Five slices each by stroke thickness, slant and size, under these names."""
    measures = (("stroke thickness", thickness, "px"), ("slant", slant, "°"), ("size", size, "px"))
    return {name: by_value(correct, of(images), unit=unit) for name, of, unit in measures}


def slant(images: UInt8[np.ndarray, "N H W 1"]) -> Float[np.ndarray, "N"]:
    """Slant of each digit to the right, in degrees from upright; NaN for a black image.

    The shear that would make it upright, from its central moments: tan(slant) = -mu11 / mu02, with
    y pointing down. Deskewing removes it before a linear classifier (LeCun et al. 1998).
    """
    _, xy, yy = _moments(images)
    return np.degrees(np.arctan2(-xy, yy))


def size(images: UInt8[np.ndarray, "N H W 1"]) -> Float[np.ndarray, "N"]:
    """Return the radius of gyration of each digit's ink, in pixels; NaN for a black image."""
    xx, _, yy = _moments(images)
    return np.sqrt(xx + yy)


def thickness(images: UInt8[np.ndarray, "N H W 1"]) -> Float[np.ndarray, "N"]:
    """Mean width of each digit's strokes, in pixels; NaN for a black image.

    A stroke that is much longer than wide has an area of its width times its length, and an edge of
    twice its length: width = 2 area / edge. Of a grey image the area is the sum of its pixels, and
    the edge, of all grey levels together, its total variation (the coarea formula): here the sum of
    the gradients between every four neighbours. Brightness does not matter, but a stroke so thin
    that no pixel lies within it comes out too wide.
    """
    grey = np.pad(images[..., 0], ((0, 0), (1, 1), (1, 1))).astype(np.float32)
    right, down = np.diff(grey, axis=2), np.diff(grey, axis=1)
    across = (right[:, 1:] + right[:, :-1]) / 2
    along = (down[:, :, 1:] + down[:, :, :-1]) / 2
    with np.errstate(invalid="ignore"):
        return 2 * grey.sum(axis=(1, 2)) / np.hypot(across, along).sum(axis=(1, 2))


def _moments(images: UInt8[np.ndarray, "N H W 1"]) -> Float[np.ndarray, "3 N"]:
    """Central second moments xx, xy, yy of the ink over its mass, in square pixels; or NaN."""
    ink = images[..., 0].astype(np.float64)
    with np.errstate(invalid="ignore"):
        ink /= ink.sum(axis=(1, 2), keepdims=True)
    columns, rows = ink.sum(axis=1), ink.sum(axis=2)
    x, y = np.arange(columns.shape[1]), np.arange(rows.shape[1])
    x = x - (columns @ x)[:, None]
    y = y - (rows @ y)[:, None]
    xy = np.einsum("nyx,ny,nx->n", ink, y, x)
    return np.stack([(columns * x**2).sum(axis=1), xy, (rows * y**2).sum(axis=1)])
