"""Groups of members that one program can train: what they need on the devices, and the plan."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from mnist_jax import data, members, parallel, sweep, train
from mnist_jax.members import Members, Plan
from mnist_jax.splits import Splits
from mnist_jax.sweep import Member
from mnist_jax.types import UserError

# What the members that train at once have in parameters on a CPU: more of them, with what the
# optimizer keeps of each, are slower than one after the other (`experiments.members_speed`).
_CPU_PARAMETERS = 2_000_000


class Group(NamedTuple):
    """Members that one program trains, on the devices."""

    plan: Plan
    members: Members
    data: members.Data
    epochs: int
    settings: Sequence[int]  # of each member


def make(config: ConfigDict, there: Sequence[Member], splits: Splits) -> Group:
    """Puts what a group of members needs on the devices, and plans how it is trained.

    Raises:
      UserError: there are more folds than examples of a class, and as `plan` does.
    """
    how = plan(config, there, splits)
    own = [sweep.config_of(config, member) for member in there]
    folds = None
    if config.members.folds:
        held_out = data.folds(splits.train.labels, config.members.folds, config.seed)
        folds = members.make_folds(held_out, len(splits.train.labels))
    fold = None if folds is None else jnp.asarray([member.fold for member in there], jnp.int32)
    hparams = jax.tree.map(lambda *x: jnp.stack(x), *map(train.make_hparams, own))
    seeds = jnp.asarray([member.seed for member in there], jnp.uint32)
    order = jax.random.key(config.seed) if config.members.share_batches else None
    (images, labels), val = parallel.put(how.mesh, (splits.train, splits.val))
    on_devices = members.Data(images, labels, val.images, val.labels, folds, order)
    everyone = Members(jax.vmap(jax.random.key)(seeds), hparams, fold)
    return Group(how, everyone, on_devices, own[0].train.epochs, [m.setting for m in there])


def plan(config: ConfigDict, there: Sequence[Member], splits: Splits) -> Plan:
    """How a group of members is trained.

    Raises:
      UserError: a fold leaves less than a batch, or the devices cannot share one.
    """
    shape = sweep.group_config([sweep.config_of(config, member) for member in there])
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
    width = min(config.members.width or _width(recipe, len(there)), len(there))
    if not config.members.width:  # the last ones are as many as the others
        width = -(-len(there) // -(-len(there) // width))
    if width > 1:  # a whole number of members on each device
        width += -width % jax.device_count()
    mesh = parallel.make_mesh(of_members=width > 1)
    parallel.check_batch_size(shape.train.batch_size, mesh.shape[parallel.BATCH])
    return Plan(recipe._replace(mesh=mesh), width, mesh, config.members.patience)


def _width(recipe: train.Recipe, count: int) -> int:
    """How many members train at once where the config leaves it open."""
    layers = recipe.model.layers()
    num_params = sum(layer.num_params for layer in layers)
    if jax.default_backend() == "cpu":
        convolutions = any(layer.kind == "Conv" for layer in layers)
        return 1 if convolutions else max(1, _CPU_PARAMETERS // num_params)
    outputs = sum(int(np.prod(layer.output_shape)) for layer in layers)
    # Parameters, gradients, the optimizer's two, the best and the new ones; outputs with their
    # gradients and what is between them. Half of the memory is left to everything else.
    bytes_each = 4 * (8 * num_params + 8 * recipe.batch_size * outputs)
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 8e9)
    return max(1, min(count, int(limit / 2 // bytes_each) * jax.device_count()))
