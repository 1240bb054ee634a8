"""The trials of a run: every combination of settings, seeds and folds; plain data.

A setting is a set of overrides, from `config.sweep.settings`, which lists them, or from its
`grid` (all combinations), or from its `random` (draws from ranges):

    expand(config)  # [Trial(setting=0, overrides={"optim.clip": 1.0}, seed=0, fold=None), ...]

Trials whose configs differ in nothing but numbers that training reads as traced values form a
group, and share a program.
"""

import copy
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mnist_jax import config as configs
from mnist_jax.models import registry
from mnist_jax.train.state import TRACED
from mnist_jax.types import UserError, plain

_SWITCHED = ("optim.clip", "optim.ema")  # 0 compiles another program
_PLANNED = ("cosine", "one_cycle")  # schedules over all epochs
_SWEPT = ("model.", "train.", "optim.")  # what settings may override


class Trial(NamedTuple):
    """One training of a run."""

    setting: int  # which of the settings
    overrides: dict[str, Any]  # that setting's, by dotted keys
    seed: int
    fold: int | None  # the one held out; None: there are no folds


def is_sweep(config: ConfigDict) -> bool:
    """Return whether a config asks for more than one plain training."""
    return bool(config.sweep.seeds > 1 or config.sweep.folds or configs.sweeps(config))


def expand(config: ConfigDict) -> list[Trial]:
    """List all trials of a config: settings first, then seeds, then folds.

    Raises:
      UserError: a setting that no run could use.
    """
    folds = range(config.sweep.folds) if config.sweep.folds else (None,)
    seeds = range(config.seed, config.seed + config.sweep.seeds)
    trials = [
        Trial(i, overrides, seed, fold)
        for i, overrides in enumerate(settings(config))
        for seed in seeds
        for fold in folds
    ]
    own = [config_of(config, trial) for trial in trials[:: len(seeds) * len(folds)]]
    for one in own:
        configs.validate(one)
        if ignored := configs.unused(one):
            raise configs.unused_key(ignored)
    return trials


def check_used(config: ConfigDict) -> None:
    """Check that some trial reads each key that the run's config sets.

    Raises:
      UserError: names a key without effect.
    """
    if ignored := configs.unused(config):
        own = [config_of(config, trial) for trial in expand(config)]
        for key in ignored:
            if all(one[key] is None for one in own):
                raise configs.unused_key({key: ignored[key]})


def settings(config: ConfigDict) -> list[dict[str, Any]]:
    """Return the overrides of each setting: a list, the grid's combinations, random ones, or none.

    Raises:
      UserError: they are not what `config.sweep` expects, or name no key of the config.
    """
    sweep = config.sweep
    given = configs.sweeps(config)
    if len(given) > 1:
        raise UserError(f"config.sweep.{given[1]}: replaces {given[0]}; give only one of them")
    if "settings" in given:
        listed = _read_value("settings", sweep.settings)
        like = isinstance(listed, list) and all(isinstance(one, dict) for one in listed)
        if not like or not listed:
            raise UserError(
                "config.sweep.settings: must be a list of overrides, as in "
                '[{}, {"optim.clip": 1.0}]'
            )
        for overrides in listed:
            _check_keys(config, overrides)
        return listed
    if "grid" in given:
        grid = _read(config, "grid", sweep.grid)
        return [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
    if "random" in given:
        ranges = _read(config, "random", sweep.random)
        rng = np.random.default_rng(config.seed)
        return [
            {key: _draw(rng, key, values) for key, values in ranges.items()}
            for _ in range(sweep.samples or configs.OPTIONS["sweep.samples"].default)
        ]
    return [{}]


def config_of(config: ConfigDict, trial: Trial) -> ConfigDict:
    """Return the config with which a trial would be a plain run.

    Keys of the run's config that its overrides leave without effect are None.

    Raises:
      UserError: an override has another type than the key's.
    """
    own = copy.deepcopy(config)
    own.seed = trial.seed
    configs.override(own, {key: _as(key, value) for key, value in trial.overrides.items()})
    configs.clear(own, configs.unused(own).keys() - trial.overrides.keys())
    return own


def _as(key: str, value: Any) -> Any:
    """Convert a value of a sweep to the type of its key; a number stands for a tuple of one."""
    if key == "train.augment":  # a preset
        return value
    kind = configs.OPTIONS[key].kind
    if value is not None and kind in (tuple, object):
        if isinstance(value, list):
            return tuple(value)
        return (value,) if kind is tuple else value
    if not configs.has_type(key, value):
        raise UserError(
            f"config.sweep: {value!r} is not a value of config.{key}; give {configs.EXPECTED[kind]}"
        )
    return float(value) if kind is float and value is not None else value


def groups(config: ConfigDict, trials: Sequence[Trial]) -> list[list[int]]:
    """Return the indices of the trials that can share a program, group by group."""
    found: dict[str, list[int]] = {}
    for i, trial in enumerate(trials):
        plain = dict(configs.flatten(config_of(config, trial).to_dict()))
        fixed = {key: value for key, value in plain.items() if key not in (*TRACED, "seed")}
        fixed |= {key: plain[key] > 0 for key in _SWITCHED}
        found.setdefault(json.dumps(fixed, sort_keys=True), []).append(i)
    return list(found.values())


def can_extend(config: ConfigDict) -> bool:
    """Return whether more epochs leave the first ones as they are, in all trials."""
    return all(config_of(config, t).optim.schedule not in _PLANNED for t in expand(config))


def refit(
    config: ConfigDict, trials: Sequence[Trial], setting: int
) -> tuple[ConfigDict, list[Trial]]:
    """Return the config and trials that follow a cross-validation: a setting on all examples."""
    whole = copy.deepcopy(config)
    whole.sweep.folds = 0
    alone = [m._replace(fold=None) for m in trials if m.setting == setting and not m.fold]
    return whole, alone


def group_config(configs_of: Sequence[ConfigDict]) -> ConfigDict:
    """Return the config of a group's program: what any trial turns on is compiled in.

    Its traced numbers are the largest of all trials'; only whether they are 0 matters.
    """
    merged = configs_of[0].copy_and_resolve_references()
    for field in ("dropout", "conv_dropout"):
        rates = [registry.fields(config.model).get(field) for config in configs_of]
        merged.model[field] = (
            None if rates[0] is None else tuple(map(max, zip(*rates, strict=True)))
        )
    for section in ("train.augment", "optim"):
        plain = [dict(configs.flatten(config.to_dict())) for config in configs_of]
        keys = [key for key in TRACED if key.startswith(f"{section}.")]
        for key in keys:
            values = [p[key] for p in plain if p[key] is not None]
            merged.update_from_flattened_dict({key: max(values, default=None)})
    return merged


def _read(config: ConfigDict, name: str, value: Any) -> dict[str, list[Any]]:
    """Return the lists by keys of `config.sweep.grid` or `random`, with the keys checked."""
    found = _read_value(name, value)
    like = isinstance(found, dict) and all(isinstance(v, list) and v for v in found.values())
    if not like or not found:
        raise UserError(
            f'config.sweep.{name}: must map keys to lists, as in {{"optim.clip": [0, 1]}}'
        )
    _check_keys(config, found)
    return found


def _read_value(name: str, value: Any) -> Any:
    try:
        return plain(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.sweep.{name}: is not JSON ({error})") from error


def _check_keys(config: ConfigDict, keys: Iterable[str]) -> None:
    known = [key for key, _ in configs.flatten(config.to_dict()) if key.startswith(_SWEPT)]
    known.append("train.augment")
    for key in keys:
        if key not in known:
            raise configs.no_such_key(key, known)


def _draw(rng: np.random.Generator, key: str, values: list[Any]) -> float:
    """Draw a number from [low, high], or on a logarithmic scale from [low, high, "log"]."""
    bounds, scale = values[:2], values[2:]
    # True is an int to isinstance.
    numbers = all(type(value) in (int, float) and math.isfinite(value) for value in bounds)
    low, high = bounds if numbers and len(bounds) == 2 else (0, 0)
    if scale not in ([], ["log"]) or low >= high or (scale and low <= 0):
        raise UserError(
            f'config.sweep.random: {key}: {values} is not [low, high] or [low, high, "log"]'
        )
    if scale:
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    return float(rng.uniform(low, high))
