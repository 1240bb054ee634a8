"""The configuration: its defaults, what may be in it, and what differs between two."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mnist_jax import labels
from mnist_jax.models import registry
from mnist_jax.types import UserError

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "one_cycle", "step", "exponential", "plateau")
DTYPES = ("float32", "bfloat16")
FILLS = ("nearest", "constant")

# Where the data lies is no part of what a run is: its fingerprint is.
_PLACES = ("data.archives", "data.data_dir", "data.offline_fallback")


_RENAMED = {"members": "sweep"}  # sections of earlier versions


def default() -> ConfigDict:
    """Every key with its default; a file in configs/ starts from here."""
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "name": "mnist",  # mnist, fashion_mnist, digits, csv:PATH or a tfds builder
                "split_seed": 0,  # of the validation split and of folds: all seeds share them
                "val_size": 0.1,  # a fraction below 1, a number of examples from 1; 0: none
                "archives": placeholder(str),  # folder of official archives; $MNIST_JAX_ARCHIVES
                "data_dir": placeholder(str),  # where data is prepared; tfds's own folder
                "offline_fallback": False,  # train on digits where the data cannot be had
            },
            "task": {
                "name": "multiclass",  # or one_vs_rest, one_vs_one, binary, multilabel, denoise
                "loss": placeholder(str),  # softmax, logistic, hinge, squared; None: the task's own
                "positive": (5,),  # binary: the classes that are a yes
                "labels": '{"large": [7, 8, 9], "odd": [1, 3, 5, 7, 9]}',  # multilabel
                "noise": 100,  # denoise: grey levels of noise, 0 to one less, on each pixel
            },
            "model": {
                "name": "mlp",  # a name in nets.NETS; None below: the net's own value
                "dtype": "float32",  # of the computation; parameters are always float32
                "init_scale": 1.0,  # factor on the initial weights
                "widths": placeholder(tuple),  # hidden dense layers
                "dropout": placeholder(tuple),  # after each of them
                "activation": placeholder(str),
                "channels": placeholder(tuple),  # convolutions, one a stage
                "kernels": placeholder(tuple),  # their sides
                "pools": placeholder(tuple),  # sides of the max-pooling after them; 1: none
                "conv_dropout": placeholder(tuple),  # after each stage
                "padding": placeholder(str),
                "batch_norm": placeholder(bool),
                "standardise": placeholder(bool),  # linear: the inputs, pixel by pixel
                "features": placeholder(int),  # rbf: how many random ones
                "gamma": placeholder(float),  # rbf: the kernel is exp(-gamma |x - y|^2)
            },
            "train": {
                "epochs": 10,
                "batch_size": 128,
                "augment": {
                    "rotation": 0.0,  # degrees, uniform in ±
                    "zoom": 0.0,  # each axis, uniform in 1 ±
                    "shift": 0.0,  # fraction of the side, uniform in ±
                    "shear": 0.0,  # degrees, uniform in ±
                    "erase": 0.0,  # probability of erasing a rectangle
                    "flip": 0.0,  # probability of mirroring left and right
                    "fill": "nearest",  # what lies outside the image: nearest or constant (0)
                },
            },
            "optim": {
                "name": "adam",
                "learning_rate": 1e-3,  # the schedule's peak
                "schedule": "constant",
                "warmup": 0.3,  # cosine and one_cycle: rising share of the steps
                "decay": 0.1,  # step, exponential and plateau: factor ...
                "decay_epochs": 10,  # ... every so many epochs (plateau: without improvement)
                "weight_decay": 0.0,
                "label_smoothing": 0.0,
                "clip": 0.0,  # largest norm of the whole gradient; 0: any
                "ema": 0.0,  # decay of the averaged parameters that are evaluated; 0: off
                "momentum": 0.9,  # momentum
                "b1": 0.9,  # adam, adamw
                "b2": 0.999,
            },
            "sweep": {  # several trials in one run: all combinations of the following
                "seeds": 1,  # so many, from config.seed on
                "folds": 0,  # of cross-validation, in place of data.val_size; 0: none
                "outer_folds": 0,  # around it: nested cross-validation; 0: none
                "settings": placeholder(str),  # [{}, {"optim.clip": 1.0}, ...]: JSON
                "grid": placeholder(str),  # {"optim.learning_rate": [1e-3, 3e-3], ...}
                "random": placeholder(str),  # {"optim.learning_rate": [1e-4, 1e-2, "log"], ...}
                "samples": 10,  # random: how many settings are drawn
                "share_batches": False,  # all see the same examples at the same time
                "halving": (),  # after these epochs the worse half of the settings is dropped
                "patience": 0,  # epochs without a better validation until one stops; 0: never
                "width": 0,  # of one program, vmapped; 0: as suits the net and the device
            },
        }
    )


def validate(config: ConfigDict) -> None:
    """Refuses what no run could use.

    Raises:
      UserError: names the key, its value and what it may be.
    """
    _same_keys(config)
    data, model, train, optim = config.data, config.model, config.train, config.optim
    _one_of("model.name", model.name, registry.NETS)
    _one_of("model.dtype", model.dtype, DTYPES)
    registry.fields(model)
    labels.check(config.task)
    _range("model.init_scale", model.init_scale, 0)
    _one_of("train.augment.fill", train.augment.fill, FILLS)
    _one_of("optim.name", optim.name, OPTIMIZERS)
    _one_of("optim.schedule", optim.schedule, SCHEDULES)
    _range("seed", config.seed, 0, 2**32)
    _range("data.split_seed", data.split_seed, 0, 2**32)
    _range("data.val_size", data.val_size, 0)
    _range("train.epochs", train.epochs, 1)
    _range("train.batch_size", train.batch_size, 1)
    for name in ("rotation", "shift"):
        _range(f"train.augment.{name}", train.augment[name], 0)
    _range("train.augment.zoom", train.augment.zoom, 0, 1)
    _range("train.augment.shear", train.augment.shear, 0, 90)
    for name in ("erase", "flip"):
        _range(f"train.augment.{name}", train.augment[name], 0, 1, closed=True)
    _range("optim.learning_rate", optim.learning_rate, 0, open_below=True)
    _range("optim.weight_decay", optim.weight_decay, 0)
    _range("optim.clip", optim.clip, 0)
    _range("optim.decay_epochs", optim.decay_epochs, 1)
    _range("optim.decay", optim.decay, 0, 1, open_below=True)
    for name in ("label_smoothing", "ema", "momentum", "b1", "b2", "warmup"):
        _range(f"optim.{name}", optim[name], 0, 1)
    if optim.label_smoothing and not labels.smoothed(config.task):
        raise UserError(
            f"config.optim.label_smoothing: the loss '{labels.loss(config.task)}' of "
            f"'{config.task.name}' has none; give 0"
        )
    sweep = config.sweep
    _range("sweep.seeds", sweep.seeds, 1, 2**32 - config.seed, closed=True)
    for name in ("folds", "outer_folds", "patience", "width"):
        _range(f"sweep.{name}", sweep[name], 0)
    _range("sweep.samples", sweep.samples, 1)
    if sweep.folds or sweep.outer_folds:
        _validate_folds(config)
    for epoch in sweep.halving:
        if type(epoch) is not int:
            raise UserError(f"config.sweep.halving: {epoch!r} is no epoch; give some, as in 2,5")
        _range("sweep.halving", epoch, 1, train.epochs)
    if sweep.patience and data.val_size == 0:
        raise UserError("config.sweep.patience: watches validation; give config.data.val_size")
    if optim.schedule == "plateau" and data.val_size == 0:
        raise UserError(
            "config.optim.schedule: 'plateau' watches the validation loss; "
            "give config.data.val_size, or take another schedule"
        )


def _validate_folds(config: ConfigDict) -> None:
    sweep = config.sweep
    for key in ("folds", "outer_folds"):
        if sweep[key] == 1:
            raise UserError(f"config.sweep.{key}: cross-validation takes at least 2; 0 for none")
    if not sweep.folds:
        raise UserError(
            "config.sweep.outer_folds: judges what inner folds choose; give config.sweep.folds"
        )
    # Held-out examples that decide on the training do not judge it, and the training on all
    # examples that follows has none.
    for key, watches in (
        ("sweep.patience", sweep.patience > 0),
        ("optim.schedule=plateau", config.optim.schedule == "plateau"),
    ):
        if watches:
            raise UserError(
                f"config.{key}: watches validation, which config.sweep.folds keeps for the end"
            )
    net = registry.fields(config.model)
    if sweep.share_batches and (net.get("batch_norm") or net.get("standardise")):
        raise UserError(
            "config.sweep.share_batches: batch normalisation would see the held-out examples; "
            "take config.model.batch_norm=False, or leave each fold its own batches"
        )


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The keys, dotted, whose values differ between two configs; where data lies does not count."""
    left, right = dict(flatten(a)), dict(flatten(b))
    return [
        key
        for key in sorted(left.keys() | right.keys())
        if key not in _PLACES and left.get(key) != right.get(key)
    ]


def no_such_key(key: str, known: Iterable[str]) -> UserError:
    """What to raise for a key, dotted, that no config has; it names the nearest one."""
    known, leaf = list(known), key.rpartition(".")[2]
    section, _, rest = key.partition(".")
    if section in _RENAMED and f"{_RENAMED[section]}.{rest}" in known:
        return UserError(f"config.{key}: is now config.{_RENAMED[section]}.{rest}")
    namesakes = [there for there in known if there.rpartition(".")[2] == leaf]
    near = namesakes or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean config.{near[0]}?" if near else f"there are {', '.join(known)}"
    return UserError(f"config.{key}: no such key; {hint}")


def suggestion(name: str, known: Any) -> str:
    """A question that ends an error message, where a known name is near; else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, value) of a plain config; a tuple as the list that JSON makes of it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _same_keys(config: ConfigDict) -> None:
    known, given = (dict(flatten(c.to_dict())) for c in (default(), config))
    for key in given:
        if key not in known:
            raise no_such_key(key, known)
    for key in known:
        if key not in given:
            raise UserError(f"config.{key}: is missing; start from mnist_jax.config.default()")


def _one_of(key: str, value: str, known: Any) -> None:
    if value not in known:
        hint = suggestion(value, known)
        raise UserError(f"config.{key}: no '{value}'; there are {', '.join(known)}{hint}")


def _range(
    key: str,
    value: int | float,
    low: int | float,
    high: int | float = float("inf"),
    *,
    open_below: bool = False,
    closed: bool = False,
) -> None:
    above = value > low if open_below else value >= low
    if above and (value < high or (closed and value == high)):
        return
    lower = f"more than {low}" if open_below else f"{low} or more"
    upper = f" and {'at most' if closed else 'below'} {high}"
    if high == float("inf"):
        upper = " and finite" if value == high else ""
    raise UserError(f"config.{key}: {value} is impossible; it must be {lower}{upper}")
