"""Image files: the pixels of every page in any format, bit depth and transparency."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist_jax.types import UserError, printable

# No others: Pillow starts Ghostscript for PostScript, whatever the file is called.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")
_LISTED = "PNG, JPEG, GIF, BMP, TIFF, WebP, AVIF, JPEG 2000 or PNM"
_LARGEST = 512  # pixels of a side of what is returned; a photograph has more
_NEW_SUBFILE_TYPE = 254  # a tag of TIFF
_THUMBNAIL = 1  # a bit of its value: the page is another one, reduced


class PictureError(UserError):
    """A picture cannot be read or shows nothing; the message names the file."""


class Picture(NamedTuple):
    """A page of an image file."""

    name: str  # of the file; with several pages also their number, from 1: "scan.tif[2]"
    pixels: Float[np.ndarray, "h w c"]  # in [0, 1]; c is 1 (grey) or 3 (red, green, blue)


def read(path: Path) -> Iterator[Picture]:
    """Yield the pages of an image file, upright and reduced to at most 512 pixels a side.

    Transparent pixels get the colour of the others if these are most of the picture; otherwise
    white behind dark ink and black behind light ink. Thumbnails of pages are left out.

    Raises:
      PictureError: the file or a page cannot be read as an image of a known format.
    """
    name = printable(str(path))
    with _errors_of(name):
        opened = _open(path)
    with opened:
        with _errors_of(name):
            # An MPO file holds a photograph, then the same for another eye or its depth.
            count = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
        for index in range(count):
            page = f"{name}[{index + 1}]" if count > 1 else name
            with _errors_of(page):
                opened.seek(index)
                tags = getattr(opened, "tag_v2", {})
                if count > 1 and tags.get(_NEW_SUBFILE_TYPE, 0) & _THUMBNAIL:
                    continue
                picture = Picture(page, _pixels(ImageOps.exif_transpose(opened)))
            yield picture


def _open(path: Path) -> Image.Image:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("it is a device or a pipe")
    Image.init()
    opened = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    opened.draft("RGB", (_LARGEST, _LARGEST))  # a large JPEG is decoded reduced
    return opened


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Turn errors into PictureErrors that begin with a name, and silence Pillow's warnings."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except UnidentifiedImageError as error:
        message = f"{name}: is not an image in a supported format ({_LISTED}); convert it first"
        raise PictureError(message) from error
    except Exception as error:  # Pillow's formats raise a dozen kinds at a damaged file
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise PictureError(f"{name}: cannot be read ({printable(reason)})") from error


def _pixels(image: Image.Image) -> Float[np.ndarray, "h w c"]:
    if image.mode[0] in "IF":
        pixels = _deep(image)
    elif image.mode == "LAB":  # Pillow converts it to nothing
        pixels = np.asarray(_reduced(image.getchannel("L")), np.float64)[..., None] / 255
    elif image.has_transparency_data:
        pixels = _opaque(np.asarray(_reduced(image.convert("RGBA")), np.float64) / 255)
    else:
        pixels = np.asarray(_reduced(image.convert("RGB")), np.float64) / 255
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]  # a third of the work
    return pixels


def _deep(image: Image.Image) -> Float[np.ndarray, "h w 1"]:
    """Return the pixels of an image of more than 8 bits, integer or not.

    White is the largest number of the bits that the lightest pixel needs, at least 8. It is 1 for
    fractions, and the lightest pixel if others are negative. The median replaces NaN.
    """
    values = np.asarray(image, np.float64)
    finite = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    low, top = min(finite.min(), 0), finite.max()
    values = np.nan_to_num(values, nan=np.median(finite), posinf=top, neginf=low) - low
    if low < 0:
        white = top - low
    elif image.mode == "F" and top <= 1:
        white = 1
    else:
        white = 2 ** max(8, math.ceil(math.log2(top + 1))) - 1
    reduced = _reduced(Image.fromarray((values / white).astype(np.float32)))
    return np.asarray(reduced, np.float64)[..., None]


def _opaque(pixels: Float[np.ndarray, "h w 4"]) -> Float[np.ndarray, "h w 3"]:
    """Put a page behind transparent pixels; the least transparent ones are taken for opaque."""
    colours, opacity = pixels[..., :3], pixels[..., 3:] / max(pixels[..., 3].max(), 1 / 255)
    solid = opacity[..., 0] > 0.5
    if 2 * solid.sum() > solid.size:
        behind = np.median(colours[solid], axis=0)
    else:
        dark = (opacity * colours).sum() < 0.5 * 3 * opacity.sum()
        behind = np.full(3, 1.0 if dark else 0.0)
    return behind + opacity * (colours - behind)


def _reduced(image: Image.Image) -> Image.Image:
    return image.reduce(math.ceil(max(image.size) / _LARGEST))
