"""The trained nets of a run, read from its checkpoints; its data is not needed."""

from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from mnist_jax import train
from mnist_jax.runs import groups, space
from mnist_jax.runtime.progress import Log
from mnist_jax.train import trials as vmapped
from mnist_jax.train.step import Recipe
from mnist_jax.train.trials import Plan
from mnist_jax.types import PyTree, UserError
from mnist_jax.workdir import checkpoint, files


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
    like = jax.eval_shape(lambda: vmapped.init(plan, groups.stack(config, trials)))
    directory = workdir / files.CHECKPOINTS / name
    if not directory.exists():
        raise UserError(f"{workdir}: has no checkpoint yet")
    with checkpoint.open_directory(directory, read_only=True) as manager:
        found = checkpoint.restore(manager, like, log, set_aside=False)
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
