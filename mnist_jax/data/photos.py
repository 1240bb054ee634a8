"""Prepare a picture for a net: figures or an object, light on black, 28x28.

MNIST's makers scaled each digit, its aspect kept, into a box of 20x20 pixels, grey from
antialiasing, and put its centre of mass at the centre of 28x28 (LeCun et al. 1998, Gradient-based
learning applied to document recognition, section III). In the data set `digits` the box itself is
in the middle. Fashion-MNIST's makers trimmed each photograph, scaled it to a longest side of 28 and
put its middle there (Xiao et al. 2017, section 2).
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from scipy import ndimage

from mnist_jax.data import figures, ink, sheets

Kind = Literal["digits", "objects"]
SIDE, BOX = 28, 20
_DARK = 0.25  # a picture whose lightest pixel is darker is brightened, ...
_BLACK = 0.03  # ... unless that one is black
_FINE = 8  # pixels for one of the box, while a digit is sized
_KEPT = 0.75  # of the ink's area when it is made smaller: thin strokes lose more
_THINNEST = 2.0  # strokes, in pixels of the box: of MNIST's, one in ten is thinner


def prepare(
    colours: Float[np.ndarray, "h w c"], kind: Kind, *, by_mass: bool = True
) -> UInt8[np.ndarray, "n 28 28 1"]:
    """Convert a picture into images in the style of a data set.

    Args:
      colours: dark or light figures on paper, pixels in [0, 1]; or one object.
      kind: of the images of the data set: "digits" are prepared as MNIST's, "objects" as
        Fashion-MNIST's.
      by_mass: center digits by their mass; otherwise by their box.

    Returns:
      Each figure, row by row from left to right; or the object.

    Raises:
      ValueError: nothing stands out from the background.
    """
    top = colours.max()
    if _BLACK < top < _DARK:  # such as pixels of 12 bits in 16
        colours = colours / top
    if kind == "objects":
        return as_fashion(colours)[None]
    return as_mnist(colours, by_mass=by_mass)


def as_mnist(
    colours: Float[np.ndarray, "h w c"], *, by_mass: bool = True
) -> UInt8[np.ndarray, "n 28 28 1"]:
    """Size and center figures as MNIST's digits are; an image of that kind stays as it is.

    If a sheet of paper lies in the picture, its figures are returned. Strokes thinner than nearly
    all of MNIST's are thickened.

    Args:
      colours: light or dark ink on paper.
      by_mass: center by mass; otherwise by the box.

    Raises:
      ValueError: nothing stands out from the background.
    """
    sheet = sheets.find(colours)
    for part in [colours] if sheet is None else [sheet, colours]:
        amount, noise = ink.separate(part)
        if _is_made(amount, by_mass):
            return _bytes(amount)[None]
        strokes = ink.clean(amount, noise)
        if strokes.any():
            return np.stack([_place(figure, by_mass) for figure in figures.split(strokes)])
    raise ValueError("nothing stands out from the background")


def _place(figure: Float[np.ndarray, "h w"], by_mass: bool) -> UInt8[np.ndarray, "28 28 1"]:
    strokes = _fit(figure)
    missing = _THINNEST - _stroke_width(strokes)
    if missing > 0:
        radius = _FINE * missing / 2
        around = np.pad(strokes, math.ceil(radius) + 1)
        distance = ndimage.distance_transform_edt(around <= 0.5)
        strokes = _fit(np.maximum(around, np.clip(radius + 0.5 - distance, 0, 1)))
    height, width = (side // _FINE for side in strokes.shape)
    small = strokes.reshape(height, _FINE, width, _FINE).mean(axis=(1, 3))
    # By whole pixels, so that nothing is blurred: MNIST's centres of mass lie in [13.5, 14.5).
    centres = ndimage.center_of_mass(small) if by_mass else ((n - 1) / 2 for n in small.shape)
    places = (math.ceil(13.5 - centre) for centre in centres)
    top, left = (min(max(p, 0), SIDE - n) for p, n in zip(places, small.shape, strict=True))
    page = np.zeros((SIDE, SIDE))
    page[top : top + height, left : left + width] = small
    return _bytes(page)


def as_fashion(colours: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "28 28 1"]:
    """Trim one thing before a plain background, scale its longest side to 28 and centre it.

    A picture of 28x28 keeps its size and place.

    Raises:
      ValueError: nothing stands out from the background.
    """
    grey = colours.mean(axis=-1)
    background = float(np.median(ink.border(grey)))
    if grey.shape == (SIDE, SIDE):
        return _bytes(grey if background < 0.5 else 1 - grey)
    thing = np.abs(grey - background) / max(background, 1 - background)
    if thing.max() < ink.CONTRAST:
        raise ValueError("nothing stands out from the background")
    (box,) = ndimage.find_objects((thing > 0.05).astype(int))
    cropped = Image.fromarray(thing[box].astype(np.float32))
    fitted = ImageOps.pad(cropped, (SIDE, SIDE), Image.Resampling.BICUBIC)
    return _bytes(np.clip(np.asarray(fitted, np.float64), 0, 1))


def _is_made(page: Float[np.ndarray, "h w"], by_mass: bool) -> bool:
    """Return whether a page is 28x28 and its figure is sized and placed already."""
    if page.shape != (SIDE, SIDE) or not page.any():
        return False
    (box,) = ndimage.find_objects((page > 0.5 / 255).astype(int))
    longest = max(edge.stop - edge.start for edge in box)
    if by_mass:
        centre = np.array(ndimage.center_of_mass(page))
        return longest in (BOX - 1, BOX) and bool((np.abs(centre - SIDE / 2) <= 0.51).all())
    margin = (SIDE - BOX) // 2
    within = all(margin <= edge.start and edge.stop <= margin + BOX for edge in box)
    return within and longest >= BOX - 3  # an eighth of the box may be blank


def _fit(ink: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h2 w2"]:
    """Crop ink and scale it to fit the box, with `_FINE` pixels for one of the box.

    Strokes that would become grey are first widened to one of these pixels.
    """
    (box,) = ndimage.find_objects((ink > 0.25).astype(int))
    cropped = ink[box]
    height, width = (_FINE * max(1, round(BOX * n / max(cropped.shape))) for n in cropped.shape)

    def scaled(ink: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h2 w2"]:
        large = Image.fromarray(ink.astype(np.float32))
        small = large.resize((width, height), Image.Resampling.BICUBIC)
        return np.clip(np.asarray(small, np.float64), 0, 1)

    fitted = scaled(cropped)
    if (fitted > 0.5).mean() < _KEPT * (cropped > 0.5).mean():
        pixel = math.ceil(max(cropped.shape) / (BOX * _FINE))
        fitted = scaled(ndimage.maximum_filter(cropped, pixel))
    return fitted


def _stroke_width(strokes: Float[np.ndarray, "h w"]) -> float:
    """Return the mean width of strokes in pixels of the box: 4 times the mean depth of ink."""
    distance = ndimage.distance_transform_edt(np.pad(strokes > 0.5, 1))
    return float(4 * (distance[distance > 0] - 0.5).mean() / _FINE)


def _bytes(page: Float[np.ndarray, "28 28"]) -> UInt8[np.ndarray, "28 28 1"]:
    return np.rint(255 * page).astype(np.uint8)[..., None]
