"""The fast convolution and pooling against XLA's own."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from mnist_jax.models import conv


def native(x, kernel, padding="SAME", stride=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // kernel.shape[2],
    )


def native_pool(x, window):
    sides = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sides, sides, "VALID")


def arrays(seed, n, height, width, cin, cout, kh, kw, dtype=np.float32, group=None):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, height, width, cin)).astype(np.float32)
    kernel = rng.normal(size=(kh, kw, group or cin, cout)).astype(np.float32)
    return jax.device_put((x.astype(dtype), kernel.astype(dtype)))


def forward_and_both_gradients(convolve, x, kernel, *how):
    """The outputs, and the gradients where every output has a cotangent of its own."""

    @jax.jit
    def compute(x, kernel):
        outputs, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, *how), x, kernel)
        cotangents = jnp.cos(jnp.arange(outputs.size, dtype=jnp.float32)).reshape(outputs.shape)
        return outputs, *pull(cotangents.astype(outputs.dtype))

    return compute(x, kernel)


def check_equal(ours, theirs):
    """To float tolerance: of bfloat16 also in what is summed before it is rounded."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        rough = 0.02 if a.dtype == jnp.bfloat16 else 1e-4
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=rough, atol=rough * max(1, np.abs(b).max()))


def check_forward_and_both_gradients(x, kernel, *how):
    check_equal(
        forward_and_both_gradients(conv.conv2d, x, kernel, *how),
        forward_and_both_gradients(native, x, kernel, *how),
    )


shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 99),
        "n": st.integers(1, 6),
        "height": st.integers(5, 9),
        "width": st.integers(5, 9),
        "cin": st.integers(1, 3),
        "cout": st.integers(1, 4),
        "kh": st.integers(1, 5),
        "kw": st.integers(1, 5),
    }
)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@settings(max_examples=8)
@given(shape=shapes, padding=st.sampled_from(["SAME", "VALID"]), stride=st.integers(1, 3))
def test_forward_and_both_gradients_equal_the_native_ones(dtype, shape, padding, stride):
    check_forward_and_both_gradients(*arrays(**shape, dtype=dtype), padding, stride)


KINDS = pytest.mark.parametrize(
    ("cin", "cout", "group", "side"),
    [
        pytest.param(3, 5, 3, 3, id="dense"),
        pytest.param(1, 3, 1, 3, id="one channel"),
        pytest.param(4, 4, 1, 3, id="depthwise"),
        pytest.param(3, 5, 3, 1, id="1x1"),
        pytest.param(1, 2, 1, 9, id="more taps than are summed"),
    ],
)


@KINDS
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_convolutions_of_other_kinds(cin, cout, group, side, stride, dtype):
    x, kernel = arrays(0, 5, 10, 11, cin, cout, side, side, dtype, group)
    check_forward_and_both_gradients(x, kernel, "SAME", stride)


@KINDS
def test_under_vmap_over_kernels_and_images(cin, cout, group, side):
    x, kernel = arrays(0, 6, 7, 8, cin, cout, side, side, group=group)
    x, kernel = np.asarray(x), np.asarray(kernel)
    xs, kernels = x.reshape(3, 2, 7, 8, cin), np.stack([kernel, 2 * kernel, -kernel])
    together = jax.vmap(partial(forward_and_both_gradients, conv.conv2d))(xs, kernels)
    alone = [forward_and_both_gradients(native, x, k) for x, k in zip(xs, kernels, strict=True)]
    check_equal(together, map(np.stack, zip(*alone, strict=True)))


def lowered(platform, function, *args):
    return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(("cin", "group"), [(1, 1), (32, 32), (3, 1)])
def test_the_platform_of_the_program_decides(platform, cin, group):
    """Accelerators use XLA's convolution and its gradients, without barriers against fusion."""
    x, kernel = arrays(0, 4, 8, 8, cin, 32 if group > 1 else cin, 5, 5, group=group)

    def pooled(x, kernel):
        return conv.max_pool(conv.conv2d(x, kernel), 2).sum()

    def predicted(x, kernel):
        return conv.conv2d_max_pool(x, kernel, 2)

    def native_pooled(x, kernel):
        return conv.max_pool(native(x, kernel), 2).sum()

    gradients = jax.grad(pooled, (0, 1))
    on_cpu, elsewhere = (lowered(p, gradients, x, kernel) for p in ("cpu", platform))
    expected = lowered(platform, jax.grad(native_pooled, (0, 1)), x, kernel)
    assert convolutions(elsewhere) == convolutions(expected)
    assert len(convolutions(elsewhere)) == 3
    assert "optimization_barrier" in on_cpu
    assert "optimization_barrier" not in elsewhere
    alone = lowered(platform, predicted, x, kernel)
    assert convolutions(alone) == convolutions(lowered(platform, native, x, kernel))
    assert "optimization_barrier" not in alone


def convolutions(program):
    """The convolutions of a program, without the names of their operands."""
    found = re.findall(r"stablehlo.convolution\([^)]*\)(.*)", program)
    return sorted(re.sub(r"#loc\w*", "", text) for text in found)


@pytest.mark.parametrize("convolve", [conv.conv2d, partial(conv.conv2d_max_pool, window=2)])
@pytest.mark.parametrize(("group", "cout"), [(2, 6), (1, 8), (3, 4), (8, 4)])
def test_other_groups_are_refused(convolve, group, cout):
    x, kernel = arrays(0, 2, 8, 8, 4, cout, 3, 3, group=group)
    with pytest.raises(ValueError, match=r"does not fit 4 input channels.*depthwise"):
        convolve(x, kernel)


@pytest.mark.parametrize(("stride", "padding"), [(1, "SAME"), (2, "VALID"), (3, "SAME")])
@pytest.mark.parametrize(
    ("cin", "group"), [(2, 2), (3, 1), (1, 1)], ids=["dense", "depthwise", "one channel"]
)
def test_gradient_of_the_gradient(cin, group, stride, padding):
    inputs = arrays(0, 2, 7, 6, cin, 3, 3, 3, group=group)

    def norm(convolve):
        def cubed(x, kernel):
            return (convolve(x, kernel, padding, stride) ** 3).sum()

        def squares(x, kernel):
            return sum((g**2).sum() for g in jax.grad(cubed, (0, 1))(x, kernel))

        return jax.jit(jax.grad(squares, (0, 1)))(*inputs)

    for ours, theirs in zip(norm(conv.conv2d), norm(native), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * scale)


def test_no_gradient_is_a_convolution_of_the_slow_kind():
    """XLA's own kernel gradient convolves "fb01" layouts, hundreds of times slower on a CPU."""
    x, kernel = arrays(0, 4, 8, 8, 2, 3, 3, 3)

    def loss(x, kernel):
        return (conv.conv2d(x, kernel) ** 2).sum()

    hessian = jax.grad(lambda x, k: (jax.grad(loss, 1)(x, k) ** 2).sum(), (0, 1))
    layouts = set(
        re.findall(r"dim_numbers = (\S+ .*?),? window", lowered("cpu", hessian, x, kernel))
    )
    assert layouts == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


@settings(max_examples=6)
@given(
    seed=st.integers(0, 99),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    window=st.integers(1, 4),
)
def test_max_pool_equals_reduce_window(seed, height, width, window):
    if min(height, width) < window:
        return
    x = np.random.default_rng(seed).normal(size=(2, height, width, 3)).astype(np.float32)

    @jax.jit
    def compute(x):
        pools = [lambda x: conv.max_pool(x, window), lambda x: native_pool(x, window)]
        return [(pool(x), jax.grad(lambda x, pool=pool: (pool(x) ** 2).sum())(x)) for pool in pools]

    (pooled, ours), (expected, theirs) = compute(x)
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@KINDS
@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_convolution_and_a_pool_in_one(cin, cout, group, side, window, dtype):
    """Predicting, and with gradients, which take another way."""
    x, kernel = arrays(0, 3, 10, 11, cin, cout, side, side, dtype, group)

    def natives(x, kernel):
        return native_pool(native(x, kernel), window)

    def ours(x, kernel):
        return conv.conv2d_max_pool(x, kernel, window)

    expected = forward_and_both_gradients(natives, x, kernel)
    check_equal([jax.jit(ours)(x, kernel)], expected[:1])
    check_equal(forward_and_both_gradients(ours, x, kernel), expected)


def test_a_convolution_and_a_pool_by_winograd_under_vmap_and_grad_of_grad():
    x, kernel = arrays(0, 2, 8, 8, 32, 32, 5, 5)
    kernel = np.asarray(kernel) / 100
    kernels = np.stack([kernel, -kernel])

    def derivatives(convolve_and_pool):
        def value(kernel):
            return jnp.sin(convolve_and_pool(x, kernel)).sum()

        twice = jax.grad(lambda k: (jax.grad(value)(k) ** 2).sum())
        return jax.jit(jax.vmap(twice))(kernels)

    def natives(x, kernel):
        return native_pool(native(x, kernel, "VALID"), 2)

    ours = partial(conv.conv2d_max_pool, window=2, padding="VALID")
    predicted = jax.jit(jax.vmap(partial(ours, x)))(kernels)
    check_equal([predicted], [jax.jit(jax.vmap(partial(natives, x)))(kernels)])
    check_equal([derivatives(ours)], [derivatives(natives)])


def test_of_equal_maxima_the_first_gets_the_gradient():
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 3, 3, 0] = 1
    gradient = jax.jit(jax.grad(lambda x: conv.max_pool(x, 2).sum()))(x)
    np.testing.assert_array_equal(
        np.asarray(gradient)[0, :, :, 0], [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    )


def test_sums_of_channels_and_their_transpose():
    """Gradients, and theirs, of what batch normalisation is made of."""
    x = jax.random.normal(jax.random.key(0), (3, 5, 4, 2))

    def normalised(x, sums, spread):
        mean = sums(x) / 60
        return (x - spread(mean)) * spread(1 / (sums(x * x) / 60 - mean * mean))

    def derivatives(*how):
        def value(x):
            return (jnp.sin(jnp.arange(x.size)).reshape(x.shape) * normalised(x, *how)).sum()

        twice = jax.grad(lambda x: (jax.grad(value)(x) ** 2).sum())
        return jax.jit(jax.grad(value))(x), jax.jit(twice)(x)

    ours = derivatives(conv.channel_sums, lambda v: conv.broadcast(v, x.shape))
    plain = derivatives(lambda x: x.sum((0, 1, 2)), lambda v: v[None, None, None])
    for found, expected in zip(ours, plain, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * scale)


def test_channels_of_few_bits_are_summed_in_many():
    """257 rows have no bfloat16; rounded to 256 they would add up to another one in the end."""
    sums = conv.channel_sums(jnp.ones((6, 257, 32, 1), jnp.bfloat16))
    assert sums.dtype == jnp.bfloat16
    assert sums[0] == jnp.bfloat16(6 * 257 * 32) != jnp.bfloat16(6 * 256 * 32)


def test_gradient_of_the_gradient_of_max_pool():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))

    def of(pool):
        cubed = jax.grad(lambda x: (pool(x) ** 3).sum())
        return jax.jit(jax.grad(lambda x: (cubed(x) ** 2).sum()))(x)

    def plain(x):
        return x.reshape(2, 2, 2, 2, 2, 3).max((2, 4))

    np.testing.assert_allclose(of(lambda x: conv.max_pool(x, 2)), of(plain), rtol=1e-4, atol=1e-5)


def test_a_kernel_larger_than_the_images_is_refused():
    with pytest.raises(ValueError, match=r"kernel of \(5, 5\) is larger than images of \(8, 4\)"):
        conv.conv2d(jnp.ones((2, 8, 4, 1)), jnp.ones((5, 5, 1, 2)), "VALID")


def test_an_unknown_padding_is_refused():
    x, kernel = arrays(0, 1, 5, 5, 1, 1, 3, 3)
    with pytest.raises((RuntimeError, ValueError), match=r"(?i)pad"):
        conv.conv2d(x, kernel, "SOME")
