"""Explanations, of nets that were never trained and so make plenty of mistakes.

Occlusion is compared with its definition on nets that are linear in the pixels.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_jax import config, train
from mnist_jax.analysis import error_analysis
from mnist_jax.data import splits
from mnist_jax.models import networks
from mnist_jax.runs import explain
from mnist_jax.runs.groups import Group
from mnist_jax.runs.loop import Trained
from mnist_jax.runs.select import Selection
from mnist_jax.train import evaluate
from mnist_jax.train.trials import Plan, TrialState


def untrained(task="multiclass", trials=1, **fields):
    """Return digits, a selection of untrained nets, their scores, and their explanation."""
    options = config.default()
    options.data.name, options.task.name = "digits", task
    options.model.update(fields)
    digits = splits.load(options)
    recipe = train.make_recipe(options, len(digits.class_names), len(digits.train.labels))
    nets = jax.vmap(recipe.model.init)(jax.random.split(jax.random.key(0), trials))
    nets = jax.device_get(nets)
    first = jax.tree.map(lambda x: x[0], nets)
    outputs = evaluate.predict(recipe.model, first, digits.test.images, corrupt=recipe.task.corrupt)
    scores = np.asarray(recipe.task.scores(outputs))
    selection = selected(recipe, nets, trials)
    found = explain.explain(selection, digits, np.stack([scores] * trials))
    return digits, selection, first, scores, found


def partly(kind, **fields):
    """Return a named tuple of which only some fields are needed."""
    return kind(**{**dict.fromkeys(kind._fields), **fields})


def selected(recipe, nets, trials):
    """Return a selection with what `explain` reads."""
    group = partly(Group, plan=partly(Plan, recipe=recipe))
    final = partly(Trained, group=group, states=partly(TrialState, best=nets))
    return partly(Selection, final=final, places=[*range(trials)])


@pytest.fixture(scope="module")
def linear():
    return untrained(name="linear")


def test_a_linear_net_on_digits(linear):
    digits, selection, variables, scores, found = linear
    recipe = selection.final.group.plan.recipe
    assert list(found.weights) == list("0123456789")
    pixel = jnp.zeros((1, 28, 28, 1)).at[0, 20, 3].set(1.0)  # the bias is 0 before training
    by_class = [weights[20, 3] for weights in found.weights.values()]
    np.testing.assert_allclose(recipe.model.apply(variables, pixel)[0], by_class, rtol=1e-6)

    decisions = error_analysis.decide(scores)
    worst = error_analysis.worst_mistakes(decisions, digits.test.labels, explain.MISTAKES)
    weights = np.stack(list(found.weights.values())).reshape(10, -1)
    expected = explain.occlusion(
        lambda images: np.float32(images.reshape(-1, 784) / 255) @ weights.T,
        digits.test.images[worst],
        digits.test.labels[worst],
        decisions.predicted[worst],
    )
    assert found.relevance.shape == (8, 28, 28)
    np.testing.assert_allclose(found.relevance, expected, atol=1e-5)


def test_only_the_largest_units_of_a_wide_layer():
    _, _, variables, _, found = untrained(name="mlp", widths=(50,), dropout=(0.0,))
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"])
    size = (kernel**2).sum(0)
    assert len(found.weights) == explain.UNITS < 50
    numbers = [int(name) for name in found.weights]
    assert numbers == sorted(numbers)
    assert size[numbers].min() > np.delete(size, numbers).max()
    for number, weights in zip(numbers, found.weights.values(), strict=True):
        np.testing.assert_array_equal(weights.ravel(), kernel[:, number])


def test_two_classes_have_the_weights_of_the_yes():
    _, _, _, _, found = untrained(task="binary", name="linear")
    assert list(found.weights) == ["5"]


def test_without_mistakes_there_is_nothing_to_explain(linear):
    digits, selection, *_ = linear
    right = 9 * np.eye(10, dtype=np.float32)[digits.test.labels]
    found = explain.explain(selection, digits, right[None])
    assert found.relevance.shape == (0, 28, 28)
    assert list(found.weights) == list("0123456789")


@pytest.mark.parametrize(("task", "trials"), [("multiclass", 2), ("multilabel", 1), ("denoise", 1)])
def test_several_nets_and_other_tasks_have_their_layers_only(linear, task, trials):
    _, _, _, _, found = untrained(task=task, trials=trials, name="linear")
    assert [layer.kind for layer in found.layers] == ["Dense"]
    assert found.weights == {}
    assert found.relevance.shape == (0, 28, 28)


# --- occlusion -----------------------------------------------------------------------------------


def relevance_of(weights, image):
    """By the definition, pixel by pixel: the mean over squares of the product under them."""
    product = weights * image
    total, covered = np.zeros((28, 28)), np.zeros((28, 28))
    for top in range(0, 25, 2):
        for left in range(0, 25, 2):
            square = np.s_[top : top + 4, left : left + 4]
            total[square] += product[square].sum()
            covered[square] += 1
    return total / covered


@pytest.fixture(scope="module")
def four_classes():
    model = networks.build({"name": "linear", "dtype": "float32"}, 4)
    return model, model.init(jax.random.key(0))


def test_relevance_in_a_linear_net_is_weight_times_brightness(four_classes):
    model, variables = four_classes
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    chosen, other = np.array([0, 3, 1]), np.array([2, 1, 0])
    found = explain.occlusion(
        lambda x: np.asarray(evaluate.predict(model, variables, x)), images, chosen, other
    )
    weights = networks.first_weights(model, variables).astype(np.float64)
    expected = [
        relevance_of(weights[a] - weights[b], image[..., 0] / 255)
        for a, b, image in zip(chosen, other, images, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.1


def test_pixels_that_the_net_does_not_see_have_no_relevance():
    images = np.full((2, 28, 28, 1), 200, np.uint8)
    images[1] = 0

    def one_pixel(images):
        seen = images[:, 9, 9, 0].astype(np.float32)
        return np.stack([seen, 0 * seen], axis=1)

    zeros, ones = np.zeros(2, int), np.ones(2, int)
    found = explain.occlusion(one_pixel, images, zeros, ones)
    # The share of a pixel's squares that cover (9, 9) too.
    np.testing.assert_array_equal(found[0, 9, 5:13], [0, 100, 100, 200, 200, 100, 100, 0])
    np.testing.assert_array_equal(found[0], found[0].T)
    assert np.count_nonzero(found[0]) == 36
    assert not found[1].any()
    np.testing.assert_array_equal(explain.occlusion(one_pixel, images, ones, zeros), -found)


def test_no_images_are_not_evaluated():
    none = np.zeros(0, int)
    found = explain.occlusion(pytest.fail, np.zeros((0, 28, 28, 1), np.uint8), none, none)
    assert found.shape == (0, 28, 28)
