"""Geometry of augmentation: random affine maps, resampling, random rectangles."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32

from mnist_jax.data.augment import Fill, Strength
from mnist_jax.runtime.prng import Key

# Random erasing (Zhong et al. 2017): the share of the image that a rectangle covers, and its height
# over its width. The paper goes up to a share of 0.4; torchvision and Keras made 0.33 common.
_ERASE_AREA = (0.02, 0.33)
_ERASE_ASPECT = (0.3, 1 / 0.3)


class Affine(NamedTuple):
    """An affine map: zoom, shear, rotate, then shift. Pairs are (y, x)."""

    zoom: Float[Array, "2"]  # magnification
    shear: Float[Array, ""]  # degrees; positive leans the top to the right
    rotation: Float[Array, ""]  # degrees, counter-clockwise
    shift: Float[Array, "2"]  # pixels, down and to the right


def draw_affine(key: Key, strength: Strength, height: int, width: int) -> Affine:
    """Draw each parameter uniformly in the range that its strength sets.

    Zoom is drawn for each axis on its own, as Keras's `ImageDataGenerator` does: handwriting varies
    in proportions as well as in size. A shift's strength is a fraction of the image's side.
    """
    drawn = jax.random.uniform(key, (6,), jnp.float32, minval=-1)
    rotation, zoom_y, zoom_x, shear, shift_y, shift_x = drawn
    return Affine(
        zoom=1 + strength.zoom * jnp.stack([zoom_y, zoom_x]),
        shear=strength.shear * shear,
        rotation=strength.rotation * rotation,
        shift=strength.shift * jnp.stack([height * shift_y, width * shift_x]),
    )


def affine_matrix(moves: Affine) -> Float[Array, "2 3"]:
    """Return the inverse map: the source position of each pixel of the result.

    Both are (y, x) in pixels from the centre, y down: source = matrix @ (y, x, 1). It is the
    inverse of shift · rotate · shear · zoom in closed form, and exactly the identity at rest.
    """
    angle = jnp.deg2rad(moves.rotation)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    slant = jnp.tan(jnp.deg2rad(moves.shear))
    rows = jnp.stack([jnp.stack([cos, sin]), jnp.stack([slant * cos - sin, slant * sin + cos])])
    linear = rows / moves.zoom[:, None]
    offset = -jnp.sum(linear * moves.shift[None, :], axis=1)
    return jnp.concatenate([linear, offset[:, None]], axis=1)


def resample(
    image: Float32[Array, "h w c"], matrix: Float[Array, "2 3"], fill: Fill
) -> Float32[Array, "h w c"]:
    """Read an image at the positions of an inverse map, by bilinear interpolation.

    Args:
      image: at least 2x2.
      matrix: as `affine_matrix` returns.
      fill: "nearest" extends the border outwards; "constant" surrounds the image with zeros and
        interpolates between the two (SciPy's "grid-constant", Keras's "constant": no jump at the
        edge). Use it if the border is not background.

    Returns:
      The image, of the same shape.
    """
    height, width, channels = image.shape
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2

    # A border of one zero pixel; then "nearest" extends zeros outwards.
    pad = 1 if fill == "constant" else 0
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    rows, columns, _ = padded.shape

    def read(row: Float[Array, "3"], size: int) -> tuple[Array, Array]:
        """Return the lower of the two pixels to interpolate, and the weight of the other."""
        place = row[0] * y + row[1] * x + (row[2] + (size - 1) / 2)
        place = jnp.clip(place, 0, size - 1)
        lower = jnp.minimum(place.astype(jnp.int32), size - 2)
        return lower, (place - lower.astype(jnp.float32))[..., None]

    top, down = read(matrix[0], rows)
    left, right = read(matrix[1], columns)

    # Four flat gathers that are known to be in bounds: the fastest of what was tried on CPUs (one
    # gather of 2x2 windows, of rows of four, products with hat functions), one kernel on GPUs.
    flat = padded.reshape(rows * columns, channels)
    corner = top * columns + left
    a, b, c, d = (
        flat.at[corner + step].get(mode="promise_in_bounds")
        for step in (0, 1, columns, columns + 1)
    )
    # Weighted sums, not a + w * (b - a), which would not return b exactly at w = 1.
    above = (1 - right) * a + right * b
    below = (1 - right) * c + right * d
    return (1 - down) * above + down * below


def draw_rectangle(
    key: Key, probability: Float[Array, ""], height: int, width: int
) -> Bool[Array, "h w"]:
    """Draw the mask of random erasing: a rectangle or nothing (Zhong et al. 2017, algorithm 1).

    The aspect is drawn on a log scale, so that tall is as likely as wide. Where the paper draws
    again because a rectangle does not fit, the side is clipped to the image's, without a loop.
    """
    hit, area, aspect, top, left = jax.random.uniform(key, (5,), jnp.float32)
    low, high = _ERASE_AREA
    area = (low + (high - low) * area) * height * width
    low, high = np.log(_ERASE_ASPECT).tolist()
    aspect = jnp.exp(low + (high - low) * aspect)

    def span(length: Float[Array, ""], start: Float[Array, ""], side: int) -> Bool[Array, " side"]:
        length = jnp.minimum(jnp.round(length), side)
        first = jnp.floor(start * (side - length + 1))
        place = jnp.arange(side, dtype=jnp.float32)
        return (place >= first) & (place < first + length)

    rows = span(jnp.sqrt(area * aspect), top, height)
    columns = span(jnp.sqrt(area / aspect), left, width)
    return (hit < probability) & rows[:, None] & columns[None, :]
