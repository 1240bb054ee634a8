"""What a data set is made of: against scikit-learn, NumPy and plain loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import KernelDensity

from mnist_jax.explore import statistics


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (120, 6, 6, 1)).astype(np.uint8)


def test_examples_are_of_their_class_and_the_same_every_time():
    labels = np.arange(100) % 4
    found = statistics.of_class(labels, 3, 10, seed=0)
    assert len(set(found)) == 10
    assert found == sorted(found) == statistics.of_class(labels, 3, 10, seed=0)
    assert (labels[found] == 3).all()
    assert statistics.of_class(labels, 3, 99, seed=0) == list(range(3, 100, 4))


def test_means_and_intensities(images):
    labels = np.arange(120) % 3
    mean = statistics.class_mean(images, labels, 1)
    np.testing.assert_allclose(mean, images[1::3].mean(axis=0), atol=0.5)
    np.testing.assert_allclose(statistics.pixel(images), (images.mean() / 255, images.std() / 255))
    white = np.full((2, 28, 28, 1), 255, np.uint8)
    assert statistics.total_intensity(white).tolist() == [784.0, 784.0]


def test_density_is_scikit_learns():
    values = np.random.default_rng(0).normal(3, 2, 50)
    at = np.linspace(-5, 10, 40)
    width = values.std(ddof=1) * 50 ** (-1 / 5)
    oracle = KernelDensity(bandwidth=width).fit(values[:, None]).score_samples(at[:, None])
    np.testing.assert_allclose(statistics.density(values, at), np.exp(oracle), rtol=1e-6)


@pytest.mark.parametrize("values", [[], [2.0], [2.0, 2.0]])
def test_there_is_no_density_without_spread(values):
    assert not statistics.density(np.array(values), np.linspace(0, 3, 5)).any()


def test_components_are_those_of_the_singular_value_decomposition(images):
    pixels = images.reshape(120, -1) / 255
    _, values, axes = np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)
    found = statistics.principal_components(images, 4)
    np.testing.assert_allclose(found.share, (values**2 / (values**2).sum())[:4], rtol=1e-4)
    expected = (pixels - pixels.mean(axis=0)) @ axes[:4].T
    np.testing.assert_allclose(np.abs(found.scores), np.abs(expected), atol=1e-3)


def test_components_of_black_images(images):
    found = statistics.principal_components(np.zeros_like(images))
    assert np.isnan(found.share).all()
    assert not found.scores.any()


def test_unusual_is_what_varies_as_its_class_does_not():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2, dtype=np.int32), 200)
    scores = rng.normal(size=(400, 2)).astype(np.float32) * np.float32([10, 1])
    scores[labels == 1] += np.float32([0, 50])  # far from the other class, and that is no matter
    scores[17] = 0, 8  # nearer to its mean than many, but off the long axis
    assert statistics.unusual(scores, labels, 0, 3)[0] == 17
    assert set(labels[statistics.unusual(scores, labels, 1, 3)]) == {1}
    assert statistics.unusual(scores[:2], labels[:2], 0, 3) == []


@given(arrays(np.uint8, st.tuples(st.integers(0, 12), st.just(2), st.just(1), st.just(1)),
              elements=st.integers(0, 2)))  # fmt: skip
def test_duplicates_are_all_groups_of_equal_images(images):
    n = len(images)
    equal = [[j for j in range(n) if (images[i] == images[j]).all()] for i in range(n)]
    expected = [group for i, group in enumerate(equal) if group[0] == i and len(group) > 1]
    assert statistics.duplicates(images) == expected
