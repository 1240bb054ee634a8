"""The trained nets of a run, read from its checkpoints; its data is not needed."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from mnist_jax import train
from mnist_jax.runs import groups, space
from mnist_jax.runtime.progress import Log
from mnist_jax.train import trials as vmapped
from mnist_jax.train.step import Recipe
from mnist_jax.train.trials import Plan, TrialState
from mnist_jax.types import PyTree, UserError
from mnist_jax.workdir import checkpoint, files


def start(source: Path, log: Log) -> PyTree:
    """Restore the net from which another run starts: the best epoch of a finished run.

    Of a sweep, that is the first trial of the chosen setting.

    Args:
      source: the workdir of the finished run.
      log: prints warnings of damaged checkpoints.

    Returns:
      Its variables, NumPy.

    Raises:
      UserError: there is no finished run, or its checkpoints are gone.
    """
    config, _ = files.read_config(source)
    summary = files.read_summary(source)
    sizes = len(summary["class_names"]), summary["num_train"]
    return best(source, config, sizes, summary.get("chosen", 0), log).nets[0]


def start_from(states: TrialState, net: PyTree, source: Path) -> TrialState:
    """Put a net into the states of trials, or the shapes of states, before their first epoch.

    Raises:
      UserError: the net has other shapes.
    """
    variables = {"params": states.state.params, "batch_stats": states.state.batch_stats}
    given, wanted = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): x.shape
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (net, variables)
    )
    for name in sorted(given | wanted):
        here = wanted[name][1:] if name in wanted else "missing"  # without the axis of trials
        if given.get(name, "missing") != here:
            raise UserError(
                f"config.init_from={source}: {name} is {given.get(name, 'missing')} there and "
                f"{here} here; take the same config.model, and the same number of classes"
            )
    params, stats = (
        jax.tree.map(lambda x, new: np.broadcast_to(new, x.shape).astype(x.dtype), old, net[key])
        for key, old in variables.items()
    )
    ema = None if states.state.ema_params is None else jax.tree.map(np.copy, params)
    state = states.state._replace(params=params, batch_stats=stats, ema_params=ema)
    best = jax.tree.map(np.copy, {"params": params, "batch_stats": stats})
    return states._replace(state=state, best=best)


class Restored(NamedTuple):
    """Nets of the same recipe."""

    recipe: Recipe
    nets: list[PyTree]  # variables of each, NumPy
    epochs: list[int]  # the best epoch of each


def best(
    workdir: Path, config: ConfigDict, sizes: tuple[int, int], chosen: int, log: Log
) -> Restored:
    """Restore the best epochs of the trials of a setting, without those that diverged.

    Args:
      workdir: of the run.
      config: of the run.
      sizes: the numbers of classes (or labels) and of training examples.
      chosen: the setting.
      log: prints warnings of damaged checkpoints.

    Raises:
      UserError: there is no checkpoint yet, or all are damaged.
    """
    trials = space.expand(config)
    if config.sweep.folds:
        config, trials = space.refit(config, trials, chosen)
        name = files.REFIT
    else:
        parts = [[trials[i] for i in part] for part in space.groups(config, trials)]
        number = next(n for n, part in enumerate(parts) if chosen in (t.setting for t in part))
        trials, name = parts[number], str(number)
    shape = space.group_config([space.config_of(config, trial) for trial in trials])
    recipe = train.make_recipe(shape, *sizes)
    plan = Plan(recipe, len(trials), 1, 0)
    like = jax.eval_shape(partial(vmapped.init, plan), groups.stack(config, trials))
    directory = workdir / files.CHECKPOINTS / name
    if not directory.exists():
        raise UserError(f"{workdir}: has no checkpoint yet")
    found = checkpoint.read(directory, like, log)
    if found is None:
        raise UserError(f"{workdir}: has no checkpoint yet")
    states = found.state
    places = [
        i for i, trial in enumerate(trials) if trial.setting == chosen and not states.diverged[i]
    ]
    return Restored(
        recipe=recipe,
        nets=[jax.tree.map(lambda x, i=i: x[i], states.best) for i in places],
        epochs=[int(states.best_epoch[i]) for i in places],
    )
