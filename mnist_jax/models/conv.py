"""Convolution, max-pooling and channel sums that are fast on every platform.

XLA's own gradients of a convolution are up to hundreds of times too slow on a CPU (jax issue
12868). There both are computed by forward convolutions, which are fast: the gradient of the images
convolves the output's gradient with the flipped kernel; the gradient of the kernel convolves the
images with the output's gradient as the kernel, after swapping images and channels. Large kernels,
and gradients of kernels of many channels, use Winograd's algorithm, which takes fewer
multiplications. Depthwise convolutions, and convolutions of one channel, are sums of shifted
images, which XLA fuses with the operations that follow. Other platforms use XLA's convolution and
its gradients: the platform that a program is lowered for decides (`lax.platform_dependent`).
"""

import itertools
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mnist_jax.models import winograd
from mnist_jax.runtime.xla import barrier

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_MAX_TERMS = 64  # a sum of more shifted images takes long to compile
_MANY_CHANNELS = 1024  # input times output channels: from here Winograd's gradients are faster
_MANY_WEIGHTS = 18_000  # of a kernel: from here Winograd's forward convolution is faster
_VERY_MANY_WEIGHTS = 72_000  # the same for prediction with small kernels
_CHUNKS = 4  # of rows in the kernel's gradient: a single convolution keeps only one core busy

Pair = tuple[int, int]
Shape = tuple[int, ...]


class _Geometry(NamedTuple):
    """Positions of a kernel on images; only gradients of strided convolutions need dilation."""

    stride: int
    pads: tuple[Pair, Pair]  # before and after the rows, and the columns; negative: cropped
    image_dilation: int = 1
    kernel_dilation: int = 1


def conv2d(
    x: Float[Array, "n h w cin"],
    kernel: Float[Array, "kh kw group cout"],
    padding: str = "SAME",
    stride: int = 1,
) -> Float[Array, "n h2 w2 cout"]:
    """Cross-correlate images with a kernel (a deep-learning "convolution").

    Args:
      x: images, channels last.
      kernel: one filter per output channel, over all input channels (group = cin) or over one
        each (group = 1, cout = cin: a depthwise convolution).
      padding: "SAME" gives ceil(h / stride) rows (the odd pixel of an even kernel goes after);
        "VALID" gives ceil((h - kh + 1) / stride).
      stride: pixels from one window to the next.

    Returns:
      The output channels, of x's dtype.

    Raises:
      ValueError: the kernel is neither ungrouped nor depthwise, or "VALID" leaves no place for a
        kernel larger than the images.
    """
    geometry = _geometry(x, kernel, padding, stride)
    cpu, default = (partial(convolve, geometry=geometry) for convolve in (_convolve, _native))
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def max_pool(x: Float[Array, "n h w c"], window: int) -> Float[Array, "n h2 w2 c"]:
    """Return the maximum of each non-overlapping window; rows and columns left over are dropped.

    The gradient goes to the first maximum of a window, as in `lax.reduce_window`, whose own
    gradient (select-and-scatter) is slow.
    """
    height, width = (size // window * window for size in x.shape[1:3])
    return x if window == 1 else _max_pool(x[:, :height, :width], window)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv2d_max_pool(
    x: Float[Array, "n h w cin"],
    kernel: Float[Array, "kh kw group cout"],
    window: int,
    padding: str = "SAME",
) -> Float[Array, "n h2 w2 cout"]:
    """Compute `max_pool(conv2d(x, kernel, padding), window)`, also fast without gradients."""
    geometry = _geometry(x, kernel, padding)

    def on_cpu(x: Array, kernel: Array) -> Array:
        if _prefers_xla(x, kernel, geometry, predicts=True):  # fused with everything around it
            return _native_max_pool(_native(x, kernel, geometry), window)
        outputs = _convolve(x, kernel, geometry)
        if window > 2:  # a single fused loop over a large window is slow
            return _native_max_pool(lax.optimization_barrier(outputs), window)
        return lax.optimization_barrier(max_pool(outputs, window))

    def elsewhere(x: Array, kernel: Array) -> Array:
        return max_pool(_native(x, kernel, geometry), window)

    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def _conv2d_max_pool_fwd(x: Array, kernel: Array, window: int, padding: str) -> tuple:
    return jax.vjp(lambda x, kernel: max_pool(conv2d(x, kernel, padding), window), x, kernel)


conv2d_max_pool.defvjp(_conv2d_max_pool_fwd, lambda _, __, pull, g: pull(g))


def _native_max_pool(x: Array, window: int) -> Array:
    windows = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, windows, windows, "VALID") if window > 1 else x


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def spread(values: Float[Array, "c"], shape: Shape) -> Float[Array, "n h w c"]:
    """Broadcast one value per channel to an array of this shape; gradient: `channel_sums`."""
    return jnp.broadcast_to(values, shape)


@jax.custom_vjp
def channel_sums(x: Float[Array, "n h w c"]) -> Float[Array, "c"]:
    """Sum each channel; over the rows first, which is several times as fast on a CPU."""
    return barrier(x.sum(1, dtype=jnp.float32)).sum((0, 1)).astype(x.dtype)


spread.defvjp(lambda v, shape: (spread(v, shape), None), lambda _, __, g: (channel_sums(g),))
channel_sums.defvjp(lambda x: (channel_sums(x), x), lambda x, g: (spread(g, x.shape),))


def _geometry(x: Array, kernel: Array, padding: str, stride: int = 1) -> _Geometry:
    sizes, sides = x.shape[1:3], kernel.shape[:2]
    if kernel.shape[2] != x.shape[3] and not _is_depthwise(x, kernel):
        raise ValueError(
            f"a kernel of shape {kernel.shape} does not fit {x.shape[3]} input channels: its third "
            "axis must be all of them, or 1 with one output for each (depthwise)"
        )
    if padding == "VALID" and (sides[0] > sizes[0] or sides[1] > sizes[1]):
        raise ValueError(f"a kernel of {sides} is larger than images of {sizes}: pad them (SAME)")
    rows, columns = lax.padtype_to_pads(sizes, sides, (stride, stride), padding)
    return _Geometry(stride, (rows, columns))


def _native(x: Array, kernel: Array, geometry: _Geometry) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(geometry.stride, geometry.stride),
        padding=geometry.pads,
        lhs_dilation=(geometry.image_dilation, geometry.image_dilation),
        rhs_dilation=(geometry.kernel_dilation, geometry.kernel_dilation),
        dimension_numbers=_LAYOUT,
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


def _is_depthwise(x: Array, kernel: Array) -> bool:
    return kernel.shape[2] == 1 < x.shape[3] == kernel.shape[3]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, geometry: _Geometry) -> Array:
    """Convolve on a CPU."""
    if _prefers_xla(x, kernel, geometry):
        return _native(x, kernel, geometry)
    if kernel.shape[2] > 1:
        return winograd.convolve(x, kernel, geometry.pads)
    shifted = _shifted(x.astype(jnp.float32), kernel.shape[:2], geometry)
    weights = kernel.astype(jnp.float32)
    products = [image * weights[None, i : i + 1, j : j + 1, 0] for (i, j), image in shifted.items()]
    return sum(products[1:], products[0]).astype(x.dtype)


def _convolve_fwd(x: Array, kernel: Array, geometry: _Geometry) -> tuple:
    return lax.optimization_barrier(_convolve(x, kernel, geometry)), (x, kernel)


def _convolve_bwd(geometry: _Geometry, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    """Compute both gradients by `_convolve`, so that second derivatives are as fast."""
    x, kernel = saved
    depthwise = _is_depthwise(x, kernel)
    x_gradient = _image_gradient(x.shape, kernel, g, geometry)
    x, g = x.astype(jnp.float32), g.astype(jnp.float32)  # sums over a whole batch
    if depthwise:
        shifted = _shifted(x, kernel.shape[:2], geometry)
        sums = jnp.stack([channel_sums(image * g) for image in shifted.values()])
        return x_gradient, sums.reshape(kernel.shape).astype(kernel.dtype)
    if math.prod(kernel.shape[2:]) >= _MANY_CHANNELS and _suits_winograd(x, kernel, geometry):
        # One after the other: each keeps all cores busy.
        x_gradient, g = lax.optimization_barrier((x_gradient, g))
        by_winograd = winograd.kernel_gradient(x, g, geometry.pads)
        return x_gradient, by_winograd.astype(kernel.dtype)
    images, rows = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    size = -(-len(rows) // _CHUNKS)
    parts = [
        _kernel_gradient(images, rows[i : i + size], i * geometry.stride, kernel.shape, geometry)
        for i in range(0, len(rows), size)
    ]
    return x_gradient, sum(parts[1:], parts[0]).transpose(1, 2, 0, 3).astype(kernel.dtype)


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def _prefers_xla(x: Array, kernel: Array, geometry: _Geometry, predicts: bool = False) -> bool:
    """Return True if XLA's convolution is the fastest on a CPU (`experiments.layer_profile`)."""
    if kernel.shape[2] == 1:
        return kernel.shape[0] * kernel.shape[1] > _MAX_TERMS
    side = min(kernel.shape[:2])
    many = _VERY_MANY_WEIGHTS if predicts and side < 5 else _MANY_WEIGHTS
    return side < 3 or kernel.size < many or not _suits_winograd(x, kernel, geometry)


def _suits_winograd(x: Array, kernel: Array, geometry: _Geometry) -> bool:
    """Return True if Winograd's algorithm supports this convolution."""
    sides = kernel.shape[:2]
    return (
        min(sides) >= 2
        and max(sides) <= winograd.MAX_SIDE
        and kernel.shape[2] == x.shape[3]
        and x.dtype == jnp.float32
        and geometry == _Geometry(1, geometry.pads)
    )


def _image_gradient(shape: Shape, kernel: Array, g: Array, geometry: _Geometry) -> Array:
    """Convolve the output's gradient with the flipped kernel; stride and image dilation swap."""
    stride, pads, image_dilation, kernel_dilation = geometry
    new_pads = []
    for axis, (before, _) in enumerate(pads):
        reach = (kernel.shape[axis] - 1) * kernel_dilation
        last_pixel = (shape[1 + axis] - 1) * image_dilation
        last_place = (g.shape[1 + axis] - 1) * stride
        new_pads.append((reach - before, last_pixel - last_place + before))
    flipped = kernel[::-1, ::-1]
    if kernel.shape[2] == shape[3]:  # ungrouped
        flipped = flipped.swapaxes(2, 3)
    swapped = _Geometry(image_dilation, (new_pads[0], new_pads[1]), stride, kernel_dilation)
    return _convolve(g, flipped, swapped)


def _kernel_gradient(
    images: Array, rows: Array, start: int, kernel_shape: Shape, geometry: _Geometry
) -> Float[Array, "cin kh kw cout"]:
    """Convolve images with some rows of the output's gradient, which begin at image row `start`.

    Stride and kernel dilation swap. The axes are cin, h, w, n of images and h, w, n, cout of rows.
    """
    stride, ((top, _), (left, _)), image_dilation, kernel_dilation = geometry

    def pad(axis: int, before: int) -> Pair:
        window = (kernel_shape[axis] - 1) * kernel_dilation + (rows.shape[axis] - 1) * stride
        return before, window - (images.shape[1 + axis] - 1) * image_dilation - before

    inner = image_dilation - 1
    edges = [(0, 0, 0), (*pad(0, top - start), inner), (0, 0, inner), (0, 0, 0)]
    pads = ((0, 0), pad(1, left))
    images = lax.pad(images, jnp.zeros((), images.dtype), edges)
    return _convolve(images, rows, _Geometry(kernel_dilation, pads, 1, stride))


def _shifted(x: Array, sides: Shape, geometry: _Geometry) -> dict[Pair, Array]:
    """Return the shifted and strided images that each element (i, j) of a kernel multiplies."""
    stride, (rows, columns), image_dilation, kernel_dilation = geometry
    inner = image_dilation - 1
    edges = [(0, 0, 0), (*rows, inner), (*columns, inner), (0, 0, 0)]
    x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), edges))

    def slices(axis: int) -> list[slice]:
        reach = (sides[axis] - 1) * kernel_dilation
        length = x.shape[1 + axis] - reach
        return [slice(i, i + length, stride) for i in range(0, reach + 1, kernel_dilation)]

    places = itertools.product(enumerate(slices(0)), enumerate(slices(1)))
    return {(i, j): x[:, down, across] for (i, down), (j, across) in places}


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, window: int) -> Array:
    return _maxima(x, window)[0]


def _max_pool_fwd(x: Array, window: int) -> tuple[Array, Array]:
    best, first = _maxima(x, window)
    return barrier(best), barrier(first)


def _maxima(x: Array, window: int) -> tuple[Array, Array]:
    """Return each window's maximum and the index of its first occurrence in the window."""
    places = [x[:, i::window, j::window] for i in range(window) for j in range(window)]
    best, first = places[0], jnp.zeros(places[0].shape, jnp.int16)
    for place, values in enumerate(places[1:], 1):
        first = jnp.where(values > best, jnp.int16(place), first)
        best = jnp.maximum(best, values)
    return best, first


def _max_pool_bwd(window: int, first: Array, g: Array) -> tuple[Array]:
    def widen(pooled: Array) -> Array:
        n, h, w, c = pooled.shape
        wide = jnp.broadcast_to(pooled[:, :, None, :, None], (n, h, window, w, window, c))
        return wide.reshape(n, h * window, w * window, c)

    rows, columns = (jnp.arange(size * window) % window for size in g.shape[1:3])
    place = (rows[:, None] * window + columns[None]).astype(jnp.int16)[None, :, :, None]
    return (jnp.where(widen(first) == place, widen(g), jnp.zeros((), g.dtype)),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)
