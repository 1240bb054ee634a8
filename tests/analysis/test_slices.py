"""Slices: moments of shapes that are known, and parts that make up the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.stats import binomtest
from sklearn.metrics import recall_score

from mnist_jax.analysis import slices

Y, X = np.mgrid[:28, :28] - 13.5


def painted(*inks):
    """Images (n, 28, 28, 1) of ink in [0, 1]."""
    return np.round(255 * np.stack(inks)[..., None]).astype(np.uint8)


def bar(width, degrees=0.0):
    """An upright bar with soft edges, its top sheared to the right."""
    distance = np.abs(X + Y * np.tan(np.radians(degrees)))  # y points down
    return np.clip(width / 2 + 0.5 - distance, 0, 1) * (np.abs(Y) < 10)


def test_a_bar_leans_as_it_was_sheared():
    degrees = [-40.0, -10.0, 0.0, 10.0, 40.0]
    leaning = slices.slant(painted(*(bar(3, angle) for angle in degrees)))
    np.testing.assert_allclose(leaning, degrees, atol=0.3)


def test_a_slash_leans_to_the_right():
    slash = painted(np.fliplr(np.eye(28)))
    assert slash[0, 0, 27, 0] == 255
    np.testing.assert_allclose(slices.slant(slash), 45)


@pytest.mark.parametrize("width", [3, 4.5, 6])
@pytest.mark.parametrize("angle", [0, 20, 45, 90])
def test_a_stroke_is_as_thick_as_it_was_drawn(width, angle):
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    across, along = np.abs(X * cos + Y * sin), np.abs(X * sin - Y * cos)
    stroke = np.clip(width / 2 + 0.5 - across, 0, 1) * np.clip(10.5 - along, 0, 1)
    expected = 2 * width * 20 / (2 * 20 + 2 * width)  # its ends are edges too
    np.testing.assert_allclose(slices.thickness(painted(stroke)), expected, rtol=0.05)


def test_thickness_grows_with_dilation_and_not_with_brightness():
    thin, thick = bar(2, 15), ndimage.grey_dilation(bar(2, 15), size=(3, 3))
    one, two, dim = slices.thickness(painted(thin, thick, 0.5 * thin))
    assert two > one + 1
    assert dim == pytest.approx(one, rel=0.01)


@pytest.mark.parametrize("radius", [4, 8, 12])
def test_the_size_of_a_disc(radius):
    disc = np.clip(radius + 0.5 - np.hypot(X, Y), 0, 1)
    shifted = ndimage.shift(disc, (1, -1), order=0)
    found = slices.size(painted(disc, shifted))
    np.testing.assert_allclose(found, radius / np.sqrt(2), rtol=0.02)


def test_a_black_image_has_no_shape():
    images = painted(np.zeros((28, 28)), bar(3))
    for measure in (slices.slant, slices.size, slices.thickness):
        assert np.isfinite(measure(images)).tolist() == [False, True]
    for group in slices.by_shape(np.array([False, True]), images).values():
        assert [(part.total, part.correct) for part in group] == [(1, 1)]


def test_slices_have_their_accuracy_and_wilsons_interval():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    predicted = np.where(rng.random(200) < 0.8, labels, rng.integers(0, 3, 200))
    found = slices.by_value(predicted == labels, labels.astype(np.float64), 30)
    assert [part.name for part in found] == ["0 to 0", "1 to 1", "2 to 2"]
    expected = recall_score(labels, predicted, average=None)
    np.testing.assert_allclose([part.accuracy for part in found], expected)
    for part in found:
        bounds = binomtest(part.correct, part.total).proportion_ci(method="wilson")
        assert (part.low, part.high) == pytest.approx((bounds.low, bounds.high))


@given(arrays(np.float64, st.integers(0, 60), elements=st.floats(-1e3, 1e3)), st.integers(1, 7))
def test_slices_by_value_make_up_the_whole(values, parts):
    correct = np.arange(len(values)) % 3 > 0
    found = slices.by_value(correct, values, parts)
    assert len(found) <= parts
    assert sum(part.total for part in found) == len(values)
    assert sum(part.correct for part in found) == correct.sum()
    if len(np.unique(values)) == len(values) >= parts:
        sizes = [part.total for part in found]
        assert len(found) == parts
        assert max(sizes) - min(sizes) <= 1


def test_slices_by_value_are_in_order_and_say_their_range():
    values = np.arange(10.0)
    found = slices.by_value(values >= 5, values, 2, "px")
    assert [(part.name, part.accuracy) for part in found] == [("0 to 4 px", 0), ("5 to 9 px", 1)]
