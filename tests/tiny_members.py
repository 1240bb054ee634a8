"""Runs of many members for tests, and what they leave but for the wall clock."""

from tiny_runs import ROOT

from mnist_jax.cli import flags
from mnist_jax.data import splits
from mnist_jax.runs import run_members
from mnist_jax.workdir import files

DIGITS = f"--config={ROOT}/configs/mlp.py:digits"
SMALL = [DIGITS, "--config.model.widths=(8,)", "--config.model.activation=tanh"]


def parse(*argv):
    return flags.parse([*SMALL, "--config.train.epochs=4", *argv]).config


def run(config, workdir, echo=lambda line: None):
    return run_members.run_members(config, splits.load(config), workdir, command="it", echo=echo)


def rows(workdir, name=files.MEMBERS):
    return [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in files.read_rows(workdir / name)
    ]


def summary(workdir):
    other = ("train_seconds", "compile_seconds", "peak_rss_bytes", "git_revision")
    content = files.read_json(workdir / files.SUMMARY)
    for row in (content["nested"] or {"folds": []})["folds"]:
        del row["train_seconds"], row["compile_seconds"]
    return {key: value for key, value in content.items() if key not in other}


def same_bits(workdir, unbroken):
    assert rows(workdir) == rows(unbroken)
    assert rows(workdir, files.METRICS) == rows(unbroken, files.METRICS)
    assert summary(workdir) == summary(unbroken)
    predictions = [(w / files.PREDICTIONS).read_bytes() for w in (workdir, unbroken)]
    assert predictions[0] == predictions[1]
