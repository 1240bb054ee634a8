"""The convolution, the pooling and the sums of channels that are fast on every backend.

XLA's own gradients of a convolution are hundreds of times slower than they could be on a CPU (jax
issue 12868). Here both are written as what a CPU is good at, forward convolutions: of the output's
gradient with the flipped kernel, and of the images with the output's gradient for a kernel, where
images and channels have changed places. Kernels of many weights, and the gradients of kernels of
many channels, go Winograd's way, by fewer multiplications. Convolutions of one channel into many,
and those of each channel alone, are sums of shifted images, fused with what comes after them.
Other backends keep XLA's convolution and its gradients.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mnist_jax.models import winograd
from mnist_jax.types import PyTree

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_MAX_TAPS = 64  # sums of more shifted images take long to compile
_MANY_CHANNELS = 1024  # of images times those of responses: then gradients gain by Winograd's way
_MANY_WEIGHTS = 18_000  # of a kernel: then responses do
_VERY_MANY_WEIGHTS = 72_000  # then those of small kernels do in predicting too
_PARTS = 4  # of the rows in the kernel's gradient: one convolution alone keeps one core busy

Pair = tuple[int, int]
Shape = tuple[int, ...]


class _Geometry(NamedTuple):
    """How a kernel moves over images: rows first, columns second."""

    stride: Pair
    pads: tuple[Pair, Pair]  # before and after; negative ones cut off
    image_dilation: Pair = (1, 1)
    kernel_dilation: Pair = (1, 1)


def conv2d(
    x: Float[Array, "n h w cin"],
    kernel: Float[Array, "kh kw group cout"],
    padding: str = "SAME",
    stride: int = 1,
) -> Float[Array, "n h2 w2 cout"]:
    """Cross-correlates images with a kernel (a deep-learning "convolution").

    Args:
      x: images, channels last.
      kernel: one filter an output channel, of all input channels (group = cin), of one each
        (group = 1, cout = cin: a depthwise convolution) or of a group of them.
      padding: "SAME" gives ceil(h / stride) rows (the odd pixel of an even kernel goes after);
        "VALID" gives ceil((h - kh + 1) / stride).
      stride: pixels from one window to the next.

    Returns:
      The responses, of x's dtype.

    Raises:
      ValueError: "VALID" leaves no place for a kernel larger than the images.
    """
    geometry = _geometry(x, kernel, padding, stride)
    ours = kernel.shape[2] == x.shape[3] or _is_depthwise(x, kernel)
    if jax.default_backend() != "cpu" or not ours:
        return _native(x, kernel, geometry)
    return _convolve(x, kernel, geometry)


def max_pool(x: Float[Array, "n h w c"], window: int) -> Float[Array, "n h2 w2 c"]:
    """Maximum over windows that do not overlap; rows and columns left over at the end are dropped.

    The gradient goes to the first maximum of a window, as in `lax.reduce_window`, whose own
    (select-and-scatter) is slow.
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
    """`max_pool(conv2d(x, kernel, padding), window)`, which is quick at predicting too."""
    if jax.default_backend() != "cpu":
        return max_pool(conv2d(x, kernel, padding), window)
    geometry = _geometry(x, kernel, padding)
    if _by_xla(x, kernel, geometry, predicts=True):  # one operation with all around it
        return _native_max_pool(_native(x, kernel, geometry), window)
    responses = conv2d(x, kernel, padding)
    if window > 2:  # too many places for one loop to make
        return _native_max_pool(kept(responses), window)
    return kept(max_pool(responses, window))


def _conv2d_max_pool_fwd(x: Array, kernel: Array, window: int, padding: str) -> tuple:
    return jax.vjp(lambda x, kernel: max_pool(conv2d(x, kernel, padding), window), x, kernel)


conv2d_max_pool.defvjp(_conv2d_max_pool_fwd, lambda _, __, pull, g: pull(g))


def _native_max_pool(x: Array, window: int) -> Array:
    windows = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, windows, windows, "VALID") if window > 1 else x


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def spread(values: Float[Array, "c"], shape: Shape) -> Float[Array, "n h w c"]:
    """A number a channel, at every place of an array of this shape; gradient: `channel_sums`."""
    return jnp.broadcast_to(values, shape)


@jax.custom_vjp
def channel_sums(x: Float[Array, "n h w c"]) -> Float[Array, "c"]:
    """The sum of each channel: down the rows first, as a CPU is several times as fast."""
    return kept(x.sum(1, dtype=jnp.float32)).sum((0, 1)).astype(x.dtype)


spread.defvjp(lambda v, shape: (spread(v, shape), None), lambda _, __, g: (channel_sums(g),))
channel_sums.defvjp(lambda x: (channel_sums(x), x), lambda x, g: (spread(g, x.shape),))


def kept(x: PyTree) -> PyTree:
    """The same; on a CPU what reads it later does not compute it once more, fused into it."""
    return lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x


def _geometry(x: Array, kernel: Array, padding: str, stride: int = 1) -> _Geometry:
    strides = (stride, stride)
    sizes, sides = x.shape[1:3], kernel.shape[:2]
    if padding == "VALID" and (sides[0] > sizes[0] or sides[1] > sizes[1]):
        raise ValueError(f"a kernel of {sides} is larger than images of {sizes}: pad them (SAME)")
    rows, columns = lax.padtype_to_pads(sizes, sides, strides, padding)
    return _Geometry(strides, (rows, columns))


def _native(x: Array, kernel: Array, geometry: _Geometry) -> Array:
    groups = x.shape[3] // kernel.shape[2]
    return lax.conv_general_dilated(
        x, kernel, *geometry, dimension_numbers=_LAYOUT, feature_group_count=groups
    )


def _is_depthwise(x: Array, kernel: Array) -> bool:
    return kernel.shape[2] == 1 < x.shape[3] == kernel.shape[3]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, kernel: Array, geometry: _Geometry) -> Array:
    if _by_xla(x, kernel, geometry):
        return _native(x, kernel, geometry)
    if kernel.shape[2] > 1:
        return winograd.convolve(x, kernel, geometry.pads)
    taps = _taps(x.astype(jnp.float32), kernel.shape[:2], geometry)
    weights = kernel.astype(jnp.float32)
    products = [tap * weights[None, i : i + 1, j : j + 1, 0] for (i, j), tap in taps.items()]
    return sum(products[1:], products[0]).astype(x.dtype)


def _convolve_fwd(x: Array, kernel: Array, geometry: _Geometry) -> tuple:
    return kept(_convolve(x, kernel, geometry)), (x, kernel)


def _convolve_bwd(geometry: _Geometry, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    """Both gradients by convolutions, so that the gradients' gradients are as fast."""
    x, kernel = saved
    to_x, to_kernel = _transposed(x.shape, kernel.shape, g.shape, geometry)
    depthwise = _is_depthwise(x, kernel)
    flipped = kernel[::-1, ::-1] if depthwise else kernel[::-1, ::-1].swapaxes(2, 3)
    x_gradient = _convolve(g, flipped, to_x)
    x, g = x.astype(jnp.float32), g.astype(jnp.float32)  # sums of a whole batch
    if depthwise:
        taps = _taps(x, kernel.shape[:2], geometry)
        sums = jnp.stack([channel_sums(tap * g) for tap in taps.values()])
        return x_gradient, sums.reshape(kernel.shape).astype(kernel.dtype)
    if math.prod(kernel.shape[2:]) >= _MANY_CHANNELS and _suits_winograd(x, kernel, geometry):
        x_gradient, g = kept((x_gradient, g))  # one by one: either keeps all cores busy
        by_winograd = winograd.kernel_gradient(x, g, geometry.pads)
        return x_gradient, by_winograd.astype(kernel.dtype)
    images, kernels = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    size = -(-len(kernels) // _PARTS)
    parts = [
        _rows_part(images, kernels[i : i + size], i * geometry.stride[0], kernel.shape, to_kernel)
        for i in range(0, len(kernels), size)
    ]
    return x_gradient, sum(parts[1:], parts[0]).transpose(1, 2, 0, 3).astype(kernel.dtype)


_convolve.defvjp(_convolve_fwd, _convolve_bwd)


def _by_xla(x: Array, kernel: Array, geometry: _Geometry, predicts: bool = False) -> bool:
    """Whether XLA's own is the quickest convolution (`experiments.layer_profile`)."""
    if kernel.shape[2] == 1:
        return kernel.shape[0] * kernel.shape[1] > _MAX_TAPS
    side = min(kernel.shape[:2])
    many = _VERY_MANY_WEIGHTS if predicts and side < 5 else _MANY_WEIGHTS
    return side < 3 or kernel.size < many or not _suits_winograd(x, kernel, geometry)


def _suits_winograd(x: Array, kernel: Array, geometry: _Geometry) -> bool:
    """Whether fewer multiplications are a way at all."""
    sides = kernel.shape[:2]
    return (
        min(sides) >= 2
        and max(sides) <= winograd.MAX_SIDE
        and kernel.shape[2] == x.shape[3]
        and x.dtype == jnp.float32
        and geometry == _Geometry((1, 1), geometry.pads)
    )


def _rows_part(
    images: Array, rows: Array, start: int, kernel_shape: Shape, geometry: _Geometry
) -> Array:
    """What some rows of the output's gradient, seen from row `start` on, add to the kernel's."""
    stride, ((before, _), columns), x_dilation, row_dilation = geometry
    window = (len(rows) - 1) * row_dilation[0] + (kernel_shape[0] - 1) * stride[0] + 1
    before -= start
    after = window - before - (images.shape[1] - 1) * x_dilation[0] - 1
    inner = (before, after, x_dilation[0] - 1)
    images = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), inner, (0, 0, 0), (0, 0, 0)])
    pads = ((0, 0), columns)
    return _convolve(images, rows, _Geometry(stride, pads, (1, x_dilation[1]), row_dilation))


def _taps(x: Array, sides: Shape, geometry: _Geometry) -> dict[Pair, Array]:
    """What each element (i, j) of a kernel is multiplied with: images, shifted and strided."""
    stride, pads, x_dilation, kernel_dilation = geometry
    inner = [(*pad, dilation - 1) for pad, dilation in zip(pads, x_dilation, strict=True)]
    x = kept(lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)]))
    slices: list[list[slice]] = []
    for axis in (0, 1):
        reach = (sides[axis] - 1) * kernel_dilation[axis]
        starts = range(0, reach + 1, kernel_dilation[axis])
        end = x.shape[1 + axis] - reach
        slices.append([slice(start, end + start, stride[axis]) for start in starts])
    return {
        (i, j): x[:, rows, columns]
        for i, rows in enumerate(slices[0])
        for j, columns in enumerate(slices[1])
    }


def _transposed(
    x_shape: Shape, kernel_shape: Shape, g_shape: Shape, geometry: _Geometry
) -> tuple[_Geometry, _Geometry]:
    """The geometries that give the gradients of the images and of the kernel.

    A stride becomes the dilation of the output's gradient, and dilations become strides.
    """
    stride, pads, x_dilation, kernel_dilation = geometry
    to_x, to_kernel = [], []
    for axis, (before, _) in enumerate(pads):
        x = (x_shape[1 + axis] - 1) * x_dilation[axis] + 1
        kernel = (kernel_shape[axis] - 1) * kernel_dilation[axis] + 1
        g = (g_shape[1 + axis] - 1) * stride[axis] + 1
        to_x.append((kernel - 1 - before, x - g + before))
        to_kernel.append((before, kernel + g - x - before - 1))
    return (
        _Geometry(x_dilation, (to_x[0], to_x[1]), stride, kernel_dilation),
        _Geometry(kernel_dilation, (to_kernel[0], to_kernel[1]), x_dilation, stride),
    )


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, window: int) -> Array:
    return _maxima(x, window)[0]


def _max_pool_fwd(x: Array, window: int) -> tuple[Array, Array]:
    best, first = _maxima(x, window)
    return kept(best), kept(first)


def _maxima(x: Array, window: int) -> tuple[Array, Array]:
    """The maxima, and at which place of its window each is found first."""
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
