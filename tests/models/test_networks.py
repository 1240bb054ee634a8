"""The nets: what they compute, against PyTorch-style loops in NumPy and each other."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mnist_jax.models import networks, registry

KEY = jax.random.key(0)
NO_RATES = networks.Rates(*[np.zeros(0, np.float32)] * 2)
TINY_CNN = {
    "name": "cnn",
    "dtype": "float32",
    "batch_norm": False,
    "channels": (3, 4),
    "widths": (5,),
}


def images(n=4, seed=0):
    return jax.device_put(np.random.default_rng(seed).random((n, 28, 28, 1)).astype(np.float32))


def build(config, num_outputs):
    """The net of a config, whose functions are programs."""
    model = networks.build(config, num_outputs)
    init, apply, apply_train = map(jax.jit, model[:3])
    return model._replace(init=init, apply=apply, apply_train=apply_train)


def params_of(variables):
    return jax.tree.map(np.asarray, variables["params"])


def test_mlp_is_what_numpy_computes():
    config = {"name": "mlp", "dtype": "float32", "widths": (7, 6), "activation": "sigmoid"}
    model = build(config, 10)
    variables = model.init(KEY)
    p, x = params_of(variables), np.asarray(images()).reshape(4, -1)
    for layer in ("Dense_0", "Dense_1"):
        x = 1 / (1 + np.exp(-(x @ p[layer]["kernel"] + p[layer]["bias"])))
    expected = x @ p["Dense_2"]["kernel"] + p["Dense_2"]["bias"]
    np.testing.assert_allclose(model.apply(variables, images()), expected, rtol=1e-4, atol=1e-5)


def test_random_features_approximate_the_kernel():
    from sklearn.metrics.pairwise import rbf_kernel

    config = {"name": "rbf", "dtype": "float32", "features": 20_000, "gamma": 0.005}
    model = build(config, 10)
    variables = model.init(KEY)
    # The weights are the features of one image, so that its kernel with the others comes out.
    stats = variables["batch_stats"]["FourierFeatures_0"]
    x = np.asarray(images(5)).reshape(5, -1)
    z = math.sqrt(2) * np.cos(x @ np.asarray(stats["frequencies"]) + np.asarray(stats["phases"]))
    kernel = np.repeat(z[:1].T, 10, axis=1) / np.float32(20_000)
    variables["params"]["head"]["Dense_0"]["kernel"] = kernel
    ours = np.asarray(model.apply(variables, images(5)))[:, 0]
    np.testing.assert_allclose(ours, rbf_kernel(x, gamma=0.005)[0], atol=0.03)


def test_random_features_are_not_trained():
    model = build({"name": "rbf", "dtype": "float32", "features": 8}, 10)
    variables = model.init(KEY)
    _, batch_stats = model.apply_train(variables, images(), KEY, NO_RATES)
    jax.tree.map(np.testing.assert_array_equal, batch_stats, variables["batch_stats"])
    assert [layer.num_params for layer in model.layers()] == [0, 8 * 10 + 10]
    other = model.init(jax.random.key(1))["batch_stats"]
    assert not np.allclose(jax.tree.leaves(other)[0], jax.tree.leaves(batch_stats)[0])


def test_what_inputs_are_like_is_known_after_few_steps():
    """Thirty are two epochs and a half of digits; nothing may be left of the statistics' start."""
    model = build({"name": "linear", "dtype": "float32", "standardise": True}, 784)
    variables, x = model.init(KEY), images(50)
    for _ in range(30):
        _, updated = model.apply_train(variables, x, KEY, NO_RATES)
        variables = variables | {"batch_stats": updated}
    (found,) = variables["batch_stats"].values()
    flat = np.asarray(x).reshape(50, -1)
    np.testing.assert_allclose(found["mean"], flat.mean(0), rtol=0.05)
    np.testing.assert_allclose(found["var"], flat.var(0), rtol=0, atol=0.05)


def test_standardised_inputs_have_mean_0_and_variance_1():
    model = build({"name": "linear", "dtype": "float32", "standardise": True}, 784)
    variables = model.init(KEY)
    variables["params"]["Dense_0"]["kernel"] = np.eye(784, dtype=np.float32)
    out, _ = model.apply_train(variables, images(500), KEY, NO_RATES)
    out = np.asarray(out)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(out.std(0), 1, atol=0.01)


def test_dropout_zeroes_a_share_and_scales_the_rest():
    drop = jax.jit(lambda x, rate: networks.Dropout().apply({}, x, rate, rngs={"dropout": KEY}))
    out = np.asarray(drop(np.ones(10_000, np.float32), np.float32(0.3)))
    assert np.mean(out == 0) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(out[out != 0], 1 / 0.7, rtol=1e-6)


def test_cnn_is_convolution_then_bias_then_activation_then_pool():
    """The textbook order, from SciPy, though we pool first: the same for a monotonic activation."""
    from scipy.signal import correlate2d

    model = build(TINY_CNN, 10)
    variables = model.init(KEY)
    variables["params"]["Conv_0"]["bias"] = np.asarray([0.3, -0.2, 0.1], np.float32)
    p = params_of(variables)

    def stage(maps, kernel, bias):
        out = np.stack(
            [
                sum(
                    correlate2d(maps[:, :, i], kernel[:, :, i, o], "same")
                    for i in range(maps.shape[2])
                )
                for o in range(kernel.shape[3])
            ],
            axis=2,
        )
        out = np.maximum(out + bias, 0)
        height, width = (side // 2 for side in out.shape[:2])
        return out.reshape(height, 2, width, 2, -1).max(axis=(1, 3))

    x = np.asarray(images(1))[0]
    for layer in ("Conv_0", "Conv_1"):
        x = stage(x, p[layer]["kernel"], p[layer]["bias"])
    dense = p["head"]
    x = np.maximum(x.reshape(-1) @ dense["Dense_0"]["kernel"] + dense["Dense_0"]["bias"], 0)
    expected = x @ dense["Dense_1"]["kernel"] + dense["Dense_1"]["bias"]
    np.testing.assert_allclose(
        np.asarray(model.apply(variables, images(1)))[0], expected, rtol=1e-3, atol=1e-4
    )


def test_dropout_only_in_training_and_by_its_key():
    config = {**TINY_CNN, "dropout": (0.5,), "conv_dropout": (0.5,)}
    model, rates = build(config, 10), networks.read_rates(config)
    variables = model.init(KEY)
    calm = model.apply(variables, images())
    np.testing.assert_array_equal(calm, model.apply(variables, images()))
    one, _ = model.apply_train(variables, images(), jax.random.key(1), rates)
    same, _ = model.apply_train(variables, images(), jax.random.key(1), rates)
    other, _ = model.apply_train(variables, images(), jax.random.key(2), rates)
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(one, calm)


def test_batch_normalisation_uses_the_batch_in_training_and_its_average_later():
    config = {**TINY_CNN, "batch_norm": True}
    model = build(config, 10)
    variables = model.init(KEY)
    _, stats = model.apply_train(variables, images(), KEY, networks.read_rates(config))
    before = variables["batch_stats"]["BatchNorm_0"]
    after = stats["BatchNorm_0"]
    assert not np.allclose(before["mean"], after["mean"])
    moved = model.apply({"params": variables["params"], "batch_stats": stats}, images())
    assert not np.allclose(model.apply(variables, images()), moved)
    # One example's prediction does not depend on its neighbours.
    np.testing.assert_allclose(
        np.asarray(model.apply(variables, images()))[:1],
        model.apply(variables, np.asarray(images())[:1]),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("average", [False, True])
def test_batch_normalisation_is_flaxs(average):
    """Outputs, running averages and gradients, far from 0, where rounding errors are large."""
    x = 3 * np.random.default_rng(0).normal(size=(6, 4, 3, 5)) + 10 * np.arange(5)
    variables = {
        "params": {"scale": np.linspace(0.5, 2, 5), "bias": np.linspace(-1, 1, 5)},
        "batch_stats": {"mean": np.arange(5.0), "var": np.linspace(1, 2, 5)},
    }
    x, variables = jax.tree.map(np.float32, (x, variables))

    def compute(module):
        def weighed(params, x):
            y, stats = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return (jnp.sin(jnp.arange(x.size)).reshape(x.shape) * y).sum(), (y, stats)

        return jax.jit(jax.grad(weighed, (0, 1), has_aux=True))(variables["params"], x)

    ours = compute(networks.BatchNorm(average, jnp.float32))
    flaxs = compute(nn.BatchNorm(average, momentum=0.9))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), ours, flaxs)


def test_batch_normalisation_of_one_value_is_finite():
    x = np.full((4, 3, 3, 1), 1e3, np.float32) + np.float32(1e-4)
    y, _ = jax.jit(networks.BatchNorm(False, jnp.float32).init_with_output)(KEY, x)
    assert np.isfinite(y).all()


def test_bfloat16_keeps_float32_parameters_and_logits_close():
    full = build(TINY_CNN, 10)
    half = build({**TINY_CNN, "dtype": "bfloat16"}, 10)
    variables = half.init(KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    ours, oracle = half.apply(variables, images()), full.apply(variables, images())
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, oracle, atol=0.05)
    assert not np.array_equal(ours, oracle)  # it did compute in bfloat16


def test_gradients_in_bfloat16_are_float32_and_close():
    """Of biases and of batch normalisation too."""

    def gradients(**fields):
        config = {**TINY_CNN, **fields}
        model = build(config, 10)
        variables = model.init(KEY)

        def loss(params):
            together = {**variables, "params": params}
            logits, _ = model.apply_train(together, images(), KEY, networks.read_rates(config))
            return (logits**2).mean()

        return jax.jit(jax.grad(loss))(variables["params"])

    for batch_norm in (False, True):
        half = gradients(dtype="bfloat16", batch_norm=batch_norm, dropout=(0.0,))
        full = gradients(batch_norm=batch_norm, dropout=(0.0,))
        for ours, oracle in zip(*map(jax.tree.leaves, (half, full)), strict=True):
            assert ours.dtype == jnp.float32
            # Each of them may be off, where another place of a pool is the largest.
            ours, oracle = np.asarray(ours), np.asarray(oracle)
            assert np.linalg.norm(ours - oracle) < 0.2 * np.linalg.norm(oracle)


@pytest.mark.parametrize("activation", registry.ACTIVATIONS)
def test_every_activation(activation):
    config = {"name": "mlp", "dtype": "float32", "widths": (5,), "activation": activation}
    model = build(config, 3)
    logits = model.apply(model.init(KEY), images())
    assert logits.shape == (4, 3)
    assert np.isfinite(logits).all()


def test_members_vmap():
    model = build({**TINY_CNN, "batch_norm": True}, 10)
    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(model.apply, (0, None)))(
        jax.jit(jax.vmap(model.init))(keys), images()
    )
    alone = np.stack([model.apply(model.init(key), images()) for key in keys])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
