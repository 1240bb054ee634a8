"""Image quality: pixel error, PSNR and structural similarity."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

_SIGMA, _RADIUS = 1.5, 5  # of the window of SSIM


class Report(NamedTuple):
    """Errors of restored images over a whole split."""

    loss: Float32[Array, ""]
    accuracy: Float32[Array, ""]  # NaN: there are no classes
    errors: Int32[Array, ""]  # 0
    pixel_error: Float32[Array, ""]  # mean absolute difference, in grey levels of 255
    psnr: Float32[Array, ""]  # peak signal-to-noise ratio of all pixels, in dB
    ssim: Float32[Array, ""]  # mean over images


def compare(restored: Float32[Array, "n pixels"], clean: Float32[Array, "n pixels"]) -> Report:
    """Evaluate restored images, flat, of values in [0, 1]; the loss is their squared error."""
    side = math.isqrt(clean.shape[1])
    pairs = tuple(x.reshape(-1, side, side) for x in (restored, clean))
    return Report(
        loss=jnp.square(restored - clean).mean(),
        accuracy=jnp.float32(jnp.nan),
        errors=jnp.int32(0),
        pixel_error=255 * jnp.abs(restored - clean).mean(),
        psnr=psnr(restored, clean),
        ssim=jax.lax.map(lambda pair: ssim(*pair), pairs, batch_size=500).mean(),
    )


def psnr(pixels: Float32[Array, "*shape"], clean: Float32[Array, "*shape"]) -> Float32[Array, ""]:
    """Peak signal-to-noise ratio in dB over all pixels, for a peak of 1."""
    return -10 * jnp.log10(jnp.square(pixels - clean).mean())


def ssim(a: Float32[Array, "h w"], b: Float32[Array, "h w"]) -> Float32[Array, ""]:
    """Structural similarity of two images of values in [0, 1]: 1 if they are the same.

    Equation 13 of Wang et al. 2004, with its Gaussian window of 11x11 pixels, averaged over all
    positions of the window within the image.
    """
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = jnp.asarray(weights / weights.sum(), jnp.float32)

    def blur(x: Float32[Array, "h w"]) -> Float32[Array, "h2 w2"]:
        valid = jax.vmap(lambda line: jnp.convolve(line, window, mode="valid"))
        return valid(valid(x).T).T

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * (2 * covariance + c2) / (var_a + var_b + c2)).mean()
