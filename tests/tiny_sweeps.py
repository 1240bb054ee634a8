"""Sweeps for tests, and what they leave without the wall clock."""

from tiny_runs import ROOT

from mnist_jax.cli import flags
from mnist_jax.data import splits
from mnist_jax.runs.training import train_run
from mnist_jax.workdir import files

DIGITS = f"--config={ROOT}/configs/mlp.py:digits"
SMALL = [DIGITS, "--config.model.widths=(8,)", "--config.model.activation=tanh"]


def parse(*argv):
    return flags.parse([*SMALL, "--config.train.epochs=4", *argv]).config


def run(config, workdir, log=lambda line: None):
    return train_run(config, splits.load(config), workdir, command="it", log=log)


def rows(workdir, name=files.TRIALS):
    timed = ("seconds", "examples_per_second")
    return [
        {key: value for key, value in row.items() if key not in timed}
        for row in files.read_rows(workdir / name)
    ]


def summary(workdir):
    other = ("train_seconds", "compile_seconds", "seconds_per_epoch", "peak_rss_bytes")
    other += ("date", "name", "directory")
    content = files.read_json(workdir / files.SUMMARY)
    for row in (content["nested"] or {"folds": []})["folds"]:
        del row["train_seconds"], row["compile_seconds"]
    return {key: value for key, value in content.items() if key not in (*other, "git_revision")}


def same_bits(workdir, unbroken):
    assert rows(workdir) == rows(unbroken)
    assert rows(workdir, files.METRICS) == rows(unbroken, files.METRICS)
    assert summary(workdir) == summary(unbroken)
    predictions = [(w / files.PREDICTIONS).read_bytes() for w in (workdir, unbroken)]
    assert predictions[0] == predictions[1]
