"""Occlusion, where what it must find is known: nets that are linear in the pixels."""

import jax
import numpy as np
import pytest

from mnist_jax.models import networks
from mnist_jax.runs import saliency
from mnist_jax.train import evaluate


def relevance_of(weights, image):
    """By the definition, pixel by pixel: the mean over squares of what is under them."""
    product = weights * image
    total, covered = np.zeros((28, 28)), np.zeros((28, 28))
    for top in range(0, 25, 2):
        for left in range(0, 25, 2):
            square = np.s_[top : top + 4, left : left + 4]
            total[square] += product[square].sum()
            covered[square] += 1
    return total / covered


@pytest.fixture(scope="module")
def linear():
    model = networks.build({"name": "linear", "dtype": "float32"}, 4)
    return model, model.init(jax.random.key(0))


def test_relevance_in_a_linear_net_is_weight_times_brightness(linear):
    model, variables = linear
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    chosen, other = np.array([0, 3, 1]), np.array([2, 1, 0])
    found = saliency.occlusion(
        lambda x: np.asarray(evaluate.predict(model, variables, x)), images, chosen, other
    )
    weights = networks.first_weights(model, variables).astype(np.float64)
    expected = [
        relevance_of(weights[a] - weights[b], image[..., 0] / 255)
        for a, b, image in zip(chosen, other, images, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.1


def test_what_the_net_does_not_see_has_no_relevance():
    images = np.full((2, 28, 28, 1), 200, np.uint8)
    images[1] = 0

    def one_pixel(images):
        seen = images[:, 9, 9, 0].astype(np.float32)
        return np.stack([seen, 0 * seen], axis=1)

    zeros, ones = np.zeros(2, int), np.ones(2, int)
    found = saliency.occlusion(one_pixel, images, zeros, ones)
    # The share of a pixel's squares that cover (9, 9) too.
    np.testing.assert_array_equal(found[0, 9, 5:13], [0, 100, 100, 200, 200, 100, 100, 0])
    np.testing.assert_array_equal(found[0], found[0].T)
    assert np.count_nonzero(found[0]) == 36
    assert not found[1].any()
    np.testing.assert_array_equal(saliency.occlusion(one_pixel, images, ones, zeros), -found)


def test_no_image_is_not_asked_about():
    none = np.zeros(0, int)
    found = saliency.occlusion(pytest.fail, np.zeros((0, 28, 28, 1), np.uint8), none, none)
    assert found.shape == (0, 28, 28)
