"""The fast convolution and pooling against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from mnist_jax import layers


def native(x, kernel, padding):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def arrays(seed, n, height, width, cin, cout, kh, kw, dtype=np.float32):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, height, width, cin)).astype(np.float32)
    kernel = rng.normal(size=(kh, kw, cin, cout)).astype(np.float32)
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "n": st.integers(1, 3),
        "height": st.integers(5, 9),
        "width": st.integers(5, 9),
        "cin": st.integers(1, 3),
        "cout": st.integers(1, 4),
        "kh": st.integers(1, 5),
        "kw": st.integers(1, 5),
    }
)


@settings(max_examples=12, deadline=None)
@given(shape=shapes, padding=st.sampled_from(["SAME", "VALID"]))
def test_forward_and_both_gradients_equal_the_native_ones(shape, padding):
    x, kernel = arrays(**shape)
    # A weighted sum, so that every output has its own cotangent.
    weights = jnp.cos(jnp.arange(native(x, kernel, padding).size, dtype=jnp.float32))

    def value(convolve):
        def weighed(x, kernel):
            return (convolve(x, kernel, padding).ravel() * weights).sum()

        return jax.value_and_grad(weighed, (0, 1))(x, kernel)

    ours, (ours_x, ours_kernel) = value(layers.conv2d)
    theirs, (theirs_x, theirs_kernel) = value(native)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours_x, theirs_x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours_kernel, theirs_kernel, rtol=1e-4, atol=1e-4)


def test_bfloat16():
    x, kernel = arrays(0, 4, 8, 8, 3, 5, 3, 3, jnp.bfloat16)

    def loss(convolve, x, kernel):
        return convolve(x, kernel, "SAME").astype(jnp.float32).sum()

    ours = jax.grad(loss, (1, 2))(layers.conv2d, x, kernel)
    theirs = jax.grad(loss, (1, 2))(native, x, kernel)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), rtol=0.03, atol=0.1)


def test_under_vmap_over_kernels_and_images():
    x, kernel = arrays(0, 6, 7, 7, 2, 3, 3, 3)
    xs, kernels = x.reshape(3, 2, 7, 7, 2), jnp.stack([kernel, 2 * kernel, -kernel])

    def gradient(x, kernel):
        return jax.grad(lambda k: (layers.conv2d(x, k, "SAME") ** 2).sum())(kernel)

    together = jax.vmap(gradient)(xs, kernels)
    alone = jnp.stack([gradient(x, k) for x, k in zip(xs, kernels, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-3)


def test_gradient_of_the_gradient():
    x, kernel = arrays(0, 2, 6, 6, 2, 3, 3, 3)

    def norm(convolve):
        def first(kernel):
            return (convolve(x, kernel, "SAME") ** 3).sum()

        return jax.grad(lambda k: (jax.grad(first)(k) ** 2).sum())(kernel)

    ours, theirs = norm(layers.conv2d), norm(native)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(jnp.abs(theirs).max()))


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 99),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    window=st.integers(1, 4),
)
def test_max_pool_equals_reduce_window(seed, height, width, window):
    if min(height, width) < window:
        return
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(2, height, width, 3)), jnp.float32)

    def native_pool(x):
        sides = (1, window, window, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, sides, sides, "VALID")

    np.testing.assert_array_equal(layers.max_pool(x, window), native_pool(x))
    ours = jax.grad(lambda x: (layers.max_pool(x, window) ** 2).sum())(x)
    theirs = jax.grad(lambda x: (native_pool(x) ** 2).sum())(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_an_unknown_padding_is_refused():
    x, kernel = arrays(0, 1, 5, 5, 1, 1, 3, 3)
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)pad"):
        layers.conv2d(x, kernel, "SOME")
