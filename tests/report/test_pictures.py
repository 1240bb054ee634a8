"""Pictures read back with Pillow."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mnist_jax.report import pictures


def read(uri):
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_comes_back_as_it_was(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    np.testing.assert_array_equal(read(pictures.png(pixels)).reshape(pixels.shape), pixels)


def test_colour_tells_the_sign_and_opacity_the_size():
    drawn = pictures.signed(np.array([[0.5, -2.0, 0.0, 2.0]]))
    assert drawn[0, :, 3].tolist() == [64, 255, 0, 255]
    assert [tuple(colour) for colour in drawn[0, [0, 1, 3], :3].tolist()] == [
        pictures.POSITIVE,
        pictures.NEGATIVE,
        pictures.POSITIVE,
    ]


@pytest.mark.parametrize("nothing", [0.0, np.nan, np.inf])
def test_what_is_nothing_or_no_number_is_not_there(nothing):
    assert not pictures.signed(np.full((2, 2), nothing))[..., 3].any()


def test_an_overlay_leaves_the_image_where_there_is_nothing_to_say():
    image = np.full((1, 3, 1), 250, np.uint8)
    drawn = pictures.overlay(image, np.array([[0.0, 3.0, -3.0]]))
    assert drawn[0].tolist() == [[150] * 3, [*pictures.POSITIVE], [*pictures.NEGATIVE]]


def test_grey_is_from_black_to_white():
    values = np.array([-0.1, 0.0, 0.5, 1.0, 1.4], np.float32)
    assert pictures.grey(values).tolist() == [0, 0, 128, 255, 255]
