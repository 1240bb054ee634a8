"""What a run has learnt, read back from its checkpoints; its data need not be there."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mnist_jax import train
from mnist_jax.models.networks import Model
from mnist_jax.runs import groups, space
from mnist_jax.runtime import sharding
from mnist_jax.runtime.progress import Echo
from mnist_jax.train import trials
from mnist_jax.train.step import Recipe
from mnist_jax.types import PyTree, UserError
from mnist_jax.workdir import checkpoint, files
from mnist_jax.workdir.checkpoint import Checkpoint


def best(workdir: Path, config: ConfigDict, recipe: Recipe, echo: Echo) -> Checkpoint:
    """The best epoch of a run that is one training, finished or not.

    Args:
      workdir: of the run.
      config: of the run.
      recipe: of the config.
      echo: told of damaged checkpoints.

    Raises:
      UserError: there is no checkpoint yet, or all are damaged.
    """
    root = jax.random.key(config.seed)
    state = jax.eval_shape(lambda: train.init_state(recipe, train.make_hparams(config), root))
    return _read(workdir, workdir / files.CHECKPOINTS, state, echo)


def judged(
    workdir: Path, config: ConfigDict, summary: Mapping[str, Any], echo: Echo
) -> tuple[Model, list[PyTree]]:
    """The variables that a finished run's test results are of: one net's, or those of its members.

    Args:
      workdir: of the run.
      config: of the run.
      summary: of the run.
      echo: told of damaged checkpoints.

    Returns:
      The net, and the variables of each.

    Raises:
      UserError: its checkpoints are gone or damaged.
    """
    sizes = len(summary["class_names"]), summary["num_train"]
    if not space.wanted(config):
        recipe = train.make_recipe(config, *sizes)
        return recipe.model, [train.variables(best(workdir, config, recipe, echo).state)]
    everyone, chosen = space.expand(config), summary["chosen"]
    if config.members.folds:
        config, there = space.refit(config, everyone, chosen)
        name = files.REFIT
    else:
        parts = [[everyone[i] for i in part] for part in space.groups(config, everyone)]
        number = next(n for n, part in enumerate(parts) if chosen in (m.setting for m in part))
        there, name = parts[number], str(number)
    shape = space.group_config([space.config_of(config, member) for member in there])
    recipe = train.make_recipe(shape, *sizes)
    plan = trials.Plan(recipe, 1, 1, sharding.make_mesh(), 0)
    course = jax.eval_shape(partial(trials.start, plan), groups.stack(config, there))
    course = _read(workdir, workdir / files.CHECKPOINTS / name, course, echo).state
    return recipe.model, [
        jax.tree.map(lambda x, i=i: x[i], course.best)
        for i, member in enumerate(there)
        if member.setting == chosen and not course.diverged[i]
    ]


def on_host(state: PyTree) -> PyTree:
    """Empty numpy arrays of a state's shapes: what a checkpoint is read into."""
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), state)


def _read(workdir: Path, directory: Path, like: PyTree, echo: Echo) -> Checkpoint:
    with checkpoint.open_directory(directory, read_only=True) as manager:
        found = checkpoint.restore_best(manager, on_host(like), echo)
    if found is None:
        raise UserError(f"{workdir}: has no checkpoint yet")
    return found
