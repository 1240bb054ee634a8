"""The configuration: what is refused, what differs, and the files in configs/."""

import copy
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_jax import config
from mnist_jax.cli import flags
from mnist_jax.data import augment
from mnist_jax.models import registry
from mnist_jax.train import optim
from mnist_jax.types import UserError

CONFIGS = Path(__file__).parent.parent / "configs"


def changed(key: str, value):
    """The default config with another value, whatever its type."""
    whole = config.default()
    fields = whole.to_dict()
    *groups, leaf = key.split(".")
    inner = fields
    for group in groups:
        inner = inner[group]
    inner[leaf] = value
    return type(whole)(fields)


def refusal(key: str, value) -> str:
    with pytest.raises(UserError) as refused:
        config.validate(changed(key, value))
    return str(refused.value)


def test_flags_and_configs_are_read_without_the_slow_libraries():
    code = """
import sys, mnist_jax.cli.flags, mnist_jax.config, mnist_jax.train.state
slow = {"jax", "jaxlib", "flax", "optax", "sklearn", "matplotlib", "scipy", "tensorflow_datasets"}
print(sorted(slow & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=CONFIGS.parent, capture_output=True)
    assert (done.stdout, done.stderr) == (b"[]\n", b"")


def test_every_option_is_a_key_with_help():
    keys = dict(config.flatten(config.default().to_dict()))
    assert keys.keys() >= config.OPTIONS.keys()
    for key, option in config.OPTIONS.items():
        assert option.help, key


def test_the_default_is_valid():
    config.validate(config.default())


def test_two_defaults_share_nothing():
    config.default().train.augment.flip = 1.0
    assert config.default().train.augment.flip == 0.0


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("seed", -1, "0 or more and below 4294967296"),
        ("seed", 2**32, "0 or more and below 4294967296"),
        ("data.val_size", -1, "0 or more"),
        ("data.val_size", math.nan, "0 or more"),
        ("train.epochs", 0, "1 or more"),
        ("train.batch_size", 0, "1 or more"),
        ("train.batch_size", -128, "1 or more"),
        ("train.augment.rotation", -1.0, "0 or more"),
        ("train.augment.rotation", math.inf, "0 or more and finite"),
        ("train.augment.shift", -0.1, "0 or more"),
        ("train.augment.zoom", 1.0, "0 or more and below 1"),
        ("train.augment.shear", 90.0, "0 or more and below 90"),
        ("train.augment.erase", 1.1, "0 or more and at most 1"),
        ("train.augment.flip", -0.5, "0 or more and at most 1"),
        ("optim.learning_rate", 0.0, "more than 0"),
        ("optim.learning_rate", -1e-3, "more than 0"),
        ("optim.learning_rate", math.nan, "more than 0"),
        ("optim.learning_rate", math.inf, "more than 0 and finite"),
        ("optim.weight_decay", -1e-4, "0 or more"),
        ("optim.clip", -1.0, "0 or more"),
        ("optim.decay", 0.0, "more than 0 and below 1"),
        ("optim.decay", 1.0, "more than 0 and below 1"),
        ("optim.decay_epochs", 0, "1 or more"),
        ("optim.warmup", 1.0, "0 or more and below 1"),
        ("optim.label_smoothing", 1.0, "0 or more and below 1"),
        ("optim.ema", 1.0, "0 or more and below 1"),
        ("optim.momentum", 1.0, "0 or more and below 1"),
        ("optim.b1", 1.0, "0 or more and below 1"),
        ("optim.b2", 1.0, "0 or more and below 1"),
        ("model.init_scale", -1.0, "0 or more"),
        ("sweep.seeds", 0, "1 or more and at most 4294967296"),
        ("sweep.seeds", 2**32 + 1, "1 or more and at most 4294967296"),
        ("sweep.folds", -2, "0 or more"),
        ("sweep.samples", 0, "1 or more"),
        ("sweep.width", -1, "0 or more"),
    ],
)
def test_an_impossible_value_is_refused(key, value, must):
    assert refusal(key, value) == f"config.{key}: {value} is impossible; it must be {must}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**32 - 1),
        ("data.val_size", 0),
        ("train.batch_size", 1),
        ("train.augment.erase", 1.0),
        ("train.augment.flip", 1.0),
        ("train.augment.zoom", 0.99),
        ("optim.label_smoothing", 0.0),
        ("optim.ema", 0.999),
        ("optim.weight_decay", 0.0),
    ],
)
def test_a_value_at_the_edge_is_allowed(key, value):
    config.validate(changed(key, value))


@pytest.mark.parametrize(
    ("sweep", "others", "message"),
    [
        ({"folds": 1}, {}, "config.sweep.folds: cross-validation takes at least 2; 0 for none"),
        ({"outer_folds": 1}, {}, "config.sweep.outer_folds: cross-validation takes at least 2"),
        (
            {"outer_folds": 3},
            {},
            "config.sweep.outer_folds: evaluates what inner folds choose; give",
        ),
        (
            {},
            {"train.patience": 1, "data.val_size": 0},
            "config.train.patience: watches validation; give",
        ),
        (
            {"halving": (2.5,)},
            {},
            "config.sweep.halving: 2.5 is not an epoch; give epochs, as in 2,5",
        ),
        ({"halving": ("half",)}, {}, "config.sweep.halving: 'half' is not an epoch; give epochs"),
        ({"folds": 2}, {"train.patience": 1}, "config.train.patience: watches validation, which "),
        ({"folds": 2}, {"optim.schedule": "plateau"}, "config.optim.schedule=plateau: watches "),
        (
            {"folds": 2, "share_batches": True},
            {"model.name": "cnn"},
            "config.sweep.share_batches: batch normalisation would see the held-out examples",
        ),
        ({"halving": (3, 10)}, {}, "config.sweep.halving: 10 is impossible; it must be 1 or "),
    ],
)
def test_sweep_values_that_contradict_each_other_are_refused(sweep, others, message):
    whole = config.default()
    whole.sweep.update(sweep)
    whole.update_from_flattened_dict(others)
    with pytest.raises(UserError) as error:
        config.validate(whole)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("key", "value", "nearest", "known"),
    [
        ("model.name", "mpl", "mlp", registry.MODELS),
        ("model.name", "cnn_3x4", "cnn", registry.MODELS),
        ("model.dtype", "float16", "bfloat16", registry.DTYPES),
        ("optim.name", "adma", "adam", optim.OPTIMIZERS),
        ("optim.schedule", "cosin", "cosine", optim.SCHEDULES),
        ("train.augment.fill", "nearby", "nearest", augment.OPTIONS["fill"].allowed),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(key, value, nearest, known):
    message = refusal(key, value)
    assert message.startswith(f"config.{key}: no '{value}'; there are {', '.join(known)}")
    assert message.endswith(f"; did you mean '{nearest}'?")


def test_no_name_is_suggested_where_none_is_near():
    assert "did you mean" not in refusal("optim.name", "xyzzy")


@pytest.mark.parametrize(
    ("key", "value"),
    [("model.widths", (8,)), ("model.batch_norm", True), ("model.padding", "SAME")],
)
def test_a_field_that_the_model_lacks_is_refused(key, value):
    fields = changed(key, value)
    fields.model.name = "linear"
    readers = "mlp and cnn do" if key == "model.widths" else "cnn does"
    with pytest.raises(UserError, match=f"^config.{key}: linear does not use it; {readers}$"):
        config.validate(fields)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("optim.momentum", 0.8, "adam does not use it; momentum does"),
        ("optim.warmup", 0.1, "constant does not use it; cosine and one_cycle do"),
        ("optim.decay", 0.5, "constant does not use it; step, exponential and plateau do"),
        ("optim.decay_epochs", 3, "constant does not use it; step, exponential and plateau do"),
        (
            "optim.min_learning_rate",
            1e-5,
            "constant does not use it; step, exponential and plateau do",
        ),
        ("optim.decay_biases", True, "config.optim.weight_decay is 0"),
        ("task.positive", (3,), "multiclass does not use it; binary does"),
        ("task.labels", {"odd": [1, 3]}, "multiclass does not use it; multilabel does"),
        ("task.noise", 50, "multiclass does not use it; denoise does"),
        ("sweep.samples", 3, "only config.sweep.random uses it"),
        ("data.label_column", "last", "only csv:PATH uses it"),
        ("data.pixel_max", 15, "only csv:PATH uses it"),
        ("sweep.width", 3, "there is only one trial"),
        ("sweep.share_batches", True, "there is only one trial"),
        (
            "train.augment.fill",
            "constant",
            "nothing moves the image; give one of config.train.augment.rotation, "
            "config.train.augment.shear, config.train.augment.shift, config.train.augment.zoom",
        ),
    ],
)
def test_a_key_without_effect_is_refused_with_what_reads_it(key, value, why):
    assert refusal(key, value) == f"config.{key}: {why}"


@pytest.mark.parametrize("key", ["b1", "b2"])
def test_a_key_of_other_optimizers_is_refused(key):
    whole = config.default()
    whole.optim.name = "sgd"
    whole.optim[key] = 0.5
    with pytest.raises(UserError) as refused:
        config.validate(whole)
    assert str(refused.value) == f"config.optim.{key}: sgd does not use it; adam and adamw do"


def test_keys_are_allowed_with_what_reads_them():
    whole = config.default()
    whole.optim.update(name="momentum", momentum=0.8, weight_decay=1e-4, decay_biases=True)
    whole.optim.update(schedule="plateau", decay=0.5, decay_epochs=3, min_learning_rate=1e-5)
    whole.task.update(name="binary", positive=(3,))
    whole.train.augment.update(shift=0.1, fill="constant")
    whole.sweep.update(random={"optim.clip": [0.1, 1.0]}, samples=3, width=2)
    config.validate(whole)


def test_none_stands_for_the_default_of_what_reads_the_key():
    whole = config.default()
    found = optim.fields(whole.optim)
    assert (found["b1"], found["b2"], found["momentum"]) == (0.9, 0.999, 0.9)
    whole.optim.b1 = 0.5
    assert optim.fields(whole.optim)["b1"] == 0.5


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.epochs", None, "a whole number"),
        ("train.epochs", True, "a whole number"),
        ("train.epochs", 2.0, "a whole number"),
        ("seed", "0", "a whole number"),
        ("optim.learning_rate", None, "a number"),
        ("optim.learning_rate", True, "a number"),
        ("optim.learning_rate", "fast", "a number"),
        ("optim.momentum", False, "a number, or None for the default"),
        ("data.name", None, "text"),
        ("data.name", 3, "text"),
        ("model.name", None, "text"),
        ("model.name", ["mlp"], "text"),
        ("optim.schedule", 1, "text"),
        ("data.offline_fallback", None, "true or false"),
        ("data.offline_fallback", 1, "true or false"),
        ("data.archives", 1, "text, or None for the default"),
        ("model.widths", 64, "a tuple such as 64,32, or None for the default"),
        ("model.batch_norm", 1, "true or false, or None for the default"),
        ("model.gamma", True, "a number, or None for the default"),
        ("model.features", True, "a whole number, or None for the default"),
        ("sweep.halving", 2, "a tuple such as 64,32"),
        ("sweep.halving", None, "a tuple such as 64,32"),
    ],
)
def test_a_value_of_another_type_is_refused(key, value, expected):
    """Also where ml_collections takes it: None for anything, and True for 1."""
    assert refusal(key, value) == f"config.{key}: {value!r} is not {expected}"


def test_a_section_that_has_become_a_value_is_refused():
    for key in ("optim", "train.augment"):
        message = f"config.{key}: no such key; it is a section, as in config.{key}."
        assert refusal(key, None).startswith(message)


def test_plateau_needs_validation_examples():
    fields = changed("optim.schedule", "plateau")
    config.validate(fields)
    fields.data.val_size = 0.0
    with pytest.raises(UserError, match="'plateau' watches the validation loss"):
        config.validate(fields)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.epocs", "train.epochs"),
        ("epochs", "train.epochs"),
        ("optim.batch_size", "train.batch_size"),
        ("optim.learning_rte", "optim.learning_rate"),
        ("sed", "seed"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key, nearest):
    """Also where no command line was involved: a typo in a file of configs must not pass."""
    assert refusal(key, 3) == f"config.{key}: no such key; did you mean config.{nearest}?"


def test_a_key_of_an_earlier_version_answers_with_its_new_name():
    whole = config.default()
    for key in dict(config.flatten(whole.sweep.to_dict())):
        whole = config.default()
        whole.members = {key: 3}
        with pytest.raises(UserError) as refused:
            config.validate(whole)
        assert str(refused.value) == f"config.members.{key}: is now config.sweep.{key}"


@pytest.mark.parametrize("section", ["sweep", "members"])
def test_a_renamed_key_answers_with_its_new_name(section):
    message = f"config.{section}.patience: is now config.train.patience"
    assert refusal(f"{section}.patience", 3) == message if section == "sweep" else True
    with pytest.raises(UserError, match=f"^{message}$"):
        raise config.no_such_key(f"{section}.patience", config.OPTIONS)


@pytest.mark.parametrize(
    "value", ["balancd", "", (), (1.0,), (1, 0), (1, -1.0), (1, math.inf), (True, 2), 3, "1,a"]
)
def test_impossible_weights_of_classes_are_refused(value):
    message = f"config.train.class_weights: {value!r} is not 'balanced', nor a number above 0"
    assert refusal("train.class_weights", value).startswith(message)


@pytest.mark.parametrize("task", ["multilabel", "denoise"])
def test_weights_of_classes_need_classes(task):
    whole = changed("train.class_weights", "balanced")
    config.validate(whole)
    whole.task.name = task
    with pytest.raises(UserError, match=f"^config.train.class_weights: the task '{task}' has no"):
        config.validate(whole)


def test_reading_a_section_of_an_earlier_version_answers_with_its_new_name():
    """As a config file does that sets `config.members.seeds = 3`."""
    with pytest.raises(UserError, match=r"^config\.members: is now config\.sweep$"):
        config.default().members.seeds = 3


def test_an_unknown_key_that_is_near_to_none_is_refused_with_all():
    message = refusal("qqqqq", 3)
    assert "there are data.archives, " in message
    assert ", train.epochs" in message


def test_a_missing_key_is_refused():
    fields = config.default()
    del fields.optim.clip
    with pytest.raises(UserError, match=r"config\.optim\.clip: is missing"):
        config.validate(fields)


values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
leaves = values | st.lists(values, max_size=3).map(tuple)
keys = st.text(st.characters(exclude_characters=".", codec="utf-8"), min_size=1, max_size=4)
trees = st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=9)
plain_configs = st.dictionaries(keys, trees, max_size=4)


@given(plain_configs)
def test_a_config_does_not_differ_from_itself_nor_from_what_json_makes_of_it(fields):
    assert config.differences(fields, copy.deepcopy(fields)) == []
    assert config.differences(fields, json.loads(json.dumps(fields))) == []


@given(plain_configs, plain_configs)
def test_differences_are_the_same_from_both_sides(a, b):
    assert config.differences(a, b) == config.differences(b, a)


@given(st.data())
def test_the_one_key_that_is_changed_is_the_one_that_differs(data):
    fields = config.default().to_dict()
    key = data.draw(st.sampled_from([key for key, _ in config.flatten(fields)]))
    other = changed(key, "something else").to_dict()
    places = {"data.archives", "data.data_dir", "data.offline_fallback"}
    assert config.differences(fields, other) == ([] if key in places else [key])


def test_the_name_and_form_of_data_do_not_matter_where_its_fingerprint_is_the_same():
    a, b = config.default(), config.default()
    b.data.update(
        name="csv:t.csv", label_column="last", pixel_max=16, transposed=True, kind="digits"
    )
    a, b = a.to_dict(), b.to_dict()
    keys = ["data.kind", "data.label_column", "data.name", "data.pixel_max", "data.transposed"]
    assert config.differences(a, b) == keys
    assert config.differences(a, b, same_data=True) == ["data.kind"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("label_column", "middle", "no 'middle'; there are first, last"),
        ("kind", "digit", "no 'digit'; there are digits, objects; did you mean 'digits'?"),
        ("pixel_max", 0, "0 is impossible; it must be 1 or more"),
    ],
)
def test_the_form_of_data_is_checked(key, value, message):
    fields = config.default()
    config.validate(fields)  # None is allowed
    fields.data[key] = value
    with pytest.raises(UserError, match=f"config.data.{key}: {re.escape(message)}"):
        config.validate(fields)


def test_a_key_that_one_side_lacks_differs_unless_it_is_none():
    a, b = {"model": {"widths": (3,), "dropout": None}}, {"model": {}}
    assert config.differences(a, b) == ["model.widths"]


def test_flatten_gives_every_leaf_once_with_dots():
    nested = {"seed": 0, "train": {"epochs": 3, "augment": {"zoom": 0.1}}, "widths": (1, 2)}
    flat = [("seed", 0), ("train.epochs", 3), ("train.augment.zoom", 0.1), ("widths", [1, 2])]
    assert list(config.flatten(nested)) == flat


STABLE_KEYS = {
    "seed",
    "data.name",
    "data.archives",
    "data.val_size",
    "data.offline_fallback",
    "model.name",
    "train.epochs",
    "train.batch_size",
    *(f"train.augment.{x}" for x in ("rotation", "zoom", "shift", "shear", "erase", "flip")),
    "optim.name",
    "optim.learning_rate",
    "optim.schedule",
    "optim.weight_decay",
}


@pytest.mark.parametrize("dataset", ["", "mnist", "fashion_mnist", "digits", "csv:some/file.csv"])
@pytest.mark.parametrize("name", ["linear", "mlp", "fast", "cnn"])
def test_every_shipped_config(name, dataset):
    """`parse` validates it; people have typed its keys into scripts."""
    options = flags.parse([f"--config={CONFIGS / name}.py" + f":{dataset}" * bool(dataset)])
    fields = dict(config.flatten(options.config.to_dict()))
    assert fields.keys() >= STABLE_KEYS
    assert fields["data.name"] == (dataset or "mnist")
    assert options.config_name == name
    assert fields["model.name"] == {"fast": "cnn"}.get(name, name)
    assert fields["data.offline_fallback"] is True


def test_every_file_of_configs_is_tested_above_and_says_how_it_is_run():
    names = {"linear", "mlp", "fast", "cnn", "study"}  # the last in test_study_config.py
    assert {path.stem for path in CONFIGS.glob("*.py")} == names
    for path in CONFIGS.glob("*.py"):
        assert f"python -m mnist_jax.main --config=configs/{path.name}" in path.read_text()


def test_only_a_config_says_that_other_data_will_do():
    assert config.default().data.offline_fallback is False
