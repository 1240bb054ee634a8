"""The configuration: defaults, validation, and differences between two.

The sections `task`, `model`, `train.augment` and `optim` come from the registries.
"""

import contextlib
import copy
import difflib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mnist_jax import tasks
from mnist_jax.data import augment
from mnist_jax.models import registry
from mnist_jax.train import optim as optimizers
from mnist_jax.train import weights as class_weights
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
    "data.transposed": Option(bool, "images are transposed; None: true for emnist only"),
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
    "train.patience": Option(
        0, "epochs without a better validation that stop a trial; 0: never", "[0, inf)"
    ),
    "train.class_weights": Option(
        object, "in the loss: balanced, or a number for each class; None: all alike"
    ),
    **{f"train.augment.{name}": option for name, option in augment.OPTIONS.items()},
    **{f"optim.{name}": option for name, option in optimizers.OPTIONS.items()},
    # Several trials in one run: all combinations of seeds, folds and settings.
    "sweep.seeds": Option(1, "number of seeds, from config.seed on"),
    "sweep.folds": Option(0, "of cross-validation, which replaces data.val_size", "[0, inf)"),
    "sweep.outer_folds": Option(0, "of nested cross-validation, around the others", "[0, inf)"),
    "sweep.settings": Option(object, 'overrides: [{}, {"optim.clip": 1.0}, ...]'),
    "sweep.grid": Option(object, 'all combinations: {"optim.learning_rate": [1e-3, 3e-3], ...}'),
    "sweep.random": Option(object, 'drawn: {"optim.learning_rate": [1e-4, 1e-2, "log"], ...}'),
    "sweep.samples": Option(
        10, "number of settings drawn from sweep.random", "[1, inf)", optional=True
    ),
    "sweep.share_batches": Option(False, "all trials see the same examples at the same time"),
    "sweep.halving": Option((), "epochs after which the worse half of the settings is dropped"),
    "sweep.width": Option(0, "trials vmapped in a program; 0: chosen by the net", "[0, inf)"),
}
# Two runs are the same wherever their data lies and however it is stored: its fingerprint is
# compared.
_PLACES = ("data.archives", "data.data_dir", "data.offline_fallback")
_FORMS = ("data.name", "data.label_column", "data.pixel_max", "data.transposed")
_VALUES = ("labels", "settings", "grid", "random")  # keys of lists and dicts, or JSON text of them


# Sections and keys of earlier versions.
_RENAMED = {"members": "sweep", "sweep.patience": "train.patience"}
EXPECTED = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a tuple such as 64,32",
    object: "JSON",
}


class Config(ConfigDict):
    """A config that answers the name of a renamed section with the new one.

    The name of a preset may be set as `config.train.augment`.
    """

    def __getattr__(self, name: str) -> Any:
        if name in _RENAMED:
            raise UserError(f"config.{name}: is now config.{_RENAMED[name]}")
        return super().__getattr__(name)

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "augment" and key in self and not isinstance(value, Mapping | ConfigDict):
            self[key].update(_preset(value))
        elif isinstance(value, bool) and key in self and self.get_type(key) is float:
            raise TypeError(f"{key}: {value} is not a number")  # it would become 1.0
        else:
            super().__setitem__(key, value)


def default() -> ConfigDict:
    """Return every key with its default; a file in configs/ starts from here."""
    # A dict that is set as a value stays a dict: its keys have dots.
    config = Config(convert_dict=False)
    for key, option in OPTIONS.items():
        *sections, name = key.split(".")
        section = config
        for part in sections:
            if part not in section:
                section[part] = Config(convert_dict=False)
            section = section[part]
        section[name] = placeholder(option.kind) if option.nullable else option.default
    return config


def check_keys(config: ConfigDict) -> None:
    """Check that a config has all keys and no others.

    Raises:
      UserError: names the key.
    """
    known, given = (dict(flatten(c.to_dict())) for c in (default(), config))
    for key in given | known:
        if key not in known:
            raise no_such_key(key, known)
        if key not in given:
            raise UserError(f"config.{key}: is missing; start from mnist_jax.config.default()")


def override(config: ConfigDict, values: Mapping[str, Any]) -> None:
    """Set dotted keys; a preset of train.augment comes before its single keys."""
    single = dict(values)
    if "train.augment" in single:
        strengths = _preset(single.pop("train.augment"))
        single = {f"train.augment.{key}": value for key, value in strengths.items()} | single
    config.update_from_flattened_dict(single)


def _preset(name: Any) -> dict[str, float]:
    """Return the strengths of every augmentation in a preset."""
    _check("train.augment", name, augment.PRESETS)
    return dict.fromkeys(augment.Strength._fields, 0.0) | augment.PRESETS[name]


def unused(config: ConfigDict) -> dict[str, str]:
    """Return the keys that are set but have no effect, and why: the end of an error message."""
    of_csv = () if str(config.data.name).startswith("csv:") else ("label_column", "pixel_max")
    sections = {
        "data": {key: "only csv:PATH uses it" for key in of_csv if config.data[key] is not None},
        "task": tasks.unused(config.task),
        "model": registry.unused(config.model),
        "train.augment": augment.unused(config.train.augment),
        "optim": optimizers.unused(config.optim),
        "sweep": {}
        if config.sweep.samples is None or sweeps(config) == ["random"]
        else {"samples": "only config.sweep.random uses it"},
    }
    return {f"{name}.{key}": why for name, keys in sections.items() for key, why in keys.items()}


def effective(config: ConfigDict) -> dict[str, Any]:
    """Return every dotted key; None is replaced by the default of what reads the key."""
    own = copy.deepcopy(config)
    clear(own, unused(config))
    found = dict(flatten(own.to_dict()))
    found |= {k: OPTIONS[k].default for k in found if found[k] is None and OPTIONS[k].optional}
    for section, fields in (
        ("task", tasks.fields(own.task)),
        ("model", registry.fields(own.model)),
        ("optim", optimizers.fields(own.optim)),
    ):
        found |= {f"{section}.{k}": value for k, value in fields.items() if value is not None}
    return found


def readers(key: str) -> list[str]:
    """Return the names of the components that read a key, if others do not."""
    section, _, name = key.partition(".")
    entries: dict[str, dict[str, Collection[str]]] = {
        "task": {name: entry.options for name, entry in tasks.TASKS.items()},
        "model": {name: entry.fields for name, entry in registry.MODELS.items()},
        "optim": {
            name: entry.options
            for name, entry in {**optimizers.SCHEDULES, **optimizers.OPTIMIZERS}.items()
        },
    }
    return [one for one, keys in entries.get(section, {}).items() if name in keys]


def sweeps(config: ConfigDict) -> list[str]:
    """Return the keys of `config.sweep` that define settings; only one may be set."""
    values = {name: config.sweep[name] for name in ("settings", "grid", "random")}
    return [name for name, value in values.items() if value is not None and str(value) != ""]


def clear(config: ConfigDict, keys: Iterable[str]) -> None:
    """Set keys to None in place."""
    config.update_from_flattened_dict(dict.fromkeys(keys))


def validate(config: ConfigDict) -> None:
    """Check every value and the combinations of values.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    check_keys(config)
    for key, option in OPTIONS.items():
        value = config[key]
        if not has_type(key, value):
            default = ", or None for the default" if option.nullable else ""
            raise UserError(f"config.{key}: {value!r} is not {EXPECTED[option.kind]}{default}")
        if value is not None:
            _check(key, value, option.allowed)
    if ignored := unused(config):
        if not sweeps(config):
            raise unused_key(ignored)
        # `runs.space.check_used` refuses what no setting uses.
        config = copy.deepcopy(config)
        clear(config, ignored)
    tasks.check(config.task)
    net, sweep = registry.fields(config.model), config.sweep
    weighted = class_weights.read(config.train.class_weights)
    _check("sweep.seeds", sweep.seeds, f"[1, {2**32 - config.seed}]")
    for epoch in sweep.halving:
        if type(epoch) is not int:
            raise UserError(
                f"config.sweep.halving: {epoch!r} is not an epoch; give epochs, as in 2,5"
            )
        _check("sweep.halving", epoch, f"[1, {config.train.epochs})")
    several = sweep.seeds > 1 or sweep.folds or sweeps(config)
    validates, plateau = config.data.val_size > 0, config.optim.schedule == "plateau"
    one, uses = "cross-validation takes at least 2; 0 for none", "watches validation"
    impossible = (
        (
            config.optim.label_smoothing and not tasks.smoothed(config.task),
            f"optim.label_smoothing: the loss '{tasks.loss(config.task)}' of "
            f"'{config.task.name}' has none; give 0",
        ),
        (
            (optimizers.fields(config.optim)["min_learning_rate"]) > config.optim.learning_rate,
            f"optim.min_learning_rate: {config.optim.min_learning_rate} is above the "
            "config.optim.learning_rate from which the schedule falls",
        ),
        (
            weighted and not tasks.classifies(config.task),
            f"train.class_weights: the task '{config.task.name}' has no classes; give None",
        ),
        (sweep.width > 1 and not several, "sweep.width: there is only one trial"),
        (sweep.share_batches and not several, "sweep.share_batches: there is only one trial"),
        (sweep.folds == 1, f"sweep.folds: {one}"),
        (sweep.outer_folds == 1, f"sweep.outer_folds: {one}"),
        (
            sweep.outer_folds and not sweep.folds,
            "sweep.outer_folds: evaluates what inner folds choose; give config.sweep.folds",
        ),
        # A training that watches held-out examples cannot be evaluated on them, and the final
        # training on all examples has none.
        (
            sweep.folds and config.train.patience,
            f"train.patience: {uses}, which config.sweep.folds keeps for the end",
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
            config.train.patience and not validates,
            f"train.patience: {uses}; give config.data.val_size",
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


def unused_key(ignored: Mapping[str, str]) -> UserError:
    """Return the error for the first of the keys in `unused`."""
    key, why = next(iter(ignored.items()))
    return UserError(f"config.{key}: {why}")


def has_type(key: str, value: Any) -> bool:
    """Return whether a value is of its key's type, or None where that stands for a default."""
    kind = OPTIONS[key].kind
    if value is None:
        return OPTIONS[key].nullable
    if isinstance(value, bool):  # an int to isinstance
        return kind in (bool, object)
    return isinstance(value, {float: (int, float), tuple: (tuple, list)}.get(kind, kind))


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


def renamed(key: str) -> str:
    """Return the present name of a dotted key of an earlier version; other keys are unchanged."""
    section, dot, rest = key.partition(".")
    new = f"{_RENAMED.get(section, section)}{dot}{rest}"
    return _RENAMED.get(new, new)


def no_such_key(key: str, known: Iterable[str]) -> UserError:
    """Return the error for a dotted key that no config has; it names the nearest one."""
    known, leaf = list(known), key.rpartition(".")[2]
    if (new := renamed(key)) != key and new in known:
        return UserError(f"config.{key}: is now config.{new}")
    if own := [name for name in known if name.startswith(f"{key}.")]:
        return UserError(f"config.{key}: no such key; it is a section, as in config.{own[0]}")
    near = [name for name in known if stands_for(leaf, name)]
    near = near or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean config.{near[0]}?" if near else f"there are {', '.join(known)}"
    return UserError(f"config.{key}: no such key; {hint}")


def stands_for(name: str, key: str) -> bool:
    """Return whether a name is a key, its last part or that part's initials, or its section.

    learning_rate and lr stand for optim.learning_rate, and model for model.name.
    """
    leaf = key.rpartition(".")[2]
    initials = "".join(word[0] for word in leaf.split("_"))
    return name in (key, leaf) or key == f"{name}.name" or (len(name) > 1 and name == initials)


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
        if value not in [*allowed]:
            hint = suggestion(str(value), allowed)
            raise UserError(f"config.{key}: no '{value}'; there are {', '.join(allowed)}{hint}")
        return
    low, high = map(float, allowed[1:-1].split(", "))
    above = value > low if allowed[0] == "(" else value >= low
    below = value <= high if allowed[-1] == "]" else value < high
    if not above or not below:
        finite = " and finite" if value == math.inf else ""
        must = f"it must be {describe(allowed)}{finite}"
        raise UserError(f"config.{key}: {value} is impossible; {must}")


def describe(allowed: str | Collection[str]) -> str:
    """Describe `Option.allowed`: "0 or more and below 1" or "SAME or VALID"."""
    if not isinstance(allowed, str):
        return " or ".join(filter(None, [", ".join([*allowed][:-1]), *[*allowed][-1:]]))
    low, high = allowed[1:-1].split(", ")
    lower = f"more than {low}" if allowed[0] == "(" else f"{low} or more"
    upper = f" and {'at most' if allowed[-1] == ']' else 'below'} {high}"
    return lower + (upper if high != "inf" else "")
