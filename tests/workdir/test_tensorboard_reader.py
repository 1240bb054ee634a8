"""TensorBoard itself, opened on a run and a sweep: it shows everything that they wrote for it."""

import json
import re
import subprocess
import sys
import time
import urllib.request

import pytest

from mnist_jax.cli import flags
from mnist_jax.data import splits
from mnist_jax.runs.training import train_run

DIGITS = "--config=configs/linear.py:digits"
GRID = '--config.sweep.grid={"optim.learning_rate": [0.01, 0.0001]}'


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """A function that asks TensorBoard for JSON: a path, and what to post to it, if anything."""
    folder = tmp_path_factory.mktemp("runs")
    config = flags.parse([DIGITS, "--config.train.epochs=3"]).config
    train_run(config, splits.load(config), folder / "a run", log=lambda line: None)
    sweep = flags.parse([DIGITS, "--config.train.epochs=2", GRID]).config
    train_run(sweep, splits.load(sweep), folder / "a sweep", log=lambda line: None)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", "0"]
    process = subprocess.Popen(
        [*command, "--load_fast=false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        addresses = (re.search(r"http://localhost:\d+/", line) for line in process.stderr)
        address = next(found for found in addresses if found)[0]

        def ask(path, body=None):
            question = urllib.request.Request(
                f"{address}data/plugin/{path}",
                body and json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(question) as answer:
                return json.load(answer)

        end = time.monotonic() + 60
        while len(ask("scalars/tags")) < 3 and time.monotonic() < end:
            time.sleep(0.2)
        yield ask
        process.terminate()
        process.communicate()


NAME = "a run/tensorboard"


def test_curves(ask):
    tags = ask("scalars/tags")[NAME]
    assert {"train_loss", "val_accuracy", "learning_rate", "test_accuracy"} <= set(tags)
    points = ask("scalars/scalars?tag=val_loss&run=a%20run/tensorboard")
    assert [epoch for _, epoch, _ in points] == [1, 2, 3]


def test_mistakes_and_histograms(ask):
    mistakes = ask("images/tags")[NAME]
    assert len(mistakes) == 16
    assert all(re.fullmatch(r"mistakes/\d\d_\d_as_\d", tag) for tag in mistakes)
    assert set(ask("histograms/tags")[NAME]) == {
        "parameters/Dense_0/bias",
        "parameters/Dense_0/kernel",
    }


def test_hyperparameters(ask):
    found = ask("hparams/experiment", {"experimentName": ""})
    names = {row["name"] for row in found["hparamInfos"]}
    assert {"data", "model.name", "optim.learning_rate", "train.epochs", "seed"} <= names
    assert not any(name.startswith("sweep.") for name in names)
    assert "test_accuracy" in {row["name"]["tag"] for row in found["metricInfos"]}


def test_a_sweep_has_a_directory_for_each_trial(ask):
    tags = ask("scalars/tags")
    assert set(tags) == {NAME, *(f"a sweep/tensorboard/trial-{i}" for i in range(2))}
    for trial in range(2):
        points = ask(f"scalars/scalars?tag=val_loss&run=a%20sweep/tensorboard/trial-{trial}")
        assert [epoch for _, epoch, _ in points] == [1, 2]
    # Test results of the chosen setting alone.
    assert ["test_accuracy" in tags[f"a sweep/tensorboard/trial-{i}"] for i in range(2)] == [
        True,
        False,
    ]
