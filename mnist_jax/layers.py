"""The convolution and the pooling that are fast on every backend.

XLA's own gradient of a convolution is slow on CPUs, inside `lax.scan` more than ten times so
(jax issue 12868). Here the gradients are written as what a CPU is good at: the input gradient as a
forward convolution with the flipped kernel, the kernel gradient as matrix products over patches.
Other backends keep XLA's convolution.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")

Pads = tuple[tuple[int, int], tuple[int, int]]


def conv2d(
    x: Float[Array, "n h w cin"], kernel: Float[Array, "kh kw cin cout"], padding: str = "SAME"
) -> Float[Array, "n h2 w2 cout"]:
    """Cross-correlates images with a kernel, stride 1 (a deep-learning "convolution").

    Args:
      x: images, channels last.
      kernel: one filter an output channel.
      padding: "SAME" keeps height and width (the odd pixel of an even kernel goes after); "VALID"
        gives h - kh + 1.

    Returns:
      The responses, of x's dtype.
    """
    rows, columns = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (1, 1), padding)
    pads = (rows, columns)
    if jax.default_backend() != "cpu":
        return _forward(x, kernel, pads)
    return _conv2d_cpu(x, kernel, pads)


def max_pool(x: Float[Array, "n h w c"], window: int) -> Float[Array, "n h2 w2 c"]:
    """Maximum over windows that do not overlap; rows and columns left over at the end are dropped.

    Strided maxima, because the gradient of `lax.reduce_window` (select-and-scatter) is slow.
    """
    height, width = (size // window * window for size in x.shape[1:3])
    x = x[:, :height, :width]
    columns = [x[:, :, i::window] for i in range(window)]
    x = columns[0]
    for column in columns[1:]:
        x = jnp.maximum(x, column)
    rows = [x[:, i::window] for i in range(window)]
    x = rows[0]
    for row in rows[1:]:
        x = jnp.maximum(x, row)
    return x


def _forward(x: Array, kernel: Array, pads: Pads) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=_LAYOUT)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv2d_cpu(x: Array, kernel: Array, pads: Pads) -> Array:
    return _forward(x, kernel, pads)


def _conv2d_cpu_fwd(x: Array, kernel: Array, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _forward(x, kernel, pads), (x, kernel)


def _conv2d_cpu_bwd(pads: Pads, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    (top, bottom), (left, right) = pads
    kh, kw = kernel.shape[:2]
    full = ((kh - 1 - top, kh - 1 - bottom), (kw - 1 - left, kw - 1 - right))
    return _forward(g, flipped, full), _kernel_gradient(x, g, kernel, pads)


def _kernel_gradient(x: Array, g: Array, kernel: Array, pads: Pads) -> Array:
    """Patches^T g, a row of the kernel at a time: [kw cin, pixels] @ [pixels, cout].

    A row at a time, because patches of whole windows no longer fit the second-level cache and
    those of single pixels make products too thin to be fast.
    """
    kh, kw, cin, cout = kernel.shape
    height, width = g.shape[1:3]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    g = g.reshape(-1, cout)

    def row_gradient(i: int) -> Array:
        shifted = [x[:, i : i + height, j : j + width] for j in range(kw)]
        patches = jnp.concatenate(shifted, axis=3).reshape(-1, kw * cin)
        return lax.dot_general(patches, g, (((0,), (0,)), ((), ())))

    return jnp.stack([row_gradient(i) for i in range(kh)]).reshape(kernel.shape)


_conv2d_cpu.defvjp(_conv2d_cpu_fwd, _conv2d_cpu_bwd)
