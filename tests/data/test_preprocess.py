"""Preprocessing against SciPy's ndimage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mnist_jax.data import datasets, preprocess

few = settings(max_examples=10)


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """The last of which is not full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess, "_AT_ONCE", 8)
        yield


@pytest.fixture(scope="module")
def images():
    return datasets.load("digits").test_images[:30]


def moments(image):
    """Centre (y, x) and slant (columns a row) of an image's mass, in float64."""
    mass = image[..., 0].astype(np.float64) / image.sum()
    y, x = np.mgrid[: mass.shape[0], : mass.shape[1]]
    centre = np.array([(mass * y).sum(), (mass * x).sum()])
    y, x = y - centre[0], x - centre[1]
    return centre, (mass * y * x).sum() / (mass * y * y).sum()


def test_deskewing_is_scipys_shear_about_the_centre_of_mass(images):
    middle = np.array([13.5, 13.5])
    for image, ours in zip(images, preprocess.deskew(images), strict=True):
        centre, slant = moments(image)
        shear = np.array([[1, 0], [slant, 1]])
        expected = ndimage.affine_transform(
            image[..., 0].astype(np.float64),
            shear,
            centre - shear @ middle,
            order=1,
            mode="grid-constant",
        )
        np.testing.assert_allclose(ours[..., 0], expected, atol=0.501)  # rounded


def test_what_is_deskewed_stands_upright_in_the_middle(images):
    slants = [abs(moments(image)[1]) for image in images]
    assert max(slants) > 0.2
    for image in np.asarray(preprocess.deskew(images)):
        centre, slant = moments(image)
        np.testing.assert_allclose(centre, 13.5, atol=0.005)
        assert abs(slant) < 0.005


def test_images_without_a_slant(images):
    lines = np.zeros((3, 28, 28, 1), np.uint8)  # of the first image nothing is to be seen
    lines[1, 6, 4:11] = 200
    lines[2, 6:10, 4] = 200
    black, flat, upright = np.asarray(preprocess.deskew(lines))[..., 0]
    assert not black.any()
    # Between two pixels: half of the line on either side.
    assert flat[13:15].tolist() == [[0] * 10 + [50] + [100] * 6 + [50] + [0] * 10] * 2
    assert upright[12:16, 13:15].tolist() == [[100, 100]] * 4
    assert (flat.astype(int).sum(), upright.astype(int).sum()) == (7 * 200, 4 * 200)


@few
@given(st.floats(0.3, 3), st.integers(0, 99))
def test_blurring_is_scipys_gaussian(sigma, seed):
    images = np.random.default_rng(seed).integers(0, 256, (9, 28, 21, 2), np.uint8)
    expected = ndimage.gaussian_filter(
        images.astype(np.float64), (0, sigma, sigma, 0), mode="constant", truncate=10
    )
    np.testing.assert_allclose(preprocess.blur(images, sigma), expected, atol=0.501)


def test_shifts_are_scipys(images):
    ours = np.asarray(preprocess.shifts(images))
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    expected = [ndimage.shift(images, (0, *move, 0), order=0) for move in moves]
    np.testing.assert_array_equal(ours, np.concatenate(expected))
    assert ours.dtype == np.uint8
