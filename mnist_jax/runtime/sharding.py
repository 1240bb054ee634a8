"""Sharding of batches, and of trials that train together, over one mesh of all devices.

The mesh covers the devices of all processes. Parameters and data are replicated. A program states
only where its batch is sharded; XLA propagates this and all-reduces sums over the batch (the loss,
metrics). Each device applies the net to its shard of the batch (`shard_map`); gradients and the
statistics of batch normalisation are all-reduced, and random numbers do not depend on the number of
devices. One device is a mesh, too, at no cost: its programs are the same as without a mesh.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from mnist_jax.types import PyTree, UserError

TRIAL, BATCH = "trial", "batch"


def make_mesh(parts: int = 1) -> Mesh:
    """Return the mesh of all devices.

    Args:
      parts: shards of the axis of trials, a divisor of the number of devices; the devices of a part
        share the batches of its trials.
    """
    shape = parts, jax.device_count() // parts
    # Auto: XLA chooses the sharding of intermediate values; else their types would state it.
    return jax.make_mesh(shape, (TRIAL, BATCH), axis_types=(AxisType.Auto, AxisType.Auto))


def num_trial_shards(count: int, batch_size: int) -> int:
    """Return the number of parts for `count` trials; with few trials, devices share a batch.

    One trial is one part. For more trials the devices of a part share a batch evenly; if that takes
    more parts than trials, some parts are empty.
    """
    if count == 1:
        return 1
    devices = jax.device_count()
    suitable = [
        parts
        for parts in range(1, devices + 1)
        if not devices % parts and not batch_size % (devices // parts)
    ]
    return max((parts for parts in suitable if parts <= count), default=suitable[0])


def check_batch_size(batch_size: int, num_devices: int) -> None:
    """Check that the devices can share a batch evenly.

    Raises:
      UserError: they cannot; names the nearest sizes that fit.
    """
    over = batch_size % num_devices
    if over:
        sizes = [size for size in (batch_size - over, batch_size - over + num_devices) if size]
        raise UserError(
            f"config.train.batch_size: {batch_size} is not a multiple of the {num_devices} devices "
            f"that share it; take {' or '.join(map(str, sizes))}"
        )


def platform(mesh: Mesh | None) -> str:
    """Return the platform of a mesh ("cpu", "gpu", "tpu"); of the default device without one."""
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a replicated array."""
    return NamedSharding(mesh, PartitionSpec())


def put_replicated(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """Replicate NumPy arrays, the same in every process, on all devices."""
    assert mesh is not None, "arrays are put on the devices of a mesh"

    def put_one(x: np.ndarray) -> jax.Array:
        # Not device_put, which sends every array to all processes to compare it.
        return jax.make_array_from_process_local_data(replicated(mesh), x, x.shape)

    return jax.tree.map(put_one, tree)


def shard(mesh: Mesh | None, tree: PyTree, axis: str = BATCH) -> PyTree:
    """Shard the leading axis of arrays, within a program.

    Args:
      mesh: None: return the arrays unchanged.
      tree: arrays whose leading axis is divisible by the mesh axis.
      axis: of the mesh: batch or trials.
    """
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec(axis)))


def replicate(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """Replicate arrays on all devices, within a program."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, replicated(mesh))


def shard_map(mesh: Mesh | None, apply: Callable[..., Any], outputs: PyTree) -> Callable[..., Any]:
    """Map `apply(variables, batch, *others)` over the shards of the batch, within a program.

    Args:
      mesh: None: one device.
      apply: sums over the batch, and draws for it, only by `all_reduce` and `draw`.
      outputs: True for an output with a batch axis, False for a replicated one (a prefix of the
        tree of outputs).
    """
    if mesh is None or mesh.size == 1:
        return apply
    replicated, sharded = PartitionSpec(), PartitionSpec(BATCH)

    def applied(variables: PyTree, batch: Array, *others: PyTree) -> Any:
        mapped = jax.shard_map(
            apply,
            mesh=mesh,
            in_specs=(replicated, sharded, *(replicated for _ in others)),
            out_specs=jax.tree.map(lambda batched: sharded if batched else replicated, outputs),
            check_vma=False,
        )
        return mapped(variables, batch, *others)

    return applied


def num_shards() -> int:
    """Return the number of shards of a batch inside `shard_map`; 1 outside."""
    return lax.axis_size(BATCH) if BATCH in jax.sharding.get_abstract_mesh().manual_axes else 1


def all_reduce(x: Array) -> Array:
    """Sum a shard's sums over the whole batch."""
    return x if num_shards() == 1 else lax.psum(x, BATCH)


def draw(sample: Callable[[tuple[int, ...]], Array], shape: tuple[int, ...]) -> Array:
    """Draw random numbers for a shard of a batch: its slice of a draw for the whole batch.

    Every device draws all numbers, so that an example's do not depend on the number of devices.
    """
    devices = num_shards()
    if devices == 1:
        return sample(shape)
    whole = sample((shape[0] * devices, *shape[1:]))
    return lax.dynamic_slice_in_dim(whole, lax.axis_index(BATCH) * shape[0], shape[0])
