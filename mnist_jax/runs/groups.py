"""Groups of members that one program can train: what they need on the devices, and the plan."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mnist_jax import train
from mnist_jax.data import datasets
from mnist_jax.data.splits import Splits
from mnist_jax.runs import space
from mnist_jax.runs.space import Member
from mnist_jax.runtime import provenance, sharding
from mnist_jax.train import trials
from mnist_jax.train.trials import Members, Plan
from mnist_jax.types import UserError

# What members that share batches have in parameters where they are one program on a CPU: with few,
# wide products in place of many small ones are quicker; with many, the transposes that these take
# cost more than they save (`experiments.members_speed`).
_SHARED_PARAMETERS = 200_000


class Group(NamedTuple):
    """Members that one program trains, on the devices."""

    plan: Plan
    members: Members
    data: trials.Data
    epochs: int
    settings: Sequence[int]  # of each member


def make(
    config: ConfigDict, there: Sequence[Member], splits: Splits, dropped: Collection[int] = ()
) -> Group:
    """Puts what a group of members needs on the devices, and plans how it is trained.

    Args:
      config: of the run.
      there: the members.
      splits: what they learn from and are validated on.
      dropped: settings that are trained no further: programs are as wide as the others need.

    Raises:
      UserError: there are more folds than examples of a class, and as `plan` does.
    """
    training = sum(member.setting not in dropped for member in there)
    how = plan(config, there, splits, training)
    folds = None
    if config.members.folds:
        held_out = datasets.folds(splits.train.labels, config.members.folds, config.seed)
        folds = trials.make_folds(held_out, len(splits.train.labels))
    order = jax.random.key(config.seed) if config.members.share_batches else None
    (images, labels), val = sharding.put_replicated(how.mesh, (splits.train, splits.val))
    on_devices = trials.Data(images, labels, val.images, val.labels, folds, order)
    epochs = space.config_of(config, there[0]).train.epochs
    everyone = stack(config, there)
    return Group(how, everyone, on_devices, epochs, [m.setting for m in there])


def stack(config: ConfigDict, there: Sequence[Member]) -> Members:
    """What each member of a group is trained with."""
    own = [train.make_hparams(space.config_of(config, member)) for member in there]
    seeds = jnp.asarray([member.seed for member in there], jnp.uint32)
    folds = [member.fold for member in there]
    return Members(
        root=jax.vmap(jax.random.key)(seeds),
        hparams=jax.tree.map(lambda *x: jnp.stack(x), *own),
        fold=None if folds[0] is None else jnp.asarray(folds, jnp.int32),
    )


def plan(
    config: ConfigDict, there: Sequence[Member], splits: Splits, training: int | None = None
) -> Plan:
    """How a group of members is trained.

    Args:
      config: of the run.
      there: the members.
      splits: what they learn from.
      training: how many of them still train; None: all.

    Raises:
      UserError: a fold leaves less than a batch, or the devices cannot share one.
    """
    shape = space.group_config([space.config_of(config, member) for member in there])
    # What an epoch's steps are, and so the schedule, depends on how many examples it has.
    count = len(splits.train.labels)
    if config.members.folds and not config.members.share_batches:
        count -= -(-count // config.members.folds)  # the largest fold
    if shape.train.batch_size > count:
        raise UserError(
            f"config.train.batch_size: {shape.train.batch_size} is more than the {count:,} "
            "examples that each member is trained on"
        )
    recipe = train.make_recipe(shape, len(splits.class_names), count)
    # Programs of several devices wait for each other in the order in which they were started, and
    # XLA's convolutions in two programs at a time add up in an order that is never the same.
    alone = jax.device_count() > 1 or any(layer.kind == "Conv" for layer in recipe.model.layers())
    threads = provenance.cores() if jax.default_backend() == "cpu" and not alone else 1
    width = _width(config, recipe, len(there), threads)
    parts = sharding.num_trial_shards(width, shape.train.batch_size)
    mesh = sharding.make_mesh(parts)
    sharding.check_batch_size(shape.train.batch_size, mesh.shape[sharding.BATCH])
    if training is not None:  # in as many parts as all were, which suit the batches
        width = _width(config, recipe, training, threads)
    width += -width % parts  # as many members in each
    return Plan(recipe._replace(mesh=mesh), width, threads, mesh, config.members.patience)


def _width(config: ConfigDict, recipe: train.Recipe, count: int, threads: int) -> int:
    """How many of so many members are one program; of none as of one."""
    count = max(count, 1)
    if config.members.width:
        return min(config.members.width, count)
    # The last ones are as many as the others.
    return -(-count // -(-count // _suitable(config, recipe, count, threads)))


def _suitable(config: ConfigDict, recipe: train.Recipe, count: int, threads: int) -> int:
    """How many members are one program at most where the config leaves it open.

    On a CPU one each, or one a device: products of many members at once
    are no quicker there, convolutions far slower. On accelerators as many as their memory holds.
    """
    layers = recipe.model.layers()
    num_params = sum(layer.num_params for layer in layers)
    if jax.default_backend() == "cpu":
        wide = config.members.share_batches and all(layer.kind == "Dense" for layer in layers)
        together = min(-(-count // threads), _SHARED_PARAMETERS // num_params) if wide else 1
        return max(together, jax.device_count())
    outputs = sum(int(np.prod(layer.output_shape)) for layer in layers)
    # Parameters, gradients, the optimizer's two, the best and the new ones; outputs with their
    # gradients and what is between them. Half of the memory is left to everything else.
    bytes_each = 4 * (8 * num_params + 8 * recipe.batch_size * outputs)
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 8e9)
    return max(1, min(count, int(limit / 2 // bytes_each) * jax.device_count()))
