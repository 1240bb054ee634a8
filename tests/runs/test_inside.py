"""What a report asks of a net: of nets that were never trained, which make plenty of mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import config, train
from mnist_jax.analysis import error_analysis
from mnist_jax.data import splits
from mnist_jax.runs import inside, saliency
from mnist_jax.runtime import sharding
from mnist_jax.train import evaluate


def asked(task="multiclass", val_size=0.1, **fields):
    options = config.default()
    options.data.update(name="digits", val_size=val_size)
    options.task.name = task
    options.model.update(fields)
    digits = splits.load(options)
    recipe = train.make_recipe(options, len(digits.class_names), len(digits.train.labels))
    mesh = sharding.make_mesh()
    variables = sharding.put_replicated(mesh, jax.device_get(recipe.model.init(jax.random.key(0))))
    outputs = evaluate.predict(recipe.model, variables, digits.test.images)
    scores = np.asarray(recipe.task.scores(outputs))
    found = inside.look(recipe, variables, digits, scores, mesh)
    return digits, recipe, variables, scores, found


@pytest.fixture(scope="module")
def linear():
    return asked(name="linear")


def test_a_linear_net_on_digits(linear):
    digits, recipe, variables, scores, found = linear
    assert list(found.weights) == list("0123456789")
    pixel = jnp.zeros((1, 28, 28, 1)).at[0, 20, 3].set(1.0)  # the bias is 0 before training
    by_class = [weights[20, 3] for weights in found.weights.values()]
    np.testing.assert_allclose(recipe.model.apply(variables, pixel)[0], by_class, rtol=1e-6)
    assert found.validation is None

    decisions = error_analysis.decide(scores)
    worst = error_analysis.worst_mistakes(decisions, digits.test.labels, inside.MISTAKES)
    weights = np.stack(list(found.weights.values())).reshape(10, -1)
    for_the_truth = saliency.occlusion(
        lambda images: np.float32(images.reshape(-1, 784) / 255) @ weights.T,
        digits.test.images[worst],
        digits.test.labels[worst],
        decisions.predicted[worst],
    )
    assert found.relevance.shape == (8, 28, 28)
    np.testing.assert_allclose(found.relevance, for_the_truth, atol=1e-5)


def test_only_the_largest_units_of_a_wide_layer():
    _, _, variables, _, found = asked(name="mlp", widths=(50,), dropout=(0.0,))
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"])
    size = (kernel**2).sum(0)
    assert len(found.weights) == inside.UNITS < 50
    numbers = [int(name) for name in found.weights]
    assert numbers == sorted(numbers)
    assert size[numbers].min() > np.delete(size, numbers).max()
    for number, weights in zip(numbers, found.weights.values(), strict=True):
        np.testing.assert_array_equal(weights.ravel(), kernel[:, number])


def test_two_classes_have_their_validation_scored():
    fives, recipe, variables, _, found = asked(task="binary", name="linear")
    scores, labels = found.validation
    np.testing.assert_array_equal(labels, fives.val.labels)
    np.testing.assert_array_equal(scores[:, 0], 0)
    yes = evaluate.predict(recipe.model, variables, fives.val.images)
    np.testing.assert_allclose(scores[:, 1:], yes, rtol=1e-5, atol=1e-6)
    assert list(found.weights) == ["5"]
    assert asked(task="binary", val_size=0, name="linear")[-1].validation is None


def test_no_mistake_has_nothing_to_explain(linear):
    digits, recipe, variables, *_ = linear
    right = 9 * np.eye(10, dtype=np.float32)[digits.test.labels]
    found = inside.look(recipe, variables, digits, right, sharding.make_mesh())
    assert found.relevance.shape == (0, 28, 28)
