"""TensorBoard itself, opened on a run: it finds everything that the run left for it."""

import json
import re
import subprocess
import sys
import time
import urllib.request

import pytest

from mnist_jax.cli import flags
from mnist_jax.data import splits
from mnist_jax.runs import loop


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """A function that asks TensorBoard for JSON: a path, and what to post to it, if anything."""
    folder = tmp_path_factory.mktemp("runs")
    config = flags.parse(["--config=configs/linear.py:digits", "--config.train.epochs=3"]).config
    loop.run(config, splits.load(config), folder / "a run", echo=lambda line: None)
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
        while not ask("scalars/tags") and time.monotonic() < end:
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
    assert not any(name.startswith("members.") for name in names)
    assert "test_accuracy" in {row["name"]["tag"] for row in found["metricInfos"]}
