"""The configuration: defaults, validation, and differences between two.

The sections `task`, `model`, `train.augment` and `optim` come from the registries.
"""

import contextlib
import copy
import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from mnist_jax import tasks
from mnist_jax.data import augment
from mnist_jax.models import registry
from mnist_jax.train import optim as optimizers
from mnist_jax.types import Option, UserError, plain

_SEEDS = f"[0, {2**32})"
OPTIONS = {
    "seed": Option(0, "of the initial weights, the order of examples and all other draws", _SEEDS),
    "init_from": Option(str, "run whose best epoch training starts from; None: random weights"),
    "data.name": Option(
        "mnist", "mnist, fashion_mnist, digits, csv:PATH, images:DIR or a tfds builder"
    ),
    "data.label_column": Option(
        str,
        "of a CSV; None: the one that its header calls label or class, else first",
        ("first", "last"),
    ),
    "data.pixel_max": Option(int, "of a CSV: the value of white; None: 255", "[1, 65535]"),
    "data.transposed": Option(bool, "images lie on their side, mirrored; None: those of emnist do"),
    "data.class_names": Option(tuple, "as in \"'cat','dog'\", by label; None: the data set's"),
    "data.kind": Option(
        str, "of the images, for predict; None: known by the data set", ("digits", "objects")
    ),
    "data.split_seed": Option(0, "of the validation split and of folds, for all seeds", _SEEDS),
    "data.val_size": Option(0.1, "below 1 a fraction, else a number; 0: none", "[0, inf)"),
    "data.archives": Option(str, "folder of official archives; None: $MNIST_JAX_ARCHIVES"),
    "data.data_dir": Option(str, "where data is prepared; None: the folder of tfds"),
    "data.offline_fallback": Option(False, "train on digits where the data is not available"),
    **{f"task.{name}": option for name, option in tasks.OPTIONS.items()},
    **{f"model.{name}": option for name, option in registry.OPTIONS.items()},
    "train.epochs": Option(10, "passes over the training examples", "[1, inf)"),
    "train.batch_size": Option(128, "examples per step", "[1, inf)"),
    **{f"train.augment.{name}": option for name, option in augment.OPTIONS.items()},
    **{f"optim.{name}": option for name, option in optimizers.OPTIONS.items()},
    # Several trials in one run: all combinations of seeds, folds and settings.
    "sweep.seeds": Option(1, "number of seeds, from config.seed on"),
    "sweep.folds": Option(0, "of cross-validation, which replaces data.val_size", "[0, inf)"),
    "sweep.outer_folds": Option(0, "of nested cross-validation, around the others", "[0, inf)"),
    "sweep.settings": Option(object, 'overrides: [{}, {"optim.clip": 1.0}, ...]'),
    "sweep.grid": Option(object, 'all combinations: {"optim.learning_rate": [1e-3, 3e-3], ...}'),
    "sweep.random": Option(object, 'drawn: {"optim.learning_rate": [1e-4, 1e-2, "log"], ...}'),
    "sweep.samples": Option(10, "number of settings drawn from sweep.random", "[1, inf)"),
    "sweep.share_batches": Option(False, "all trials see the same examples at the same time"),
    "sweep.halving": Option((), "epochs after which the worse half of the settings is dropped"),
    "sweep.patience": Option(0, "epochs without improvement that stop a trial; 0: any", "[0, inf)"),
    "sweep.width": Option(0, "trials vmapped in a program; 0: chosen by the net", "[0, inf)"),
}
# Two runs are the same wherever their data lies and however it is stored: its fingerprint is
# compared.
_PLACES = ("data.archives", "data.data_dir", "data.offline_fallback")
_FORMS = ("data.name", "data.label_column", "data.pixel_max", "data.transposed")
_VALUES = ("labels", "settings", "grid", "random")  # keys of lists and dicts, or JSON text of them


_RENAMED = {"members": "sweep"}  # sections of earlier versions


class Config(ConfigDict):
    """A config that answers the name of a renamed section with the new one."""

    def __getattr__(self, name: str) -> Any:
        if name in _RENAMED:
            raise UserError(f"config.{name}: is now config.{_RENAMED[name]}")
        return super().__getattr__(name)


def default() -> ConfigDict:
    """Return every key with its default; a file in configs/ starts from here."""
    # A dict that is set as a value stays a dict: its keys have dots.
    config = Config(convert_dict=False)
    for key, (value, *_) in OPTIONS.items():
        *sections, name = key.split(".")
        section = config
        for part in sections:
            if part not in section:
                section[part] = ConfigDict(convert_dict=False)
            section = section[part]
        if isinstance(value, type):  # None unless it is set
            value = placeholder(value)
        elif isinstance(value, dict):
            value = FieldReference(copy.deepcopy(value), object)
        section[name] = value
    return config


def validate(config: ConfigDict) -> None:
    """Check every value and the combinations of values.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    known, given = (dict(flatten(c.to_dict())) for c in (default(), config))
    for key in given | known:
        if key not in known:
            raise no_such_key(key, known)
        if key not in given:
            raise UserError(f"config.{key}: is missing; start from mnist_jax.config.default()")
    for key, option in OPTIONS.items():
        if config[key] is not None or not isinstance(option.default, type):
            _check(key, config[key], option.allowed)
    tasks.check(config.task)
    net, sweep = registry.fields(config.model), config.sweep
    _check("sweep.seeds", sweep.seeds, f"[1, {2**32 - config.seed}]")
    for epoch in sweep.halving:
        if type(epoch) is not int:
            raise UserError(f"config.sweep.halving: {epoch!r} is no epoch; give some, as in 2,5")
        _check("sweep.halving", epoch, f"[1, {config.train.epochs})")
    validates, plateau = config.data.val_size > 0, config.optim.schedule == "plateau"
    one, uses = "cross-validation takes at least 2; 0 for none", "watches validation"
    impossible = (
        (
            config.optim.label_smoothing and not tasks.smoothed(config.task),
            f"optim.label_smoothing: the loss '{tasks.loss(config.task)}' of "
            f"'{config.task.name}' has none; give 0",
        ),
        (sweep.folds == 1, f"sweep.folds: {one}"),
        (sweep.outer_folds == 1, f"sweep.outer_folds: {one}"),
        (
            sweep.outer_folds and not sweep.folds,
            "sweep.outer_folds: evaluates what inner folds choose; give config.sweep.folds",
        ),
        # A training that watches held-out examples cannot be evaluated on them, and the final
        # training on all examples has none.
        (
            sweep.folds and sweep.patience,
            f"sweep.patience: {uses}, which config.sweep.folds keeps for the end",
        ),
        (
            sweep.folds and plateau,
            f"optim.schedule=plateau: {uses}, which config.sweep.folds keeps for the end",
        ),
        (
            sweep.folds
            and sweep.share_batches
            and (net.get("batch_norm") or net.get("standardise")),
            "sweep.share_batches: batch normalisation would see the held-out examples; "
            "take config.model.batch_norm=False, or leave each fold its own batches",
        ),
        (
            sweep.patience and not validates,
            f"sweep.patience: {uses}; give config.data.val_size",
        ),
        (
            plateau and not validates,
            "optim.schedule: 'plateau' watches the validation loss; "
            "give config.data.val_size, or take another schedule",
        ),
    )
    for is_wrong, message in impossible:
        if is_wrong:
            raise UserError(f"config.{message}")


def differences(
    a: Mapping[str, Any], b: Mapping[str, Any], *, same_data: bool = False
) -> list[str]:
    """Return the dotted keys that differ between two configs, except the data's location.

    Args:
      a: a plain config.
      b: another one.
      same_data: the fingerprints of their data are equal, so that its name and form do not matter.
    """
    left, right = dict(flatten(a)), dict(flatten(b))
    ignored = _PLACES + _FORMS if same_data else _PLACES
    return [
        key
        for key in sorted(left.keys() | right.keys())
        if key not in ignored and left.get(key) != right.get(key)
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


def suggestion(name: str, known: Iterable[str]) -> str:
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


def _check(key: str, value: Any, allowed: str | Collection[str]) -> None:
    """Check a value against `Option.allowed`."""
    if not allowed:
        return
    if not isinstance(allowed, str):
        if value not in allowed:
            hint = suggestion(value, allowed)
            raise UserError(f"config.{key}: no '{value}'; there are {', '.join(allowed)}{hint}")
        return
    low, high = allowed[1:-1].split(", ")
    above = value > float(low) if allowed[0] == "(" else value >= float(low)
    below = value <= float(high) if allowed[-1] == "]" else value < float(high)
    if not above or not below:
        lower = f"more than {low}" if allowed[0] == "(" else f"{low} or more"
        upper = f" and {'at most' if allowed[-1] == ']' else 'below'} {high}"
        if high == "inf":
            upper = " and finite" if value == float(high) else ""
        raise UserError(f"config.{key}: {value} is impossible; it must be {lower}{upper}")
