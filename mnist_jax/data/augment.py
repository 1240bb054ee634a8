"""Augmentation on the device: pure functions `(key, image) -> image`.

However many geometric transforms are composed, an image is resampled once. The strengths are traced
values: changing them never recompiles, and members of one program may differ. Which transforms are
compiled in at all is static, so what is off costs nothing:

    strength = read_strength(config)          # {rotation: 10.0, zoom: 0.1, ..., flip: 0.0}
    transform = make_transform(strength, fill="nearest")  # None when everything is off
    images = transform(key, images, strength)
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, UInt8

from mnist_jax.runtime.prng import Key

Fill = Literal["nearest", "constant"]

# Random erasing (Zhong et al. 2017): the share of the image that a rectangle covers, and its height
# over its width. The paper goes up to a share of 0.4; torchvision and Keras made 0.33 common.
_ERASE_AREA = (0.02, 0.33)
_ERASE_ASPECT = (0.3, 1 / 0.3)


class Strength(NamedTuple):
    """How strong each transform is; 0 is off. A leading axis of the leaves is one of members."""

    rotation: Float[Array, "*members"]  # degrees: uniform in ±rotation
    zoom: Float[Array, "*members"]  # each axis on its own: uniform in 1 ± zoom; below 1
    shift: Float[Array, "*members"]  # fraction of the side: uniform in ±shift on each axis
    shear: Float[Array, "*members"]  # degrees: uniform in ±shear; below 90
    erase: Float[Array, "*members"]  # probability of erasing one rectangle
    flip: Float[Array, "*members"]  # probability of mirroring left and right


_ALL = frozenset(Strength._fields)
_AFFINE = frozenset({"rotation", "zoom", "shift", "shear"})


class Affine(NamedTuple):
    """What is done to a picture, in this order: zoom, shear, rotate, shift. Pairs are (y, x)."""

    zoom: Float[Array, "2"]  # magnification
    shear: Float[Array, ""]  # degrees; positive leans the top to the right
    rotation: Float[Array, ""]  # degrees, counter-clockwise
    shift: Float[Array, "2"]  # pixels, down and to the right


Transform = Callable[[Key, Float32[Array, "b h w c"], Strength], Float32[Array, "b h w c"]]


def read_strength(config: Any) -> Strength:
    """The strengths that a config names, one key for each field of `Strength`."""
    return Strength(*(jnp.asarray(config[name], jnp.float32) for name in Strength._fields))


def make_transform(strength: Strength, fill: Fill) -> Transform | None:
    """The function `(key, images, strength) -> images` with only those parts that are on.

    Args:
      strength: concrete values, not traced; a part is on if any member has it on.
      fill: what lies outside the image, see `resample`.

    Returns:
      `augment_batch` with its static arguments bound, or None when everything is off.
    """
    on = frozenset(name for name, value in strength._asdict().items() if np.any(value))
    return partial(augment_batch, fill=fill, on=on) if on else None


def normalize(images: UInt8[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """Bytes to [0, 1]: x / 255."""
    return images.astype(jnp.float32) / 255


def augment_batch(
    key: Key,
    images: Float32[Array, "b h w c"],
    strength: Strength,
    *,
    fill: Fill,
    on: frozenset[str] = _ALL,
) -> Float32[Array, "b h w c"]:
    """`augment` for each image of a batch, with a key of its own."""
    one = partial(augment, fill=fill, on=on)
    keys = jax.random.split(key, len(images))
    return jax.vmap(one, in_axes=(0, 0, None))(keys, images, strength)


def augment(
    key: Key,
    image: Float32[Array, "h w c"],
    strength: Strength,
    *,
    fill: Fill,
    on: frozenset[str] = _ALL,
) -> Float32[Array, "h w c"]:
    """Mirrors, moves and erases one image at random.

    Args:
      key: consumed; the draws of one part do not depend on which others are on.
      image: values in [0, 1]; they stay there. At least 2x2.
      strength: scalars. With all of them 0 the image comes back exactly.
      fill: what lies outside the image, see `resample`.
      on: the fields of `Strength` that are compiled in; one of `_AFFINE` brings the others.

    Returns:
      The image, of the same shape.
    """
    height, width, _ = image.shape
    affine_key, mask_key, noise_key, flip_key = jax.random.split(key, 4)
    if "flip" in on:
        mirrored = jax.random.bernoulli(flip_key, strength.flip)
        image = jnp.where(mirrored, image[:, ::-1], image)
    if on & _AFFINE:
        moves = draw_affine(affine_key, strength, height, width)
        image = resample(image, affine_matrix(moves), fill)
    if "erase" in on:
        # Noise, each pixel on its own: the fill that the paper chose of the four it compared.
        noise = jax.random.uniform(noise_key, image.shape)
        mask = draw_rectangle(mask_key, strength.erase, height, width)
        image = jnp.where(mask[..., None], noise, image)
    return image


def draw_affine(key: Key, strength: Strength, height: int, width: int) -> Affine:
    """Draws each parameter uniformly in the range that its strength sets.

    Zoom is drawn for each axis on its own, as Keras's `ImageDataGenerator` does: handwriting varies
    in proportions as well as in size. A shift's strength is a fraction of the image's side.
    """
    rotation, zoom_y, zoom_x, shear, shift_y, shift_x = jax.random.uniform(key, (6,), minval=-1)
    return Affine(
        zoom=1 + strength.zoom * jnp.stack([zoom_y, zoom_x]),
        shear=strength.shear * shear,
        rotation=strength.rotation * rotation,
        shift=strength.shift * jnp.stack([height * shift_y, width * shift_x]),
    )


def affine_matrix(moves: Affine) -> Float[Array, "2 3"]:
    """The inverse map: where a pixel of the result is read from in the source.

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
    """Reads an image at the places that an inverse map names, by bilinear interpolation.

    Args:
      image: at least 2x2.
      matrix: as `affine_matrix` returns.
      fill: "nearest" extends the border outwards; "constant" surrounds the image with zeros and
        interpolates between the two (SciPy's "grid-constant", Keras's "constant": no jump at the
        edge). Use it where the border is not background.

    Returns:
      The image, of the same shape.
    """
    height, width, channels = image.shape
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2

    # One pixel of zeros around, then "nearest": from there outwards all is zero.
    pad = 1 if fill == "constant" else 0
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    rows, columns, _ = padded.shape

    def read(row: Float[Array, "3"], size: int) -> tuple[Array, Array]:
        """The lower of the two pixels to interpolate, and the weight of the other."""
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
    """The mask of random erasing: one rectangle, or nothing (Zhong et al. 2017, algorithm 1).

    The aspect is drawn on a log scale, so that tall is as likely as wide. Where the paper draws
    again because a rectangle does not fit, its side is cut to the image's: no loop, seldom needed.
    """
    hit, area, aspect, top, left = jax.random.uniform(key, (5,))
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
