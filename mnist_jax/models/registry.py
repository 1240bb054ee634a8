"""Models by name, with the default of each field; a config is checked without importing Flax.

Adding a model takes a builder and an entry of `MODELS`. Its fields become keys of `config.model`. A
builder of a module of your own defines the module inside, where it imports Flax.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Float32

from mnist_jax.types import Array, Fields, Option, UserError, unread

DTYPES = ("float32", "bfloat16")
PRECISIONS = ("default", "high", "highest")  # of `jax.default_matmul_precision`
ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu")
PADDINGS = ("SAME", "VALID")


class Rates(NamedTuple):
    """Dropout rates, traced: changing one never recompiles, and trials may differ."""

    conv_dropout: Float32[Array, "*trials stages"]  # after each stage of a CNN
    dropout: Float32[Array, "*trials layers"]  # after each hidden layer


class Layer(NamedTuple):
    """A row of a model's summary."""

    path: str  # as in the tree of parameters: "head/Dense_0"
    kind: str
    output_shape: tuple[int, ...]  # of one image
    num_params: int
    flops: int  # of one image's forward pass, 2 for a multiplication with its addition
    detail: str = ""  # a convolution's kernel, and its pool if it has one


class Entry(NamedTuple):
    """A model: its builder, and the default of every field; a tuple of one serves every layer.

    The builder takes (fields, number of outputs, dtype) and returns a Linen module called as
    `module(images, rates)`. In its fields, "dropout" and "conv_dropout" are whether rates are above
    0; `rates` is None in evaluation.
    """

    build: Callable[[Mapping[str, Any], int, Any], Any]
    fields: dict[str, Any]


def _dense(net: Mapping[str, Any], num_outputs: int, dtype: Any) -> Any:
    from mnist_jax.models import networks

    return networks.MLP(
        widths=net.get("widths", ()),
        dropout=net["dropout"],
        activation=getattr(networks.nn, net.get("activation", "relu")),
        num_outputs=num_outputs,
        dtype=dtype,
        standardise=net.get("standardise", False),
    )


def _rbf(net: Mapping[str, Any], num_outputs: int, dtype: Any) -> Any:
    from mnist_jax.models import networks

    return networks.RBF(net["features"], net["gamma"], _dense(net, num_outputs, dtype))


def _cnn(net: Mapping[str, Any], num_outputs: int, dtype: Any) -> Any:
    from mnist_jax.models import networks

    stages = ("channels", "kernels", "pools", "conv_dropout", "padding", "batch_norm")
    head = _dense(net, num_outputs, dtype)
    return networks.CNN(**{field: net[field] for field in stages}, head=head)


_MLP = {"widths": (512, 256), "dropout": (0.0,), "activation": "relu"}
MODELS = {
    "linear": Entry(_dense, {"standardise": False}),
    "rbf": Entry(_rbf, {"features": 4096, "gamma": 0.02}),
    "mlp": Entry(_dense, _MLP),
    "cnn": Entry(
        _cnn,
        {
            "channels": (32, 64),
            "kernels": (3,),
            "pools": (2,),
            "conv_dropout": (0.0,),
            "padding": "SAME",
            "batch_norm": True,
            **_MLP,
            "widths": (256,),
        },
    ),
}


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1  # True is an int to isinstance


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1


def _is_positive(value: Any) -> bool:
    return 0 < value < math.inf


_COUNT = (_is_count, "a whole number of 1 or more")
_RATE = (_is_rate, "a rate in [0, 1)")
_HELP = {
    "widths": "units of the hidden dense layers",
    "dropout": "rate after each of them",
    "activation": f"one of {', '.join(ACTIVATIONS)}",
    "channels": "of the convolutions, one a stage",
    "kernels": "sides of the convolutions",
    "pools": "sides of the max-pooling after them; 1: none",
    "conv_dropout": "rate after each stage",
    "padding": f"one of {', '.join(PADDINGS)}",
    "batch_norm": "after each pool, in place of a bias",
    "standardise": "give each pixel mean 0 and variance 1",
    "features": "number of random features",
    "gamma": "the kernel is exp(-gamma |x - y|^2)",
}
_SHARED = {
    "name": Option("mlp", "the model; its own defaults hold for the fields that are None", MODELS),
    "dtype": Option(
        "float32", "of the computation (see matmul_precision); parameters are float32", DTYPES
    ),
    "matmul_precision": Option(
        str,
        "of products of float32; default: TF32 on a GPU, bfloat16 on a TPU; None: JAX's setting",
        PRECISIONS,
    ),
    "init_scale": Option(1.0, "factor on the initial weights", "[0, inf)"),
}
OPTIONS = {
    **_SHARED,
    **{
        field: Option(type(value), _HELP.get(field, ""))
        for entry in MODELS.values()
        for field, value in entry.fields.items()
    },
}

# Fields with a value for each layer, and the field that says how many layers there are.
_PER_LAYER = {
    "dropout": "widths",
    **dict.fromkeys(("kernels", "pools", "conv_dropout"), "channels"),
}
# Fields with one value out of a few, and those whose values, one or several, pass a check.
_CHOICES = {"activation": ACTIVATIONS, "padding": PADDINGS}
_CHECKS = {
    **dict.fromkeys(("widths", "channels", "kernels", "pools", "features"), _COUNT),
    **dict.fromkeys(("dropout", "conv_dropout"), _RATE),
    "gamma": (_is_positive, "more than 0 and finite"),
}


def unused(config: Fields) -> dict[str, str]:
    """Return the fields that are set, but not the model's, and why; see `types.unread`."""
    return unread(config, config["name"], {name: entry.fields for name, entry in MODELS.items()})


def fields(config: Fields) -> dict[str, Any]:
    """Return every field of the model that `config.model` names: the config's values or defaults.

    Raises:
      UserError: the model has no such field, or a value is impossible.
    """
    net = dict(MODELS[config["name"]].fields)
    for field, value in config.items():
        if field in _SHARED or value is None:
            continue
        if field not in net:
            why = unused(config).get(field, f"no such field; there are {', '.join(net)}")
            raise UserError(f"config.model.{field}: {why}")
        net[field] = tuple(value) if isinstance(value, list) else value
    for field, value in net.items():
        if field in _CHOICES and value not in _CHOICES[field]:
            raise UserError(
                f"config.model.{field}: no '{value}'; there are {', '.join(_CHOICES[field])}"
            )
        is_valid, expected = _CHECKS.get(field, (None, ""))
        for one in value if isinstance(value, tuple) else (value,):
            if is_valid and not is_valid(one):
                raise UserError(f"config.model.{field}: {one!r} is not {expected}")
        if layers := _PER_LAYER.get(field):
            count = len(net[layers])
            if len(value) not in (1, count):
                raise UserError(
                    f"config.model.{field}: {len(value)} values for {count} {layers}; "
                    "give one for each, or a single one for all"
                )
            net[field] = value * count if len(value) == 1 else value
    side = 28
    for kernel, pool in zip(net.get("kernels", ()), net.get("pools", ()), strict=True):
        side = (side - kernel + 1 if net["padding"] == "VALID" else side) // pool
        if side < 1:
            raise UserError(
                "config.model.pools: the convolutions and pools leave no pixel of 28x28; "
                "take fewer stages or smaller kernels and pools"
            )
    return net
