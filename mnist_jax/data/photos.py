"""A person's picture made into what a net was trained on: light on black, 28x28.

MNIST's makers scaled each digit, its aspect kept, into a box of 20x20 pixels, grey from
antialiasing, and put its centre of mass at the centre of 28x28 (LeCun et al. 1998, Gradient-based
learning applied to document recognition, section III). In the data set `digits` the box itself is
in the middle. Fashion-MNIST's makers trimmed each photograph, scaled it to a longest side of 28 and
put its middle there (Xiao et al. 2017, section 2).

Before that, paper has to become black, whatever its colour and light: ink is what is darker, or
lighter, than all around it and narrower than shades are.
"""

import math
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from mnist_jax.types import UserError

SIDE, BOX = 28, 20
_LARGEST = 512  # pixels of a side that are looked at; a photograph has more
_COARSE = 64  # pixels of a side on which light and shade are separated from ink
_FINE = 8  # pixels for one of the box, while a digit is sized
_SHADE = 0.4  # of the longest side: what is as wide is no stroke
_SKEWED = 0.8  # skewness of detail from which on it says which is ink
_CONTRAST = 0.08  # of black to white: less is no ink
_SMALLEST = 0.03  # of the longest side: a figure's largest piece of ink reaches that far
_SPECK = 0.05  # of the largest piece of ink: smaller pieces are dirt
_KEPT = 0.75  # of the ink's area when it is made smaller: thin strokes lose more
_THINNEST = 2.0  # strokes, in pixels of the box: of MNIST's, one in ten is thinner


class PictureError(UserError):
    """A picture cannot be read, or shows nothing; the message names its file."""


def prepare(path: Path, dataset: str) -> UInt8[np.ndarray, "28 28 1"]:
    """Reads a picture and makes it like those of a data set.

    Args:
      path: of a file that Pillow reads, with one figure in it, dark or light, and paper around it.
      dataset: its name; a CSV file is taken for one of digits like MNIST's, anything unknown for
        one of things like Fashion-MNIST's.

    Raises:
      PictureError: the file cannot be read as a picture, or nothing is to be seen in it.
    """
    colours = read(path)
    try:
        if dataset in ("mnist", "digits") or dataset.startswith("csv:"):
            return as_mnist(colours, by_mass=dataset != "digits")
        return as_fashion(colours)
    except ValueError as error:
        raise PictureError(f"{path}: {error}") from error


def read(path: Path) -> Float[np.ndarray, "h w c"]:
    """A picture's pixels in [0, 1], upright, grey or red, green and blue; a large one is reduced.

    What is transparent takes the colour of the rest where that is most of the picture; else it is
    white behind dark ink and black behind light ink.

    Raises:
      PictureError: there is no such file, or it is no picture that Pillow can read.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            opened = Image.open(path)
        with opened:
            opened.draft("RGB", (_LARGEST, _LARGEST))  # a large JPEG is decoded reduced
            image = _opaque(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError as error:
        raise PictureError(f"{path}: is no picture that Pillow knows") from error
    except Exception as error:  # its formats raise a dozen kinds at a damaged file
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise PictureError(f"{path}: cannot be read ({reason})") from error
    pixels = np.asarray(image, np.float64).reshape(image.height, image.width, -1)
    return pixels if image.mode == "F" else pixels / 255


def _opaque(image: Image.Image) -> Image.Image:
    """Reduced, without transparency: mode RGB, or where there are more than 8 bits F, in [0, 1]."""
    if image.mode[0] in "IF":
        grey = np.asarray(image, np.float32)
        top = min((t for t in (1, 255, 65535) if grey.max() <= t), default=grey.max())
        return _reduced(Image.fromarray(np.clip(grey / top, 0, 1)))
    if not image.has_transparency_data:
        return _reduced(image.convert("RGB"))
    image = _reduced(image.convert("RGBA"))
    pixels = np.asarray(image, np.float64)
    seen = pixels[pixels[..., 3] > 127, :3]
    if 2 * len(seen) > image.width * image.height:
        behind = tuple(np.median(seen, axis=0).astype(int).tolist())
    else:
        behind = (255,) * 3 if len(seen) and seen.mean() < 128 else (0,) * 3
    page = Image.new("RGBA", image.size, (*behind, 255))
    return Image.alpha_composite(page, image).convert("RGB")


def _reduced(image: Image.Image) -> Image.Image:
    return image.reduce(math.ceil(max(image.size) / _LARGEST))


def as_mnist(
    colours: Float[np.ndarray, "h w c"], *, by_mass: bool = True
) -> UInt8[np.ndarray, "28 28 1"]:
    """One figure, sized and centred as MNIST's digits are; one that already is comes back as it is.

    Strokes thinner than nearly all of MNIST's are thickened.

    Args:
      colours: light or dark ink on paper.
      by_mass: the centre is that of mass; else that of the box.

    Raises:
      ValueError: nothing stands out from the background.
    """
    ink, noise = _ink(colours)
    if _is_made(ink, by_mass):
        return _bytes(ink)
    strokes = _fit(_clean(ink, noise))
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
    """One thing before a plain background, trimmed, scaled to a longest side of 28, in the middle.

    A picture of 28x28 keeps its size and place.

    Raises:
      ValueError: nothing stands out from the background.
    """
    grey = colours.mean(axis=-1)
    background = float(np.median(_border(grey)))
    if grey.shape == (SIDE, SIDE):
        return _bytes(grey if background < 0.5 else 1 - grey)
    thing = np.abs(grey - background) / max(background, 1 - background)
    if thing.max() < _CONTRAST:
        raise ValueError("nothing stands out from the background")
    (box,) = ndimage.find_objects((thing > 0.05).astype(int))
    cropped = Image.fromarray(thing[box].astype(np.float32))
    fitted = ImageOps.pad(cropped, (SIDE, SIDE), Image.Resampling.BICUBIC)
    return _bytes(np.clip(np.asarray(fitted, np.float64), 0, 1))


def _ink(colours: Float[np.ndarray, "h w c"]) -> tuple[Float[np.ndarray, "h w"], float]:
    """How much each pixel differs from the paper around it, in [0, 1], and the noise in that.

    Dark ink is measured by the share of the light that it takes away, which is the same in the
    shade; light ink by what it adds. Each colour is looked at by itself: red ink on green paper is
    lighter in one, darker in another.
    """
    amounts = []
    for channel in np.moveaxis(colours, -1, 0):
        large = Image.fromarray(channel.astype(np.float32))
        coarse = np.asarray(large.reduce(math.ceil(max(large.size) / _COARSE)), np.float64)
        plane = _plane(coarse)
        sign = _polarity(coarse - plane)
        window = math.ceil(_SHADE * max(coarse.shape))
        shade = plane + sign * ndimage.grey_opening(sign * (coarse - plane), (window, window))
        smooth = Image.fromarray(shade.astype(np.float32)).resize(large.size)
        paper = np.asarray(smooth, np.float64)
        amounts.append(sign * (channel - paper) / (np.maximum(paper, 0.25) if sign < 0 else 1))
    amount = np.max(amounts, axis=0)
    # Of noise alone these two are about a standard deviation apart; most of ink lies above both.
    low, level = np.percentile(amount, (5, 25))
    return np.clip(amount - level, 0, 1), float(level - low)


def _plane(grey: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """The plane through most of the pixels: of the least absolute deviations, by reweighting."""
    y, x = np.indices(grey.shape)
    terms = np.stack([np.ones(grey.size), x.ravel(), y.ravel()], axis=1)
    plane = np.full(grey.size, np.median(grey))
    for _ in range(20):
        weight = np.maximum(np.abs(grey.ravel() - plane), 1e-3)[:, None] ** -0.5
        fit = np.linalg.lstsq(weight * terms, weight[:, 0] * grey.ravel(), rcond=None)[0]
        plane = terms @ fit
    return plane.reshape(grey.shape)


def _polarity(grey: Float[np.ndarray, "h w"]) -> int:
    """1 where ink is light, -1 where it is dark.

    There is little of it, and it differs much: it makes the distribution of detail skew. In a
    picture cut close to its figure there is too much for that; there most of the border is paper.
    """
    detail = grey - ndimage.gaussian_filter(grey, max(grey.shape) / 4)
    skewness = (detail**3).mean() / max((detail**2).mean(), 1e-12) ** 1.5
    if abs(skewness) > _SKEWED:
        return 1 if skewness > 0 else -1
    return 1 if np.median(_border(grey)) < grey.mean() else -1


def _border(grey: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, " n"]:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _clean(ink: Float[np.ndarray, "h w"], noise: float) -> Float[np.ndarray, "h w"]:
    """Ink from 0 to 1, without what is paper, dirt, or reaches in from outside."""
    blank = ValueError("nothing stands out from the background")
    threshold = max(_otsu(ink), 6 * noise, _CONTRAST)
    if not (ink > threshold).any():
        raise blank
    # Ruled lines are fainter than what is written on them.
    strong = ink > max(threshold, 0.4 * np.percentile(ink[ink > threshold], 90))
    pieces, count = ndimage.label(strong, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    inside = sizes.copy()
    inside[_border(pieces)] = 0
    if inside.max() > _SPECK * sizes.max():
        sizes = inside
    largest = ndimage.find_objects(pieces)[sizes.argmax() - 1]
    if max(edge.stop - edge.start for edge in largest) < _SMALLEST * max(ink.shape):
        raise blank
    kept = (sizes > _SPECK * sizes.max())[pieces]
    full = np.percentile(ink[kept], 75)
    edges = ndimage.binary_dilation(kept, np.ones((3, 3)))  # grey, from antialiasing
    return np.where(edges, np.clip(ink / full, 0, 1), 0)


def _otsu(values: Float[np.ndarray, "h w"]) -> float:
    """The threshold that parts values in [0, 1] best in two (Otsu 1979, equation 18)."""
    counts, edges = np.histogram(values, 256, (0, 1))
    below, sums = np.cumsum(counts), np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    above = below[-1] - below
    gap = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    return float(edges[1 + np.argmax(below * above * gap**2)])


def _is_made(ink: Float[np.ndarray, "h w"], by_mass: bool) -> bool:
    """Whether it is 28x28 and sized and placed already."""
    if ink.shape != (SIDE, SIDE) or not ink.any():
        return False
    (box,) = ndimage.find_objects((ink > 0.5 / 255).astype(int))
    longest = max(edge.stop - edge.start for edge in box)
    if by_mass:
        centre = np.array(ndimage.center_of_mass(ink))
        return longest in (BOX - 1, BOX) and bool((np.abs(centre - SIDE / 2) <= 0.51).all())
    margin = (SIDE - BOX) // 2
    within = all(margin <= edge.start and edge.stop <= margin + BOX for edge in box)
    return within and longest >= BOX - 3  # an eighth of the box may be blank


def _fit(ink: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h2 w2"]:
    """What there is of ink, cropped and scaled to fit the box, `_FINE` pixels for one of it.

    Where that would make grey of strokes thinner than these pixels, they are as wide as one first.
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
    """Mean width of strokes in pixels of the box: on average ink is a quarter of it from paper."""
    distance = ndimage.distance_transform_edt(np.pad(strokes > 0.5, 1))
    return float(4 * (distance[distance > 0] - 0.5).mean() / _FINE)


def _bytes(page: Float[np.ndarray, "28 28"]) -> UInt8[np.ndarray, "28 28 1"]:
    return np.rint(255 * page).astype(np.uint8)[..., None]
