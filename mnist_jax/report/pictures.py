"""Arrays as pictures inside a page: data URIs of PNG files.

Signed values are teal if positive and red if negative, in tones that show on light and dark pages.
"""

import base64
import io

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

POSITIVE, NEGATIVE = (24, 160, 143), (226, 80, 104)
_DIMMED = 0.6  # an image's brightness under an overlay: black and white leave colours no room


def png(pixels: UInt8[np.ndarray, "H W C"]) -> str:
    """Encode a picture as a data URI: grey (C = 1), RGB (3) or RGB with opacity (4)."""
    return data_uri(Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels))


def data_uri(image: Image.Image, kind: str = "png") -> str:
    """Encode a Pillow image as a data URI of a PNG or JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def grey(values: Float32[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Convert pixels from [0, 1], black to white, to bytes; other values are clipped."""
    return np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)


def signed(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 4"]:
    """Signed values in colour: opacity grows with size, from invisible at 0 to solid."""
    values = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    opacity = np.abs(values) / (np.abs(values).max() or 1.0)
    colours = np.where(values[..., None] > 0, POSITIVE, NEGATIVE)
    return np.dstack([colours, np.round(255 * opacity)]).astype(np.uint8)


def overlay(
    image: UInt8[np.ndarray, "H W 1"], values: Float[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Overlay a dimmed image with signed values in colour."""
    colours = signed(values)
    opacity = colours[..., 3:] / 255
    mixed = (1 - opacity) * _DIMMED * image + opacity * colours[..., :3]
    return np.round(mixed).astype(np.uint8)
