"""Experiments: when a recipe reaches which accuracy; recipes are the published ones."""

import json

import jax
import numpy as np
import pytest

from experiments import tables
from experiments.time_to_accuracy import __main__ as time_to_accuracy
from experiments.time_to_accuracy import report, timed_run
from experiments.time_to_accuracy.recipes import Data, Training, flax_example

CONFIG = """
from configs import linear
def get_config(dataset):
    config = linear.get_config(dataset)
    config.train.epochs = {epochs}
    config.optim.schedule = "{schedule}"
    return config
"""


def scripted(right_on_val):
    """Training whose n-th epoch leaves so many of 1,000 validation images right, and 7 of 10."""
    epochs, asked = [], []

    def predict(images):
        asked.append(len(images))
        right = right_on_val[len(epochs) - 1] if len(images) == 1_000 else 7
        return np.arange(len(images)) >= right  # the labels are all 0

    training = Training(len(right_on_val), 1, 0.0, lambda: epochs.append(1), predict)
    return training, asked


def examples():
    none = [np.zeros((0, 28, 28, 1), np.uint8), np.zeros(0, np.int32)]
    val = [np.zeros((1_000, 28, 28, 1), np.uint8), np.zeros(1_000, np.int32)]
    test = [np.zeros((10, 28, 28, 1), np.uint8), np.zeros(10, np.int32)]
    return Data(*none, *val, *test)


def test_a_target_is_reached_by_the_first_epoch_that_has_it():
    training, asked = scripted([979, 980, 985, 994, 993])
    clock = iter([10.0, 20.0, 30.0, 40.0, 50.0])
    found = timed_run.follow(training, examples(), None, lambda: next(clock))
    assert [row["val_accuracy_percent"] for row in found["epochs"]] == [97.9, 98, 98.5, 99.4, 99.3]
    assert {name: row["epoch"] for name, row in found["targets"].items()} == {
        "98": 2,
        "99": 4,
        "99.4": 4,
    }
    assert found["targets"]["98"]["test_accuracy_percent"] == 70.0
    assert found["targets"]["98"]["whole_seconds"] == pytest.approx(20.0, abs=0.1)
    # Test was judged twice, at those two moments, and not to see whether it should be.
    assert asked == [1_000, 1_000, 10, 1_000, 1_000, 10, 1_000]
    seconds = [row["train_seconds"] for row in found["epochs"]]
    assert seconds == sorted(seconds)


def test_a_target_that_is_never_reached_is_none_and_test_is_not_read():
    training, asked = scripted([970, 979])
    found = timed_run.follow(training, examples(), None, lambda: 1.0)
    assert found["targets"] == {"98": None, "99": None, "99.4": None}
    assert asked == [1_000, 1_000]


def test_a_run_stops_at_the_target_asked_for():
    training, _ = scripted([985, 995, 996])
    found = timed_run.follow(training, examples(), 99.0, lambda: 1.0)
    assert len(found["epochs"]) == 2
    assert found["targets"]["99.4"]["epoch"] == 2


@pytest.mark.parametrize("target", timed_run.TARGETS)
def test_percent_is_exact_at_the_targets(target):
    labels = np.zeros(6_000, np.int32)
    needed = round(60 * target)
    assert timed_run.percent(np.arange(6_000) >= needed, labels) == target
    assert timed_run.percent(np.arange(6_000) >= needed - 1, labels) < target


def test_runs_are_kept_until_their_config_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(time_to_accuracy, "RUNS", tmp_path / "runs")
    config = tmp_path / "tiny.py"
    config.write_text(CONFIG.format(epochs=2, schedule="constant"))
    data, sizes = time_to_accuracy.write_data("digits")
    assert sizes == {"train": 1_293, "val": 144, "test": 360}
    found = time_to_accuracy.run(str(config), 3, data, None)
    assert (found["seed"], found["num_params"], len(found["epochs"])) == (3, 7_850, 2)
    first, second = found["epochs"]
    assert second["whole_seconds"] > first["whole_seconds"] > found["compile_seconds"] > 0
    assert second["val_accuracy_percent"] > 50
    with monkeypatch.context() as patched:
        patched.setattr(time_to_accuracy.subprocess, "run", None)  # would not be callable
        assert time_to_accuracy.run(str(config), 3, data, None) == found
    config.write_text(CONFIG.format(epochs=1, schedule="constant"))
    assert len(time_to_accuracy.run(str(config), 3, data, None)["epochs"]) == 1


def test_a_recipe_that_cannot_be_run_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(time_to_accuracy, "RUNS", tmp_path)
    config = tmp_path / "tiny.py"
    config.write_text(CONFIG.format(epochs=2, schedule="plateau"))
    data, _ = time_to_accuracy.write_data("digits")
    with pytest.raises(time_to_accuracy.Failed, match="a schedule that watches"):
        time_to_accuracy.run(str(config), 0, data, None)


def test_no_such_recipe_is_a_mistake(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(time_to_accuracy, "RUNS", tmp_path)
    command = "time_to_accuracy --dataset=digits --recipes configs/none.py"
    monkeypatch.setattr("sys.argv", command.split())
    assert time_to_accuracy.main() == 2
    assert "--config=configs/none.py:digits: no such file" in capsys.readouterr().err


def test_the_table_counts_the_seeds_that_reached_a_target():
    def finished(seed, reached):
        row = {"epoch": 3, "train_seconds": 10.0 + seed, "whole_seconds": 20.0 + seed}
        row["val_accuracy_percent"] = 98.5
        targets = {"98": {**row, "test_accuracy_percent": 98.0 + seed} if reached else None}
        targets["99"] = None
        recipe = {"num_params": 5, "published_epochs": 4, "compile_seconds": 1.0}
        # One was outside of a checkout.
        recipe |= {"device": "8 cores", "git_revision": "0123456" + 33 * "f" if seed else None}
        return {**recipe, "epochs": [row] * (3 + seed), "targets": targets}

    summary = time_to_accuracy.summarize(
        "flax_mnist", [finished(0, True), finished(1, False), finished(2, True)], 98.0
    )
    assert len(summary["curve"]) == 3
    assert summary["curve"][0]["train_seconds"] == 11.0
    record = {
        "command": "python",
        "device": "2 cores",
        "jax": "0",
        "dataset": "mnist",
        "examples": {"train": 54_000, "val": 6_000, "test": 10_000},
        "recipes": [summary],
        "failed": {"pytorch_mnist": "ModuleNotFoundError: No module named 'torch'"},
        "left_out": ["keras_mnist_convnet"],
    }
    table = report.to_markdown(json.loads(json.dumps(record)))
    assert table.splitlines()[2:4] == [
        "| 98% | `flax_mnist` | 5 | 4 | 2 of 3 | 11.0 ± 1.4 | 21.0 ± 1.4 | 99.00 ± 1.41 "
        "| -, 0123456 |",
        "| 98% | `pytorch_mnist` | - | - | - | - | - | - | - |",
    ]
    assert "99%" not in table
    assert "; 8 cores, jax 0; " in table
    assert "left out: keras_mnist_convnet;" in table
    assert "not run: pytorch_mnist: ModuleNotFoundError" in table
    report.figure(record)


def test_published_recipes_stay_until_they_are_measured_again(tmp_path, monkeypatch, capsys):
    """Also where their runs are not there, as in a clone; targets are those of each one's runs."""
    monkeypatch.setattr(time_to_accuracy, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.md")
    (tmp_path / "results.md").write_text("none of the tables\n")
    row = {"epoch": 1, "train_seconds": 1.0, "whole_seconds": 2.0, "val_accuracy_percent": 98.5}
    reached = {**row, "test_accuracy_percent": 98.0}

    def measure(recipe, stop_at, num_params):
        kept = {
            "config": {}, "num_params": num_params, "published_epochs": 4, "compile_seconds": 1.0,
            "epochs": [row], "targets": {"98": reached, "99": None, "99.4": None},
            "device": "2 cores", "git_revision": "0123456",
        }  # fmt: skip
        path = tmp_path / "runs" / f"digits-{recipe}-until-{stop_at}-s0.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(kept))
        command = f"time_to_accuracy --dataset=digits --recipes {recipe} --seeds=1"
        monkeypatch.setattr("sys.argv", [*command.split(), f"--stop-at={stop_at}"])
        assert time_to_accuracy.main() == 0
        path.unlink()
        return [line for line in capsys.readouterr().out.splitlines() if "% | `" in line]

    measure("pytorch_mnist", "98", 7)
    measure("flax_mnist", "99.4", 8)
    lines = measure("pytorch_mnist", "99", 9)
    assert [line.split(" | ")[:3] + line.split(" | ")[4:5] for line in lines] == [
        ["| 98%", "`pytorch_mnist`", "9", "1 of 1"],
        ["| 98%", "`flax_mnist`", "8", "1 of 1"],
        ["| 99%", "`pytorch_mnist`", "9", "0 of 1"],
        ["| 99%", "`flax_mnist`", "8", "0 of 1"],
        ["| 99.4%", "`flax_mnist`", "8", "0 of 1"],
    ]


def test_flax_example_is_the_published_net():
    images = jax.ShapeDtypeStruct((1, 28, 28, 1), "float32")
    with jax.numpy_dtype_promotion("standard"):  # Flax's avg_pool divides by an integer
        net = jax.eval_shape(lambda x: flax_example.CNN().init(jax.random.key(0), x), images)
    assert sum(x.size for x in jax.tree.leaves(net)) == 824_458


def test_pytorch_recipes_are_the_published_nets():
    pytest.importorskip("torch", reason="needs pip install -e '.[bench]'")
    from experiments.time_to_accuracy.recipes import pytorch

    sizes = [
        sum(p.numel() for p in net().parameters())
        for net in (pytorch.mnist_net, pytorch.mnist_fast_net)
    ]
    assert sizes == [1_199_882, 215_194]


def test_keras_recipe_is_the_published_net():
    pytest.importorskip("tensorflow", reason="needs pip install -e '.[bench]'")
    pytest.importorskip("keras", reason="needs pip install -e '.[bench]'")
    from experiments.time_to_accuracy.recipes import keras

    assert keras.mnist_convnet_net().count_params() == 34_826
