"""The configuration: defaults, validation, and differences between two.

The sections `task`, `model`, `train.augment` and `optim` come from the registries.
"""

import contextlib
import copy
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from mnist_jax import tasks
from mnist_jax.data import augment
from mnist_jax.models import registry
from mnist_jax.train import optim as optimizers
from mnist_jax.types import Option, UserError, plain

# The keys that the registries define.
OPTIONS = {
    f"{section}.{name}": option
    for section, options in (
        ("task", tasks.OPTIONS),
        ("model", registry.OPTIONS),
        ("train.augment", augment.OPTIONS),
        ("optim", optimizers.OPTIONS),
    )
    for name, option in options.items()
}
# Two runs are the same wherever their data lies: its fingerprint is compared.
_PLACES = ("data.archives", "data.data_dir", "data.offline_fallback")
_VALUES = ("labels", "settings", "grid", "random")  # keys of lists and dicts, or JSON text of them


_RENAMED = {"members": "sweep"}  # sections of earlier versions


def default() -> ConfigDict:
    """Return every key with its default; a file in configs/ starts from here."""
    return _section(
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
            "task": _defaults(tasks.OPTIONS),
            "model": _defaults(registry.OPTIONS),
            "train": {
                "epochs": 10,
                "batch_size": 128,
                "augment": _defaults(augment.OPTIONS),
            },
            "optim": _defaults(optimizers.OPTIONS),
            "sweep": {  # several trials in one run: all combinations of the following
                "seeds": 1,  # so many, from config.seed on
                "folds": 0,  # of cross-validation, in place of data.val_size; 0: none
                "outer_folds": 0,  # around it: nested cross-validation; 0: none
                "settings": placeholder(object),  # [{}, {"optim.clip": 1.0}, ...]
                "grid": placeholder(object),  # {"optim.learning_rate": [1e-3, 3e-3], ...}
                "random": placeholder(object),  # {"optim.learning_rate": [1e-4, 1e-2, "log"], ...}
                "samples": 10,  # random: how many settings are drawn
                "share_batches": False,  # all see the same examples at the same time
                "halving": (),  # after these epochs the worse half of the settings is dropped
                "patience": 0,  # epochs without a better validation until one stops; 0: never
                "width": 0,  # of one program, vmapped; 0: as suits the net and the device
            },
        }
    )


def _section(values: Mapping[str, Any]) -> ConfigDict:
    """Return nested sections. A dict that is set as a value stays a dict: its keys have dots."""
    return ConfigDict(
        {k: _section(v) if isinstance(v, dict) else v for k, v in values.items()},
        convert_dict=False,
    )


def _defaults(options: Mapping[str, Option]) -> dict[str, Any]:
    """Return the default of each option, as a value or as a reference to one that may be unset."""

    def value(default: Any) -> Any:
        if isinstance(default, type):
            return placeholder(default)
        return (
            FieldReference(copy.deepcopy(default), object) if isinstance(default, dict) else default
        )

    return {name: value(option.default) for name, option in options.items()}


def validate(config: ConfigDict) -> None:
    """Check every value and the combinations of values.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    _same_keys(config)
    for key, option in OPTIONS.items():
        _allowed(key, config[key], option.allowed)
    data, train, optim = config.data, config.train, config.optim
    registry.fields(config.model)
    tasks.check(config.task)
    _range("seed", config.seed, 0, 2**32)
    _range("data.split_seed", data.split_seed, 0, 2**32)
    _range("data.val_size", data.val_size, 0)
    _range("train.epochs", train.epochs, 1)
    _range("train.batch_size", train.batch_size, 1)
    if optim.label_smoothing and not tasks.smoothed(config.task):
        raise UserError(
            f"config.optim.label_smoothing: the loss '{tasks.loss(config.task)}' of "
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
    """Return the dotted keys that differ between two configs, except the data's location."""
    left, right = dict(flatten(a)), dict(flatten(b))
    return [
        key
        for key in sorted(left.keys() | right.keys())
        if key not in _PLACES and left.get(key) != right.get(key)
    ]


def no_such_key(key: str, known: Iterable[str]) -> UserError:
    """Return the error for a dotted key that no config has; it names the nearest one."""
    known, leaf = list(known), key.rpartition(".")[2]
    section, _, rest = key.partition(".")
    if section in _RENAMED and f"{_RENAMED[section]}.{rest}" in known:
        return UserError(f"config.{key}: is now config.{_RENAMED[section]}.{rest}")
    namesakes = [name for name in known if name.rpartition(".")[2] == leaf]
    near = namesakes or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean config.{near[0]}?" if near else f"there are {', '.join(known)}"
    return UserError(f"config.{key}: no such key; {hint}")


def suggestion(name: str, known: Any) -> str:
    """Return the end of an error message that suggests the nearest known name; "" without one."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, value) of a plain config; tuples as lists, as in JSON."""
    for key, value in config.items():
        if isinstance(value, Mapping) and key not in _VALUES:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            if key in _VALUES or isinstance(value, tuple):
                with contextlib.suppress(TypeError, ValueError):  # the section's reader reports it
                    value = plain(value)
            yield f"{prefix}{key}", value


def _same_keys(config: ConfigDict) -> None:
    known, given = (dict(flatten(c.to_dict())) for c in (default(), config))
    for key in given:
        if key not in known:
            raise no_such_key(key, known)
    for key in known:
        if key not in given:
            raise UserError(f"config.{key}: is missing; start from mnist_jax.config.default()")


def _allowed(key: str, value: Any, allowed: Any) -> None:
    """Check a value against `Option.allowed`."""
    if isinstance(allowed, str):
        low, high = (int(x) if x.isdigit() else float(x) for x in allowed[1:-1].split(", "))
        open_below, closed = allowed[0] == "(", allowed[-1] == "]"
        _range(key, value, low, high, open_below=open_below, closed=closed)
    elif allowed:
        _one_of(key, value, allowed)


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
