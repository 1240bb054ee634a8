"""The families of nets: their sizes, computed by hand, and what may be changed in them."""

import math

import jax
import pytest
from ml_collections import ConfigDict

from mnist_jax.models import networks, registry
from mnist_jax.types import UserError

# Of ten classes and 28x28x1.
NUM_PARAMS = {
    "linear": 784 * 10 + 10,
    "rbf": 4096 * 10 + 10,
    "mlp": 535_818,
    "cnn": 824_458 - (32 + 64) + 2 * (32 + 64),  # scale and shift of each map in place of a bias
}


def build(name: str, **fields) -> networks.Model:
    return networks.build({"name": name, "dtype": "float32", **fields}, 10)


@pytest.mark.parametrize("name", registry.MODELS)
def test_every_net_has_the_size_it_is_known_for(name):
    params = jax.eval_shape(build(name).init, jax.random.key(0))["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == NUM_PARAMS[name]


def test_a_single_value_serves_every_layer():
    net = registry.fields({"name": "cnn", "channels": (4, 5, 6), "dropout": (0.1,)})
    assert net["kernels"] == (3, 3, 3)
    assert net["pools"] == (2, 2, 2)
    assert net["dropout"] == (0.1,)


def test_what_json_made_of_a_config_is_the_same_net():
    given = {"name": "mlp", "dtype": "float32", "widths": (7, 8), "dropout": (0.5,)}
    from_json = {**given, "widths": [7, 8], "dropout": [0.5], "activation": None}
    assert registry.fields(ConfigDict(from_json)) == registry.fields(given)
    assert registry.fields(given)["widths"] == (7, 8)


def test_changing_a_net_leaves_the_named_one_as_it_is():
    before = registry.fields({"name": "mlp"})
    registry.fields({"name": "mlp", "widths": (1,), "activation": "tanh"})
    assert registry.fields({"name": "mlp"}) == before
    assert (before["widths"], before["activation"]) == ((512, 256), "relu")


@pytest.mark.parametrize(("padding", "side"), [("SAME", 14), ("VALID", 12)])
def test_every_padding_can_be_built(padding, side):
    model = build("cnn", channels=(2,), kernels=(5,), padding=padding)
    assert model.layers()[0].output_shape == (side, side, 2)
    assert padding in registry.PADDINGS


@pytest.mark.parametrize(
    ("name", "field", "value", "complaint"),
    [
        ("linear", "widths", (8,), "linear does not use it; mlp and cnn do"),
        ("mlp", "channels", (8,), "mlp does not use it; cnn does"),
        ("mlp", "depth", 3, "no such field; there are widths, dropout, activation"),
        ("mlp", "widths", (0,), "0 is not a whole number of 1 or more"),
        ("mlp", "widths", (1.5,), "1.5 is not a whole number"),
        ("mlp", "widths", (True,), "True is not a whole number"),
        ("mlp", "widths", ("a",), "'a' is not a whole number"),
        ("mlp", "dropout", (1.0,), "1.0 is not a rate in [0, 1)"),
        ("mlp", "dropout", (-0.1,), "-0.1 is not a rate"),
        ("mlp", "dropout", (math.nan,), "nan is not a rate"),
        ("mlp", "dropout", ("a",), "'a' is not a rate"),
        ("mlp", "dropout", (0.1, 0.2, 0.3), "3 values for 2 widths; give one for each, or"),
        ("mlp", "dropout", (), "0 values for 2 widths"),
        ("mlp", "activation", "rellu", "no 'rellu'; there are relu, gelu,"),
        ("cnn", "padding", "same", "no 'same'; there are SAME, VALID"),
        ("cnn", "kernels", (3, 3, 3), "3 values for 2 channels"),
        ("cnn", "pools", (2, 2, 2), "3 values for 2 channels"),
        ("cnn", "conv_dropout", (0, 0, 0), "3 values for 2 channels"),
        ("cnn", "conv_dropout", (1.0,), "1.0 is not a rate"),
        ("cnn", "kernels", (0,), "0 is not a whole number"),
        ("cnn", "pools", (0,), "0 is not a whole number"),
        ("rbf", "features", 0, "0 is not a whole number"),
        ("rbf", "gamma", 0.0, "0.0 is not more than 0 and finite"),
        ("cnn", "pools", (5, 6), "leave no pixel of 28x28"),
    ],
)
def test_an_impossible_net_is_refused(name, field, value, complaint):
    config = {"name": name, "dtype": "float32", field: value}
    with pytest.raises(UserError) as refused:
        registry.fields(config)
    assert str(refused.value).startswith(f"config.model.{field}: ")
    assert complaint in str(refused.value)
    with pytest.raises(UserError):
        networks.build(config, 10)


@pytest.mark.parametrize(
    ("padding", "fits", "too_much"),
    [
        ("SAME", {"pools": (5, 5)}, {"pools": (5, 6)}),
        ("VALID", {"kernels": (28, 1), "pools": (1,)}, {"kernels": (29, 1), "pools": (1,)}),
        ("VALID", {"kernels": (3, 12)}, {"kernels": (3, 13)}),
    ],
    ids=["pools", "kernels", "both"],
)
def test_a_net_may_leave_one_pixel_but_not_none(padding, fits, too_much):
    small = {"channels": (2, 2), "padding": padding}
    stages = [row for row in build("cnn", **small, **fits).layers() if row.kind == "Conv"]
    assert stages[-1].output_shape == (1, 1, 2)
    with pytest.raises(UserError, match="leave no pixel"):
        build("cnn", **small, **too_much)
