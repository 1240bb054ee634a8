"""Images made easier to compare, by pure functions of bytes: upright, smooth, at five places.

Results are bytes again, rounded, so that they take as little memory as they did and distances
between them stay exact (`knn`). Images are processed in batches, which bounds the memory.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, UInt8

from mnist_jax.data.geometry import resample

Images = UInt8[Array, "n h w c"]

_AT_ONCE = 1_000  # images
_FLAT = 1e-6  # variance of the row, in squared pixels: what is below comes from rounding


@jax.jit
def deskew(images: Images) -> Images:
    """Shear each image until its rows lean neither way, and centre its centre of mass.

    The slant is the slope of the line on which a row's centre is expected, by least squares over
    the image's mass: the covariance of column and row over the variance of the row. Bilinear, black
    outside. An image without mass, or with all of it in one row, has no slant.
    """
    return lax.map(lambda image: _bytes(_deskew(image)), images, batch_size=_AT_ONCE)


@jax.jit
def blur(images: Images, sigma: float | Float[Array, ""]) -> Images:
    """Convolve each image with a Gaussian of standard deviation `sigma` (in pixels, above 0).

    Black outside.
    """
    rows, columns = (_gaussian(side, sigma) for side in images.shape[1:3])

    def smooth(image: UInt8[Array, "h w c"]) -> UInt8[Array, "h w c"]:
        values = image.astype(jnp.float32)
        return _bytes(jnp.einsum("ih,hwc,jw->ijc", rows, values, columns, precision="highest"))

    return lax.map(smooth, images, batch_size=_AT_ONCE)


@jax.jit
def shifts(images: Images) -> UInt8[Array, "m h w c"]:
    """Return all images, then all of them moved by one pixel down, up, right and left."""
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return jnp.concatenate([padded[:, y : y + height, x : x + width] for y, x in places])


def _deskew(image: UInt8[Array, "h w c"]) -> Float32[Array, "h w c"]:
    values = image.astype(jnp.float32)
    mass = values.sum(axis=2)
    mass /= jnp.maximum(mass.sum(), 1)
    y, x = (jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2 for side in mass.shape)
    centre_y, centre_x = jnp.sum(mass.sum(axis=1) * y), jnp.sum(mass.sum(axis=0) * x)
    y, x = y - centre_y, x - centre_x
    spread = jnp.sum(mass.sum(axis=1) * y**2)
    covariance = jnp.sum(mass * y[:, None] * x[None, :])
    slant = jnp.where(spread > _FLAT, covariance / spread, 0)
    source = [[1, 0, centre_y], [slant, 1, centre_x]]
    return resample(values, jnp.asarray(source, jnp.float32), "constant")


def _gaussian(side: int, sigma: float | Float[Array, ""]) -> Float32[Array, "side side"]:
    """Row i: how much of each pixel goes into pixel i."""

    def bell(distance: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
        return jnp.exp(-0.5 * (distance / sigma) ** 2)

    place = jnp.arange(side, dtype=jnp.float32)
    reach = jnp.arange(1 - side, side, dtype=jnp.float32)  # all that a pixel's light can go
    return bell(place[:, None] - place[None, :]) / bell(reach).sum()


def _bytes(values: Float32[Array, "*shape"]) -> UInt8[Array, "*shape"]:
    return jnp.round(values).astype(jnp.uint8)
