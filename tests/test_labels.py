"""What a task makes of a data set's classes, and what it says of impossible ones."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from mnist_jax import config as configs
from mnist_jax import labels
from mnist_jax.types import UserError

CLASSES = np.array([5, 0, 7, 9, 1, 5], np.int32)
NAMES = tuple("0123456789")


def task(**fields) -> ConfigDict:
    config = configs.default()
    config.task.update(fields)
    configs.validate(config)
    return config.task


def test_classes_stay_what_they_are():
    for name in ("multiclass", "one_vs_rest", "one_vs_one", "denoise"):
        found, names = labels.relabel(task(name=name), CLASSES, NAMES)
        np.testing.assert_array_equal(found, CLASSES)
        assert names == NAMES


def test_binary_asks_for_some_classes():
    found, names = labels.relabel(task(name="binary"), CLASSES, NAMES)
    assert (found.tolist(), names) == ([1, 0, 0, 0, 0, 1], ("not 5", "5"))
    found, names = labels.relabel(task(name="binary", positive=(0, 9)), CLASSES, NAMES)
    assert (found.tolist(), names) == ([0, 1, 0, 1, 0, 0], ("not 0 or 9", "0 or 9"))


def test_multilabel_asks_several_things():
    found, names = labels.relabel(task(name="multilabel"), CLASSES, NAMES)
    assert names == ("large", "odd")
    np.testing.assert_array_equal(found, np.stack([CLASSES >= 7, CLASSES % 2 == 1], 1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "multi"}, r"config.task.name: no 'multi'; there are multiclass, "),
        ({"name": "one_vs_one", "loss": "softmax"}, "has no 'softmax'; it has hinge, logistic"),
        ({"name": "binary", "positive": ()}, "config.task.positive: which classes"),
        ({"name": "binary", "positive": (10,)}, "positive: 10 is no class; they are 0 to 9"),
        ({"name": "binary", "positive": tuple(range(10))}, "are all classes there are"),
        ({"name": "multilabel", "labels": "large"}, "labels: is not names with their classes"),
        ({"name": "multilabel", "labels": '{"large": []}'}, "is not names with their classes"),
        ({"name": "multilabel", "labels": '{"large": [7, "8"]}'}, "labels: '8' is no class"),
        ({"name": "denoise", "noise": 0}, "config.task.noise: 0 grey levels"),
    ],
)
def test_what_is_impossible_is_told_in_one_line(fields, message):
    with pytest.raises(UserError, match=message) as error:
        labels.relabel(task(**fields), CLASSES, NAMES)
    assert "\n" not in str(error.value)


def test_a_hinge_is_not_smoothed():
    config = configs.default()
    config.task.name, config.optim.label_smoothing = "one_vs_rest", 0.1
    with pytest.raises(UserError, match="label_smoothing: the loss 'hinge' of 'one_vs_rest' has"):
        configs.validate(config)
