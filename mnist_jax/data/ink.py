"""Separate ink from paper in any colours and light.

Ink is darker, or lighter, than all that surrounds it, and narrower than shades are.
"""

import math

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image
from scipy import ndimage

from mnist_jax.data import rulings

Detail = Float[np.ndarray, "h w"]
_COARSE = 64  # pixels of a side on which light and shade are separated from ink
_WINDOWS = (0.1, 0.2, 0.4)  # of the longest side: what is as wide is no stroke
_NARROW = 6  # pixels: smaller windows do not tell strokes from shades
_SMOOTH = 0.33  # of the ink: an edge of a shade between neighbouring coarse pixels is softer
_SKEWED = 0.8  # skewness of detail from which on it says which is ink
CONTRAST = 0.08  # of black to white: less is no ink
_SMALLEST = 0.03  # of the longest side: a figure's largest piece of ink reaches that far
_SPECK = 0.05  # of the largest piece of ink: smaller pieces are dirt


def separate(colours: Float[np.ndarray, "h w c"]) -> tuple[Float[np.ndarray, "h w"], float]:
    """Return the difference of each pixel from the paper around it, in [0, 1], and its noise.

    Dark ink is measured by the share of the light that it takes away, which is the same in the
    shade; light ink by what it adds. Each colour is looked at by itself: red ink on green paper is
    lighter in one, darker in another.
    """
    parts = []
    for channel in np.ascontiguousarray(np.moveaxis(colours, -1, 0)):
        large = Image.fromarray(channel.astype(np.float32))
        coarse = np.asarray(large.reduce(math.ceil(max(large.size) / _COARSE)), np.float64)
        plane = _plane(coarse)
        detail = coarse - plane
        skewness = _skewness(detail - ndimage.gaussian_filter(detail, max(detail.shape) / 4))
        parts.append((channel, coarse, plane, skewness or _skewness(_detail(channel, plane))))
    amounts = []
    # The channels that show which is ink, if there are any.
    for channel, coarse, plane, skewness in [p for p in parts if p[-1]] or parts:
        light = (skewness or _middle(_detail(channel, plane))) > 0
        sign = 1 if light else -1
        shade = plane + sign * _shade(sign * (coarse - plane))
        paper = _enlarged(shade, channel.shape[::-1])
        amounts.append(sign * (channel - paper) / (1 if light else np.maximum(paper, 0.25)))
    amount = np.max(amounts, axis=0)
    # Of noise alone these two are about a standard deviation apart; most of ink lies above both.
    low, level = np.percentile(amount, (5, 25))
    return np.clip(amount - level, 0, 1), float(level - low)


def _plane(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Fit the plane through most of the pixels: least absolute deviations, by reweighting."""
    y, x = np.indices(grey.shape)
    terms = np.stack([np.ones(grey.size), x.ravel(), y.ravel()])
    plane = np.full(grey.size, np.median(grey))
    for _ in range(20):
        weighted = terms / np.maximum(np.abs(grey.ravel() - plane), 1e-3)
        # Three normal equations; of a picture as wide as a pixel one of them says nothing.
        fit = np.linalg.lstsq(weighted @ terms.T, weighted @ grey.ravel(), rcond=None)[0]
        plane = fit @ terms
    return plane.reshape(grey.shape)


def _shade(light: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Return light ink's background: what is left of all that is narrower than a window.

    The smallest window whose background has no edges is right: a smaller one leaves parts of
    strokes in it, a larger one leaves shadows in the ink.
    """
    sizes = [math.ceil(window * max(light.shape)) for window in _WINDOWS]
    for size in [size for size in sizes if size > _NARROW] or sizes[-1:]:
        shade = ndimage.grey_opening(light, (size, size))
        steps = max(np.abs(np.diff(shade, axis=axis)).max(initial=0) for axis in (0, 1))
        if steps < _SMOOTH * (light - shade).max():
            break
    return shade


def _enlarged(coarse: Float[np.ndarray, "h w"], size: tuple[int, int]) -> Float[np.ndarray, "_ _"]:
    smooth = Image.fromarray(coarse.astype(np.float32)).resize(size)
    return np.asarray(smooth, np.float64)


def _detail(channel: Float[np.ndarray, "h w"], plane: Float[np.ndarray, "_ _"]) -> Detail:
    return channel - _enlarged(plane, channel.shape[::-1])


def _skewness(detail: Detail) -> float:
    """Return the skewness of detail: above 0 where ink is light, below where it is dark.

    There is little ink, and it differs much from paper. In a picture cut close to its figure there
    is too much ink for that: then 0.
    """
    squares = detail**2
    skewness = (squares * detail).mean() / max(squares.mean(), 1e-12) ** 1.5
    return float(skewness) if abs(skewness) > _SKEWED else 0.0


def _middle(detail: Detail) -> float:
    """Return by how much the picture is lighter than its border."""
    return float(detail.mean() - np.median(border(detail)))


def border(grey: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, " n"]:
    """Return the pixels along the four sides."""
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def clean(ink: Float[np.ndarray, "h w"], noise: float) -> Float[np.ndarray, "h w"]:
    """Return ink from 0 to 1 without paper, dirt, and what reaches in from outside.

    It is 0 everywhere if nothing stands out from the background.
    """
    blank = np.zeros_like(ink)
    threshold = max(_otsu(ink), 6 * noise, CONTRAST)
    above = ink[ink > threshold]
    if not above.size:
        return blank
    # Ruled lines are fainter than what is written on them.
    strong = ink > max(threshold, 0.4 * np.percentile(above, 90))
    lines = rulings.find(strong)
    if lines.any():
        written = strong & ~ndimage.binary_dilation(lines)
        strong = written if written.any() else strong
    pieces, count = ndimage.label(strong, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    inside = sizes.copy()
    inside[border(pieces)] = 0
    if inside.max() > _SPECK * sizes.max():
        sizes = inside
    largest = ndimage.find_objects(pieces)[sizes.argmax() - 1]
    if max(edge.stop - edge.start for edge in largest) < _SMALLEST * max(ink.shape):
        return blank
    kept = (sizes > _SPECK * sizes.max())[pieces]
    full = np.percentile(ink[kept], 75)
    edges = ndimage.maximum_filter(kept, 3)  # grey, from antialiasing
    return np.where(edges, np.clip(ink / full, 0, 1), 0)


def _otsu(values: Float[np.ndarray, "h w"]) -> float:
    """Return the threshold that separates values in [0, 1] best (Otsu 1979, equation 18)."""
    counts, edges = np.histogram(values, 256, (0, 1))
    below, sums = np.cumsum(counts), np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    above = below[-1] - below
    gap = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    return float(edges[1 + np.argmax(below * above * gap**2)])
