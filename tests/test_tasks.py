"""The loss against SciPy and scikit-learn."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from mnist_jax import tasks


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), classes=st.integers(2, 12), smoothing=st.floats(0, 0.9))
def test_cross_entropy(seed, classes, smoothing):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (7, classes)).astype(np.float32)
    labels = rng.integers(0, classes, 7).astype(np.int32)
    targets = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    expected = -(targets * log_softmax(logits.astype(np.float64), axis=1)).sum(1)
    ours = tasks.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.float32(smoothing))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_extreme_logits_stay_finite():
    logits = jnp.asarray([[1e4, -1e4], [-1e4, 1e4]], jnp.float32)
    losses = tasks.cross_entropy(logits, jnp.asarray([0, 0], jnp.int32))
    np.testing.assert_allclose(losses, [0.0, 2e4])


def test_the_first_of_equals_is_chosen():
    assert tasks.decide(jnp.asarray([[0.0, 1.0, 1.0], [2.0, 2.0, 1.0]])).tolist() == [1, 0]
