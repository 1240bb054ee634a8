"""Groups: trials that share a program, what they need on the devices, and how they are trained."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from mnist_jax import train
from mnist_jax.data import datasets
from mnist_jax.data.splits import Splits
from mnist_jax.runs import space
from mnist_jax.runs.space import Trial
from mnist_jax.runtime import provenance, sharding
from mnist_jax.train import trials as vmapped
from mnist_jax.train.trials import Data, Plan, Trials
from mnist_jax.types import UserError

# Parameters of the trials that share batches in one program on a CPU: with few, wide products are
# faster than many small ones; with many, the transposes that they need cost more than they save
# (`experiments.members_speed`).
_SHARED_PARAMETERS = 200_000


class Group(NamedTuple):
    """Trials that share a program, on the devices."""

    plan: Plan
    trials: Trials
    data: Data
    epochs: int
    settings: Sequence[int]  # of each trial
    single: bool  # the only trial of its run
    init_from: Path | None = None  # the run whose net the trials start from


def make(
    config: ConfigDict, trials: Sequence[Trial], splits: Splits, dropped: Collection[int] = ()
) -> Group:
    """Put what a group of trials needs on the devices, and plan how it is trained.

    Args:
      config: of the run.
      trials: of the group.
      splits: training and validation examples.
      dropped: settings that are trained no further: programs are as wide as the others need.

    Raises:
      UserError: there are more folds than examples of a class, and as `plan` does.
    """
    training = sum(trial.setting not in dropped for trial in trials)
    plan = make_plan(config, trials, splits, training)
    folds = None
    if config.sweep.folds:
        held_out = datasets.folds(splits.train.labels, config.sweep.folds, config.data.split_seed)
        folds = vmapped.make_folds(held_out, len(splits.train.labels))
    order = jax.random.key(config.seed) if config.sweep.share_batches else None
    (images, labels), val = sharding.put_replicated(plan.recipe.mesh, (splits.train, splits.val))
    return Group(
        plan=plan,
        trials=stack(config, trials),
        data=Data(images, labels, val.images, val.labels, folds, order),
        epochs=space.config_of(config, trials[0]).train.epochs,
        settings=[trial.setting for trial in trials],
        single=len(trials) == 1 and not space.is_sweep(config),
        init_from=Path(config.init_from) if config.init_from else None,
    )


def stack(config: ConfigDict, trials: Sequence[Trial]) -> Trials:
    """Return what each trial of a group is trained with."""
    hparams = [train.make_hparams(space.config_of(config, trial)) for trial in trials]
    seeds = np.asarray([trial.seed for trial in trials], np.uint32)
    folds = [trial.fold for trial in trials]
    return Trials(
        root=jax.vmap(jax.random.key)(seeds),
        hparams=jax.tree.map(lambda *x: jax.device_put(np.stack(x)), *hparams),
        fold=None if folds[0] is None else jax.device_put(np.asarray(folds, np.int32)),
    )


def make_plan(
    config: ConfigDict, trials: Sequence[Trial], splits: Splits, training: int | None = None
) -> Plan:
    """Plan how a group of trials is trained.

    Args:
      config: of the run.
      trials: of the group.
      splits: training and validation examples.
      training: number of trials that still train; None: all.

    Raises:
      UserError: a fold leaves less than a batch, or the devices cannot share one evenly.
    """
    shape = space.group_config([space.config_of(config, trial) for trial in trials])
    # The number of steps, and so the schedule, depends on the number of examples.
    count = len(splits.train.labels)
    if config.sweep.folds and not config.sweep.share_batches:
        count -= -(-count // config.sweep.folds)  # the largest fold
    if shape.train.batch_size > count:
        raise UserError(
            f"config.train.batch_size: {shape.train.batch_size} is more than the {count:,} "
            "examples that each trial is trained on"
        )
    recipe = train.make_recipe(shape, len(splits.class_names), count)
    # Programs of several devices wait for each other in the order in which they were started, and
    # XLA's convolutions in two programs at a time add up in an order that varies.
    alone = jax.device_count() > 1 or any(layer.kind == "Conv" for layer in recipe.model.layers())
    threads = provenance.cores() if jax.default_backend() == "cpu" and not alone else 1
    width = _width(config, recipe, len(trials), threads)
    parts = sharding.num_trial_shards(width, shape.train.batch_size)
    mesh = sharding.make_mesh(parts)
    sharding.check_batch_size(shape.train.batch_size, mesh.shape[sharding.BATCH])
    if training is not None:  # the mesh stays the same, because it suits the batches
        width = _width(config, recipe, training, threads)
    width += -width % parts  # equally many trials in each part
    return Plan(recipe._replace(mesh=mesh), width, threads, shape.train.patience)


def _width(config: ConfigDict, recipe: train.Recipe, count: int, threads: int) -> int:
    """Return the number of trials of a program, of `count` trials or at least one."""
    count = max(count, 1)
    if config.sweep.width:
        return min(config.sweep.width, count)
    # All programs are equally wide.
    return -(-count // -(-count // _suitable(config, recipe, count, threads)))


def _suitable(config: ConfigDict, recipe: train.Recipe, count: int, threads: int) -> int:
    """Return how many trials a program should have at most.

    On a CPU one, or one per device: batched products are no faster there, and batched convolutions
    far slower. On accelerators, all that fit into memory.
    """
    layers = recipe.model.layers()
    num_params = sum(layer.num_params for layer in layers)
    if jax.default_backend() == "cpu":
        wide = config.sweep.share_batches and all(layer.kind == "Dense" for layer in layers)
        together = min(-(-count // threads), _SHARED_PARAMETERS // num_params) if wide else 1
        return max(together, jax.device_count())
    outputs = sum(int(np.prod(layer.output_shape)) for layer in layers)
    # Parameters, gradients, the optimizer's two copies, the best and the new ones; outputs with
    # their gradients and intermediate values. Half of the memory is left to everything else.
    bytes_each = 4 * (8 * num_params + 8 * recipe.batch_size * outputs)
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 8e9)
    return max(1, min(count, int(limit / 2 // bytes_each) * jax.device_count()))
