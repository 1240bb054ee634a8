"""Training with JAX's options: 64-bit types, no compilation, debugging."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import LINEAR, logits_of, make_config, rows, train_run

from mnist_jax.analysis import metrics
from mnist_jax.predict import classifier
from mnist_jax.workdir import files

CNN = {
    "model__name": "cnn",
    "model__channels": (4,),
    "model__widths": (8,),
    "train__augment__rotation": 5.0,
    "train__augment__erase": 0.5,
    "train__augment__flip": 0.5,
    "optim__ema": 0.9,
    "optim__clip": 1.0,
    "optim__schedule": "plateau",
}


@pytest.mark.parametrize(
    "overrides",
    [{}, CNN, {"model__name": "rbf", "optim__schedule": "cosine"}, {"task__name": "denoise"}],
    ids=["linear", "cnn", "rbf", "denoise"],
)
def test_with_64_bit_types_training_is_the_same_but_for_rounding(tmp_path, overrides):
    """Random numbers and states keep their 32 bits."""
    config = make_config(LINEAR, train__epochs=1, **overrides)
    train_run(config, tmp_path / "plain")
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        train_run(config, tmp_path / "x64")
    plain, wide = (rows(tmp_path / name)[0] for name in ("plain", "x64"))
    assert plain.keys() == wide.keys()
    for key, value in plain.items():
        assert wide[key] == (value if value is None else pytest.approx(value, rel=1e-2)), key
    np.testing.assert_allclose(
        logits_of(tmp_path / "x64"), logits_of(tmp_path / "plain"), rtol=0.05, atol=0.05
    )


def test_with_64_bit_types_reports_are_of_32_bits():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        report = metrics.classification(jnp.zeros((4, 3), jnp.float32), jnp.arange(4) % 3)
        for leaf in jax.tree.leaves(report):
            assert leaf.dtype in (jnp.int32, jnp.float32)


def test_without_compilation_the_results_are_the_same_but_for_rounding(tmp_path):
    """As with JAX_DISABLE_JIT=1, to debug a step."""
    config = make_config(LINEAR, train__epochs=1, train__batch_size=512)
    train_run(config, tmp_path / "plain")
    with jax.disable_jit():
        train_run(config, tmp_path / "debug")
        images = np.zeros((3, 28, 28), np.uint8)
        probabilities = classifier.load(tmp_path / "debug")(images)
    np.testing.assert_allclose(
        logits_of(tmp_path / "debug"), logits_of(tmp_path / "plain"), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        probabilities, classifier.load(tmp_path / "plain")(images), rtol=1e-4
    )
    assert (tmp_path / "debug" / files.REPORT).exists()


def test_debugging_of_nans_and_leaks_finds_nothing(tmp_path):
    config = make_config(LINEAR, train__epochs=1)
    with jax.debug_nans(True), jax.checking_leaks():
        train_run(config, tmp_path / "run")
    assert (tmp_path / "run" / files.SUMMARY).exists()
