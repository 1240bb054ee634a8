"""The named nets and the fields each has; plain data, to check a config without Flax."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from mnist_jax.types import Fields, UserError

ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "sigmoid", "elu", "leaky_relu")
PADDINGS = ("SAME", "VALID")

_MLP = {"widths": (512, 256), "dropout": (0.0,), "activation": "relu"}
_CNN = {
    "channels": (32, 64),
    "kernels": (3,),
    "pools": (2,),  # 1: none
    "conv_dropout": (0.0,),
    "padding": "SAME",
    "batch_norm": False,
    **_MLP,
    "widths": (256,),
}

# What `config.model.name` may say, with every field the net has; a tuple of one serves every layer.
NETS: dict[str, dict[str, Any]] = {
    "linear": {"standardise": False},  # each pixel: mean 0, variance 1
    "rbf": {"features": 4096, "gamma": 0.02},  # a kernel machine by random Fourier features
    "mlp": _MLP,
    "cnn": {**_CNN, "batch_norm": True},
}

# Fields with a value for each layer, and the field that says how many layers there are.
_PER_LAYER = {
    "dropout": "widths",
    "kernels": "channels",
    "pools": "channels",
    "conv_dropout": "channels",
}

# Fields with one value out of a few.
_CHOICES = {"activation": ACTIVATIONS, "padding": PADDINGS}


class Layer(NamedTuple):
    """A row of a net's summary."""

    path: str  # as in the tree of parameters: "head/Dense_0"
    kind: str
    output_shape: tuple[int, ...]  # of one image
    num_params: int
    flops: int  # of one image's forward pass, 2 for a multiplication with its addition
    detail: str = ""  # a convolution's kernel, and its pool if it has one


def fields(config: Fields) -> dict[str, Any]:
    """Every field of the net that `config.model` names, the config's own values over the net's.

    Raises:
      UserError: the net has no such field, or a value is impossible.
    """
    net = NETS[config["name"]]
    given = {
        k: v
        for k, v in config.items()
        if k not in ("name", "dtype", "init_scale") and v is not None
    }
    for field in given:
        if field not in net:
            raise UserError(
                f"config.model.{field}: model '{config['name']}' has no such field; it has "
                f"{', '.join(net)}"
            )
    merged = {**net, **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}}
    for field, layers in _PER_LAYER.items():
        if field in merged:
            merged[field] = _one_each(field, tuple(merged[field]), layers, len(merged[layers]))
    _check(merged)
    return merged


def _one_each(field: str, values: tuple, layers: str, count: int) -> tuple:
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise UserError(
            f"config.model.{field}: {len(values)} values for {count} {layers}; "
            "give one for each, or a single one for all"
        )
    return values


def _check(net: Mapping[str, Any]) -> None:
    for field, known in _CHOICES.items():
        if field in net and net[field] not in known:
            raise UserError(
                f"config.model.{field}: no '{net[field]}'; there are {', '.join(known)}"
            )
    for field in ("widths", "channels", "kernels", "pools", "features"):
        values = net.get(field, ())
        for value in values if isinstance(values, tuple) else (values,):
            if type(value) is not int or value < 1:  # True is an int to isinstance
                raise UserError(
                    f"config.model.{field}: {value!r} is not a whole number of 1 or more"
                )
    for field in ("dropout", "conv_dropout"):
        for value in net.get(field, ()):
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise UserError(f"config.model.{field}: {value!r} is not a rate in [0, 1)")
    if "gamma" in net and not 0 < net["gamma"] < math.inf:
        raise UserError(f"config.model.gamma: {net['gamma']} is not more than 0 and finite")
    if "channels" not in net:
        return
    side = 28
    for kernel, pool in zip(net["kernels"], net["pools"], strict=True):
        side = (side - kernel + 1 if net["padding"] == "VALID" else side) // pool
        if side < 1:
            raise UserError(
                "config.model.pools: the convolutions and pools leave no pixel of 28x28; "
                "take fewer stages or smaller kernels and pools"
            )
