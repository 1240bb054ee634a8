"""The trials of a config."""

import copy
import json

import numpy as np
import pytest

from mnist_jax import config as configs
from mnist_jax import train
from mnist_jax.cli import flags
from mnist_jax.runs import space
from mnist_jax.types import UserError
from mnist_jax.workdir import files

GRID = {"optim.learning_rate": [1e-3, 3e-3], "model.dropout": [0.0, (0.1, 0.2)]}


def make(**sweep):
    config = configs.default()
    config.update_from_flattened_dict({f"sweep.{key}": v for key, v in sweep.items()})
    return config


def test_a_plain_config_has_one_trial():
    config = make()
    assert space.expand(config) == [space.Trial(0, {}, 0, None)]
    assert not space.is_sweep(config)


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ({"seeds": 2}, True),
        ({"folds": 2}, True),
        ({"grid": {"optim.clip": [1.0]}}, True),
        ({"random": {}}, True),
        ({"halving": (2,)}, False),
    ],
)
def test_a_config_is_a_sweep_if_it_may_have_several_trials(sweep, expected):
    assert space.is_sweep(make(**sweep)) == expected


def test_every_combination_of_settings_seeds_and_folds():
    config = make(seeds=2, folds=3, grid=GRID)
    config.seed = 5
    trials = space.expand(config)
    assert len(trials) == len(set(map(str, trials))) == 4 * 2 * 3
    assert {trial.seed for trial in trials} == {5, 6}
    assert {trial.fold for trial in trials} == {0, 1, 2}
    assert [trial.setting for trial in trials] == sorted(trial.setting for trial in trials)
    own = space.config_of(config, trials[-1])
    assert (own.optim.learning_rate, own.model.dropout, own.seed) == (3e-3, (0.1, 0.2), 6)
    assert config.optim.learning_rate == 1e-3  # untouched


def test_the_chosen_setting_is_trained_again():
    config = make(seeds=2, folds=3, grid={"model.widths": [[8], [16]]})  # without a default
    whole, alone = space.refit(config, space.expand(config), 1)
    assert whole.sweep.folds == 0
    assert [(trial.setting, trial.seed, trial.fold) for trial in alone] == [
        (1, 0, None),
        (1, 1, None),
    ]
    assert space.config_of(whole, alone[0]).model.widths == (16,)
    assert config.sweep.folds == 3  # untouched


def test_a_number_stands_for_a_tuple_of_one():
    config = make(grid={"model.widths": [7, [8, 9]]})
    found = [space.config_of(config, trial).model.widths for trial in space.expand(config)]
    assert found == [(7,), (8, 9)]


def test_trials_of_a_group_share_a_program():
    config = make(seeds=2, grid={"model.widths": [[8], [9]], "optim.learning_rate": [0.1, 0.2]})
    trials = space.expand(config)
    groups = space.groups(config, trials)
    assert sorted(i for group in groups for i in group) == list(range(8))
    assert [{trials[i].overrides["model.widths"][0] for i in g} for g in groups] == [{8}, {9}]


def test_clipping_and_averaging_are_compiled_in():
    for key in ("optim.clip", "optim.ema"):
        config = make(grid={key: [0.0, 0.5, 0.9], "optim.momentum": [0.0, 0.9]})
        config.optim.name = "momentum"
        assert space.groups(config, space.expand(config)) == [[0, 1], [2, 3, 4, 5]]


def test_settings_may_be_listed():
    config = make(settings=[{}, {"optim.clip": 1.0, "model.dropout": 0.5}])
    found = [space.config_of(config, trial) for trial in space.expand(config)]
    assert [(c.optim.clip, c.model.dropout) for c in found] == [(0.0, None), (1.0, (0.5,))]


GIVEN = {"grid": {"model.widths": [(8,), [9]]}}, {"settings": [{}, {"model.batch_norm": True}]}


@pytest.mark.parametrize("sweep", GIVEN)
def test_a_sweep_is_the_same_as_values_as_json_and_as_flags(sweep, tmp_path):
    config = make(**sweep)
    config.model.name = "cnn"
    expected = space.expand(config)
    (key, value), *_ = sweep.items()
    (tmp_path / "mine.py").write_text(
        "from mnist_jax import config\n\ndef get_config():\n  c = config.default()\n"
        "  c.model.name, c.sweep.grid = 'cnn', {'optim.clip': [1.0]}\n  return c\n"
    )
    words = [f"--config={tmp_path}/mine.py", "--config.sweep.grid="]
    typed = flags.parse([*words, f"--config.sweep.{key}={json.dumps(value)}"]).config
    (tmp_path / files.CONFIG).write_text(json.dumps({**config.to_dict(), files.FINGERPRINT: ""}))
    stored, _ = files.read_config(tmp_path)
    text = make(**{key: json.dumps(value)})
    text.model.name = "cnn"
    for other in (copy.deepcopy(config), text, typed, stored):
        assert space.expand(other) == expected
    for other in (config.copy_and_resolve_references(), text, stored):
        assert configs.differences(config.to_dict(), other.to_dict()) == []
    assert f"sweep.{key}" in configs.differences(config.to_dict(), make().to_dict())


def test_the_traced_keys_are_known():
    augmentations = ("rotation", "zoom", "shift", "shear", "erase", "flip")
    numbers = ("learning_rate", "weight_decay", "label_smoothing", "momentum", "clip", "ema")
    assert set(space.TRACED) == {
        *("model.dropout", "model.conv_dropout", "model.init_scale"),
        *(f"train.augment.{name}" for name in augmentations),
        *(f"optim.{name}" for name in numbers),
    }
    known = dict(configs.flatten(configs.default().to_dict()))
    assert known.keys() >= set(space.TRACED)


@pytest.mark.parametrize("key", space.TRACED)
def test_a_groups_program_has_what_any_of_its_trials_turns_on(key):
    """Its recipe is that of the trial with everything on."""
    config = make()
    config.model.name = "cnn"
    value = {"optim.learning_rate": 0.5, "model.init_scale": 2.0}.get(key, 0.25)
    on = space.config_of(config, space.Trial(0, {key: value}, 0, None))
    off = space.config_of(config, space.Trial(0, {}, 0, None))
    merged = space.group_config([off, on])
    ours, theirs = (train.make_recipe(c, 10, 1000) for c in (merged, on))
    assert str(ours.augment) == str(theirs.augment)
    assert ours.ema == theirs.ema
    shapes = [row.output_shape for row in ours.model.layers()]
    assert shapes == [row.output_shape for row in theirs.model.layers()]
    for field in ("dropout", "conv_dropout"):
        if key == f"model.{field}":
            assert (np.array(merged.model[field]) == value).all()
        else:
            assert not np.array(merged.model[field]).any()


def test_random_settings_are_in_their_ranges_and_depend_on_the_seed():
    config = make(
        random={"optim.learning_rate": [1e-4, 1e-1, "log"], "optim.b1": [0.5, 0.9]}, samples=200
    )
    drawn = [trial.overrides for trial in space.expand(config)]
    assert drawn == [trial.overrides for trial in space.expand(config)]
    rates = np.array([d["optim.learning_rate"] for d in drawn])
    assert len(rates) == 200
    assert ((rates >= 1e-4) & (rates <= 1e-1)).all()
    assert 0.35 < (rates < 10**-2.5).mean() < 0.65  # the middle of the logarithms
    momenta = np.array([d["optim.b1"] for d in drawn])
    assert ((momenta >= 0.5) & (momenta <= 0.9)).all()
    config.seed = 1
    assert drawn != [trial.overrides for trial in space.expand(config)]


def test_a_trial_has_only_the_keys_that_its_components_read():
    """Keys of one swept optimizer, schedule or model are left out for the others."""
    config = make(grid={"optim.name": ["adam", "momentum"], "model.name": ["mlp", "linear"]})
    config.optim.momentum, config.model.widths = 0.8, (7,)
    space.check_used(config)
    own = [space.config_of(config, trial) for trial in space.expand(config)]
    assert [(c.optim.momentum, c.model.widths) for c in own] == [
        (None, (7,)),
        (None, None),
        (0.8, (7,)),
        (0.8, None),
    ]
    config = make(grid={"train.augment.rotation": [0.0, 5.0]})
    config.train.augment.fill = "constant"
    own = [space.config_of(config, trial) for trial in space.expand(config)]
    assert [c.train.augment.fill for c in own] == [None, "constant"]


def test_a_key_that_no_trial_reads_is_refused():
    config = make(grid={"optim.name": ["adam", "sgd"]})
    config.optim.momentum = 0.8
    message = r"^config\.optim\.momentum: adam does not use it; momentum does$"
    with pytest.raises(UserError, match=message):
        space.check_used(config)
    config = make(seeds=2)
    config.optim.momentum = 0.8
    with pytest.raises(UserError, match=message):
        space.check_used(config)


def test_presets_of_augmentation_are_values_of_a_sweep():
    config = make(settings=[{"train.augment": name} for name in ("none", "mild", "strong")])
    config.train.augment.update(rotation=3.0, flip=0.5)
    own = [space.config_of(config, trial).train.augment for trial in space.expand(config)]
    assert [c.rotation for c in own] == [0.0, 10.0, 20.0]
    assert [c.flip for c in own] == [0.0] * 3
    config = make(grid={"train.augment.flip": [0.5], "train.augment": ["mild"]})
    own = space.config_of(config, space.expand(config)[0]).train.augment
    assert (own.flip, own.rotation) == (0.5, 10.0)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"grid": "{"}, "config.sweep.grid: is not JSON"),
        ({"grid": {"optim.momentum": [0.5]}}, "config.optim.momentum: adam does not use it; mom"),
        (
            {"grid": {"optim.name": ["momentum", "sgd"], "optim.momentum": [0.5, 0.9]}},
            "config.optim.momentum: sgd does not use it; momentum does",
        ),
        (
            {"grid": {"model.name": ["mlp", "linear"], "model.widths": [(8,)]}},
            "config.model.widths: linear does not use it; mlp and cnn do",
        ),
        ({"settings": [{"optim.warmup": 0.1}]}, "config.optim.warmup: constant does not use it"),
        ({"settings": [{"train.augment.fill": "constant"}]}, "config.train.augment.fill: nothing"),
        ({"settings": [{"train.augment": "midl"}]}, "config.train.augment: no 'midl'; there are"),
        ({"settings": [{"train.augment": 3}]}, "config.train.augment: no '3'; there are none"),
        (
            {"grid": {"train.epochs": [True]}},
            "True is not a value of config.train.epochs; give a wh",
        ),
        ({"grid": {"train.epochs": [None]}}, "None is not a value of config.train.epochs"),
        (
            {"grid": {"optim.clip": [True]}},
            "True is not a value of config.optim.clip; give a number",
        ),
        ({"grid": {"optim.clip": [None]}}, "None is not a value of config.optim.clip"),
        ({"grid": {"optim.clip": [[1.0]]}}, "[1.0] is not a value of config.optim.clip"),
        ({"grid": {"model.name": [None]}}, "None is not a value of config.model.name; give text"),
        ({"grid": {"model.name": ["mpl"]}}, "config.model.name: no 'mpl'; there are"),
        ({"grid": {"train.augment.fill": [3]}}, "3 is not a value of config.train.augment.fill"),
        ({"random": {"train.epochs": [1, 5]}}, "is not a value of config.train.epochs"),
        ({"random": {"optim.clip": [True, 5]}}, "config.sweep.random: optim.clip: [True, 5] is"),
        ({"grid": {"optim.clip": [np.float32(1)]}}, "config.sweep.grid: is not JSON"),
        ({"grid": {}}, "config.sweep.grid: must map keys to lists"),
        ({"grid": 3}, "config.sweep.grid: must map keys to lists"),
        ({"settings": []}, "config.sweep.settings: must be a list of overrides"),
        ({"grid": "[1]"}, "config.sweep.grid: must map keys to lists"),
        ({"grid": '{"optim.clip": 1}'}, "config.sweep.grid: must map keys to lists"),
        ({"grid": '{"optim.clip": []}'}, "config.sweep.grid: must map keys to lists"),
        ({"grid": "{}"}, "config.sweep.grid: must map keys to lists"),
        ({"grid": '{"optim.lr": [1]}'}, "config.optim.lr: no such key"),
        ({"grid": '{"learning_rate": [1]}'}, "did you mean config.optim.learning_rate"),
        ({"grid": '{"seed": [1]}'}, "config.seed: no such key"),
        ({"grid": '{"data.name": ["digits"]}'}, "config.data.name: no such key"),
        ({"grid": '{"optim.learning_rate": [-1.0]}'}, "config.optim.learning_rate: -1.0 is imposs"),
        (
            {"grid": '{"optim.learning_rate": ["a"]}'},
            "'a' is not a value of config.optim.learning_rat",
        ),
        ({"grid": '{"train.epochs": [2.5]}'}, "2.5 is not a value of config.train.epochs"),
        ({"grid": '{"model.batch_norm": [1]}'}, "1 is not a value of config.model.batch_norm"),
        ({"grid": '{"model.widths": [["a"]]}'}, "config.model.widths: 'a' is not a whole number"),
        ({"settings": "[1]"}, "config.sweep.settings: must be a list of overrides"),
        ({"settings": "[]"}, "config.sweep.settings: must be a list of overrides"),
        ({"settings": '[{"optim.lr": 1}]'}, "config.optim.lr: no such key"),
        ({"grid": GRID, "random": GRID}, "config.sweep.random: replaces "),
        ({"random": '{"optim.clip": [1.0, 0.5]}'}, "is not [low, high]"),
        ({"random": '{"optim.clip": [0, 0.5, "log"]}'}, "is not [low, high]"),
        ({"random": '{"optim.clip": [0.5]}'}, "is not [low, high]"),
        ({"random": '{"optim.clip": [0.5, "a"]}'}, "is not [low, high]"),
    ],
)
def test_impossible_sweeps_are_refused(sweep, message):
    with pytest.raises(UserError) as error:
        space.expand(make(**sweep))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
