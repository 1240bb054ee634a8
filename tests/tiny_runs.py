"""Runs for tests: made from overrides, kept compiled, compared bit by bit."""

import os
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import forks
import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from tensorboard_events import scalars

from mnist_jax import config as configs
from mnist_jax import train
from mnist_jax.data import splits
from mnist_jax.report import run_page
from mnist_jax.runs import groups, space, training
from mnist_jax.train import trials as vmapped
from mnist_jax.workdir import checkpoint, files

ROOT = Path(__file__).parent.parent
LINEAR = {"data.name": "digits", "model.name": "linear", "train.epochs": 3}


def make_config(values, **overrides):
    config = configs.default()
    config.update_from_flattened_dict(values)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    configs.validate(config)
    return config


def train_run(config, workdir, **options):
    """Train a run to its end, silently."""
    options = {"log": lambda line: None, **options}
    return training.train_run(config, splits.load(config), workdir, **options)


RENDER = run_page.render


@contextmanager
def with_pages():
    """Render the pages of runs, which conftest replaces by an empty page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_page, "render", RENDER)
        patch.delenv(forks.WITHOUT_PAGES, raising=False)
        yield


def recipe_of(config):
    examples = splits.load(config)
    recipe = train.make_recipe(config, len(examples.class_names), len(examples.train.labels))
    return recipe, examples


def logits_of(workdir):
    with np.load(workdir / files.PREDICTIONS) as stored:
        return stored["logits"]


# What is compiled is kept in a folder, by this process and by others: most of a tiny run's time.
KEEP = {
    "jax_persistent_cache_min_compile_time_secs": 0.02,  # storing and reading takes as long
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@contextmanager
def compiled_in(folder):
    """JAX keeps what it compiles in a folder."""
    ours = {**KEEP, "jax_compilation_cache_dir": str(folder)}
    theirs = {name: getattr(jax.config, name) for name in ours}
    try:
        _configure(ours)
        yield
    finally:
        _configure(theirs)


def _configure(values):
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def environment(folder):
    """Of a process that runs in a folder; this Python is the first on its path."""
    return {
        **os.environ,
        **{name.upper(): str(value) for name, value in KEEP.items()},
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",  # these processes train for long
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def rows(workdir):
    """metrics.jsonl without the wall clock."""
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")}
        for row in files.read_rows(workdir / files.METRICS)
    ]


def summary(workdir):
    """summary.json without the wall clock, the memory, the place and the code's history."""
    other = ("train_seconds", "compile_seconds", "seconds_per_epoch", "peak_rss_bytes")
    other += ("date", "name", "directory")
    content = files.read_json(workdir / files.SUMMARY)
    return {k: v for k, v in content.items() if k not in (*other, "git_revision")}


def restored(workdir, group="0"):
    """Return the latest checkpoint of a group: its `state` is a `TrialState` of NumPy arrays."""
    config, _ = files.read_config(workdir)
    all_trials = space.expand(config)
    parts = space.groups(config, all_trials)
    trials = [all_trials[i] for i in parts[int(group)]]
    plan = groups.make_plan(config, trials, splits.load(config))
    like = jax.eval_shape(partial(vmapped.init, plan), groups.stack(config, trials))
    with checkpoint.open_directory(workdir / files.CHECKPOINTS / group) as manager:
        return checkpoint.restore(manager, like)


def bits(state):
    """Every array of a state, by its path."""
    leaves, _ = jax.tree.flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def is_whole_and_the_same(workdir, unbroken):
    assert rows(workdir) == rows(unbroken)
    assert summary(workdir) == summary(unbroken)
    logits = [(w / files.PREDICTIONS).read_bytes() for w in (workdir, unbroken)]
    assert logits[0] == logits[1]
    ours, theirs = restored(workdir), restored(unbroken)
    assert ours.history == files.read_rows(workdir / files.METRICS)
    assert ours.epoch == theirs.epoch
    assert bits(ours.state) == bits(theirs.state)
    shown = [
        (epoch, value)
        for tag, epoch, value in scalars(workdir / files.TENSORBOARD)
        if tag == "train_loss"
    ]
    assert shown == [(row["epoch"], np.float32(row["train_loss"])) for row in rows(workdir)]
    for part in (".", f"{files.CHECKPOINTS}/0"):  # no litter, except damage that was set aside
        there, wanted = ({x.name for x in (w / part).iterdir()} for w in (workdir, unbroken))
        assert {name for name in there if not name.endswith(".damaged")} == wanted
