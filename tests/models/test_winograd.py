"""Winograd's convolution vs. sums in float64, and the layers that use it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from mnist_jax.models import conv, winograd

convolved = jax.jit(winograd.convolve, static_argnums=2)
kernel_gradient = jax.jit(winograd.kernel_gradient, static_argnums=2)
sides = st.integers(2, winograd.MAX_SIDE)
shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "n": st.integers(0, 5),
        "inputs": st.tuples(st.integers(8, 11), st.integers(8, 11)),
        "sides": st.tuples(sides, sides),
        "channels": st.tuples(st.integers(1, 3), st.integers(1, 4)),
        "pads": st.tuples(*[st.tuples(st.integers(-1, 3), st.integers(-1, 3))] * 2),
    }
)


def arrays(seed, n, inputs, sides, channels, pads):
    """Images, a kernel, and a gradient of what the two make."""
    rng = np.random.default_rng(seed)
    outputs = [i + sum(pad) - k + 1 for i, k, pad in zip(inputs, sides, pads, strict=True)]
    x = rng.normal(size=(n, *inputs, channels[0]))
    kernel = rng.normal(size=(*sides, *channels))
    return x, kernel, rng.normal(size=(n, *outputs, channels[1]))


def exactly(x, kernel, g, pads):
    """The convolution and its kernel's gradient, element after element, in float64."""
    (top, bottom), (left, right) = pads
    padded = np.pad(x, [(0, 0), *((max(a, 0), max(b, 0)) for a, b in pads), (0, 0)])
    rows = slice(max(-top, 0), padded.shape[1] - max(-bottom, 0))
    columns = slice(max(-left, 0), padded.shape[2] - max(-right, 0))
    padded = padded[:, rows, columns]
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], (1, 2))
    return np.einsum("npqcij,ijco->npqo", windows, kernel), np.einsum(
        "npqcij,npqo->ijco", windows, g
    )


@settings(max_examples=5)
@given(shape=shapes)
def test_it_is_the_convolution_and_its_gradient(shape):
    """To a hundred-thousandth or two of the largest: float32 alone gives a millionth."""
    x, kernel, g = arrays(**shape)
    pads = shape["pads"]
    f32 = [a.astype(np.float32) for a in (x, kernel, g)]
    ours = convolved(*f32[:2], pads), kernel_gradient(f32[0], f32[2], pads)
    for a, b in zip(ours, exactly(x, kernel, g, pads), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-5 * np.abs(b).max(initial=0))


@pytest.mark.parametrize("kernel", range(2, winograd.MAX_SIDE + 1))
@pytest.mark.parametrize("tile", [6, 8])
def test_the_matrices_make_a_correlation(kernel, tile):
    """Of one dimension, in float64 from the rounded ones."""
    outputs = tile - kernel + 1
    to_outputs, to_points, tiles_to_points = winograd.matrices(
        winograd.Axis(kernel, outputs, 1, outputs)
    )
    rng = np.random.default_rng(kernel)
    d, g = rng.normal(size=tile), rng.normal(size=kernel)
    found = to_outputs.astype(float) @ ((to_points @ g) * (tiles_to_points @ d))
    np.testing.assert_allclose(found, np.correlate(d, g), atol=1e-5)


def test_groups_of_images_add_up(monkeypatch):
    """Seven images, two at a time."""
    pads = ((2, 2), (2, 2))
    x, kernel, g = arrays(0, 7, (8, 8), (5, 5), (3, 2), pads)
    f32 = [a.astype(np.float32) for a in (x, kernel, g)]
    monkeypatch.setattr(winograd, "_CACHED", 2 * 16 * 16 * 3)
    ours = convolved(*f32[:2], pads), kernel_gradient(f32[0], f32[2], pads)
    for a, b in zip(ours, exactly(x, kernel, g, pads), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-5 * np.abs(b).max())


def native(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.fixture(params=[3, 5])
def large(request):
    """Return images and a kernel with enough channels for Winograd's algorithm."""
    side = request.param
    x, kernel, _ = arrays(0, 3, (7, 8), (side, side), (16, 64), ((0, 0), (0, 0)))
    return jax.device_put((x.astype(np.float32), (kernel / (4 * side)).astype(np.float32)))


def products(function, *args):
    """Count the matrix products of a program."""
    return str(jax.make_jaxpr(function)(*args)).count("dot_general")


def test_layers_take_it_where_there_are_channels_enough(large):
    x, kernel = large
    forward = products(conv.conv2d, x, kernel) > 0
    assert forward == (len(kernel) == 5)
    gradient = jax.grad(lambda k, x: conv.conv2d(x, k).sum())
    assert products(gradient, kernel, x) > 0
    assert not products(gradient, kernel[:, :, :4, :64], x[..., :4])
    assert not products(conv.conv2d, x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    strided = jax.grad(lambda k: conv.conv2d(x, k, stride=2).sum())
    assert not products(strided, kernel)


def test_a_group_has_more_products_than_nine(large):
    """XLA divides no fewer among the cores."""
    x, kernel = large
    pads = ((0, 0), (0, 0))
    assert products(partial(winograd.convolve, pads=pads), x, kernel) > 9
    g = convolved(x, kernel, pads)
    assert products(partial(winograd.kernel_gradient, pads=pads), x, g) > 9


@pytest.mark.parametrize(
    ("side", "channels", "trained", "predicted"),
    [(3, 32, False, False), (3, 64, True, False), (3, 128, True, True), (5, 32, True, True)],
)
def test_smaller_kernels_take_it_in_training_first(side, channels, trained, predicted):
    x = jax.ShapeDtypeStruct((2, 8, 8, channels), jnp.float32)
    kernel = jax.ShapeDtypeStruct((side, side, channels, channels), jnp.float32)
    assert (products(conv.conv2d, x, kernel) > 0) == trained
    in_one = partial(conv.conv2d_max_pool, window=2)
    assert (products(in_one, x, kernel) > 0) == predicted
    assert (products(lambda *args: jax.vjp(in_one, *args)[0], x, kernel) > 0) == trained


def test_gradients_of_layers(large):
    """Under vmap too, and the gradients' own gradient."""
    x, kernel = large

    def gradients(convolve):
        def loss(x, kernel):
            return (convolve(x, kernel) ** 2).sum()

        def penalty(x, kernel):
            return sum((g**2).sum() for g in jax.grad(loss, (0, 1))(x, kernel))

        once, twice = (jax.jit(jax.grad(f, (0, 1))) for f in (loss, penalty))
        mapped = jax.jit(jax.vmap(once))(np.stack([x, -np.asarray(x)]), np.stack([kernel, kernel]))
        return [*once(x, kernel), *mapped, *twice(x, kernel)]

    for ours, theirs in zip(gradients(conv.conv2d), gradients(native), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * scale)
