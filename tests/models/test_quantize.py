"""Weights of a few bits: within half a step of what they were, and as small as is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import study
from mnist_jax.models import networks, quantize
from mnist_jax.models.quantize import Quantized


@settings(max_examples=30)
@given(
    bits=st.integers(2, 8),
    seed=st.integers(0, 99),
    scale=st.floats(1e-3, 1e3),
    shape=st.sampled_from([(5, 3), (3, 3, 2, 4)]),
)
def test_each_weight_is_within_half_a_step(bits, seed, scale, shape):
    kernel = (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)
    found = quantize.quantize({"kernel": jnp.asarray(kernel)}, bits)
    again = np.asarray(quantize.dequantize(found)["kernel"])
    axes = tuple(range(kernel.ndim - 1))
    largest = np.abs(kernel).max(axis=axes)
    steps = largest / (2 ** (bits - 1) - 1)
    assert (np.abs(again - kernel) <= steps / 2 * (1 + 1e-4)).all()
    np.testing.assert_allclose(np.abs(again).max(axis=axes), largest, rtol=1e-5)
    assert np.abs(found["kernel"].values).max() == 2 ** (bits - 1) - 1


def test_biases_stay_and_outputs_without_weights_are_zero():
    params = {"bias": jnp.asarray([0.3]), "kernel": jnp.zeros((2, 1))}
    again = quantize.dequantize(quantize.quantize(params))
    np.testing.assert_array_equal(again["bias"], params["bias"])
    np.testing.assert_array_equal(again["kernel"], params["kernel"])


def test_the_bytes_are_those_of_the_weights_and_of_what_stays():
    model = networks.build({**study.MODELS["cnn_5x5_3x3_small"], "dtype": "float32"}, 10)
    params = model.init(jax.random.key(0))["params"]
    num_params = sum(x.size for x in jax.tree.leaves(params))
    assert quantize.num_bytes(params) == 4 * num_params
    small = quantize.quantize(params)
    kernels = [
        leaf
        for leaf in jax.tree.leaves(small, is_leaf=lambda leaf: isinstance(leaf, Quantized))
        if isinstance(leaf, Quantized)
    ]
    assert all(kernel.values.dtype == jnp.int8 for kernel in kernels)
    weights, outputs = (sum(x.size for x in part) for part in zip(*kernels, strict=True))
    assert quantize.num_bytes(small) == weights + 4 * outputs + 4 * (num_params - weights)
    assert quantize.num_bytes(quantize.quantize(params, 4), 4) < 0.6 * quantize.num_bytes(small)


@pytest.mark.parametrize("bits", [1, 9])
def test_other_numbers_of_bits_are_refused(bits):
    with pytest.raises(ValueError, match=f"^{bits} bits: must be 2 to 8$"):
        quantize.quantize({}, bits)
