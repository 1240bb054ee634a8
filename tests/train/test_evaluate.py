"""Every example counts once, whatever the batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix

from mnist_jax import config, tasks
from mnist_jax.data import augment
from mnist_jax.models import networks
from mnist_jax.train import evaluate

N = 103  # a prime: no batch size divides it


@pytest.fixture(scope="module")
def evaluated():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (N, 28, 28, 1), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(0, 10, N, dtype=np.int32))
    config = {"name": "cnn", "dtype": "float32", "channels": (2,), "widths": (4,)}
    model = networks.build(config, 10)
    return model, model.init(jax.random.key(0)), images, labels


@pytest.mark.parametrize("batch_size", [1, 2, 7, 50, 102, 103, 104, 5000])
def test_awkward_batch_sizes_give_the_logits_of_one_batch(evaluated, batch_size):
    model, variables, images, _ = evaluated
    logits = evaluate.predict(model, variables, images, batch_size)
    whole = model.apply(variables, augment.normalize(images))
    assert logits.shape == (N, 10)
    np.testing.assert_allclose(logits, whole, rtol=1e-4, atol=1e-4)


def test_the_report_covers_all_examples(evaluated):
    model, variables, images, labels = evaluated
    task = tasks.build(config.default().task, 10)
    logits, report = evaluate.evaluate(task, model, variables, images, labels)
    predictions = np.asarray(logits).argmax(1)
    np.testing.assert_allclose(report.accuracy, accuracy_score(labels, predictions), rtol=1e-6)
    expected = confusion_matrix(labels, predictions, labels=range(10))
    np.testing.assert_array_equal(report.confusion, expected)
    assert int(report.confusion.sum()) == N
