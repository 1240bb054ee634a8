"""What a run learns from and is judged by, as its config says."""

import numpy as np
import pytest

from mnist_jax import config as configs
from mnist_jax.data import datasets, splits
from mnist_jax.types import UserError


def load(**overrides):
    config = configs.default()
    config.update_from_flattened_dict({"data.name": "digits", **overrides})
    return splits.load(config)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def pixels(*parts):
    """The images of splits, each as bytes."""
    return sorted(image.tobytes() for part in parts for image in part.images)


@pytest.mark.parametrize(("val_size", "count"), [(0.1, 144), (100, 100), (0, 0), (0.0, 0)])
def test_validation_is_taken_from_the_training_examples(digits, val_size, count):
    found = load(**{"data.val_size": float(val_size)})
    assert len(found.val.labels) == len(found.val.images) == count
    assert len(found.train.labels) == len(found.train.images) == 1437 - count
    assert pixels(found.train, found.val) == sorted(x.tobytes() for x in digits.train_images)
    assert (found.name, found.class_names) == ("digits", digits.class_names)
    assert found.fingerprint == digits.fingerprint


def test_an_image_keeps_its_label(digits):
    labels = {
        image.tobytes(): label
        for image, label in zip(digits.train_images, digits.train_labels, strict=True)
    }
    found = load()
    for part in (found.train, found.val):
        assert [labels[image.tobytes()] for image in part.images] == part.labels.tolist()


def test_the_test_split_is_never_touched(digits):
    for overrides in ({}, {"seed": 1}, {"data.val_size": 0.0}):
        test = load(**overrides).test
        np.testing.assert_array_equal(test.images, digits.test_images)
        np.testing.assert_array_equal(test.labels, digits.test_labels)


def test_the_split_seed_makes_the_split_and_all_seeds_share_it():
    first, other = load(seed=3), load(**{"data.split_seed": 4})
    again = load(seed=4)
    np.testing.assert_array_equal(first.val.images, again.val.images)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert pixels(first.val) != pixels(other.val)


def test_a_batch_is_no_larger_than_the_training_split():
    assert len(load(**{"train.batch_size": 1293}).train.labels) == 1293
    with pytest.raises(UserError) as error:
        load(**{"train.batch_size": 1294})
    assert str(error.value) == (
        "config.train.batch_size: 1294 is more than the 1,293 training examples of digits"
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.val_size": 1437.0}, "val_size=1437.0: leaves nothing"),
        ({"data.val_size": 3.0}, "leaves validation without the class"),
        ({"data.name": "csv:/nowhere/digits.csv"}, "/nowhere/digits.csv: cannot be read"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(overrides, message):
    with pytest.raises(UserError, match=message) as error:
        load(**overrides)
    assert "\n" not in str(error.value)


def test_each_outer_fold_is_held_out_once():
    whole = load(**{"data.val_size": 0.0})
    parts = list(splits.outer_folds(whole, 3, seed=1))
    assert len(parts) == 3
    assert pixels(*(part.test for part in parts)) == pixels(whole.train)
    for part in parts:
        assert pixels(part.train, part.test) == pixels(whole.train)
        assert len(part.test.labels) == 479
        assert len(part.val.labels) == 0
        assert part.fingerprint == whole.fingerprint
    again = next(splits.outer_folds(whole, 3, seed=1))
    np.testing.assert_array_equal(again.test.labels, parts[0].test.labels)
