"""Every batch, and the members that train at once, split over one mesh of all devices.

They are those of all processes. Parameters and data lie on every device whole. A program says only
where its batch is split; XLA carries that through and adds up over the devices what sums over the
batch (the loss, metrics). A net is applied by each device to its part (`by_device`), as if there
were no others, but for what is of the whole batch: gradients and the statistics of batch
normalisation are added up, and random numbers are those of one device. One device is a mesh as
well, and costs nothing: its programs are those of no mesh.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from mnist_jax.types import PyTree, UserError

MEMBER, BATCH = "member", "batch"


def make_mesh(parts: int = 1) -> Mesh:
    """The mesh of every device there is.

    Args:
      parts: into which the axis of members is split, a divisor of the number of devices; those of
        one part share each of its members' batches.
    """
    shape = parts, jax.device_count() // parts
    # Auto: XLA finds how the values between are split; else their types would have to say it.
    return jax.make_mesh(shape, (MEMBER, BATCH), axis_types=(AxisType.Auto, AxisType.Auto))


def parts_of_members(count: int, batch_size: int) -> int:
    """Into how many parts devices split so many members: with few of them, several share a batch.

    One member is one part. More of them never have a batch that the devices of a part cannot share
    evenly: there are more parts then, and nobody in some.
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
    """Passes if so many devices can share a batch evenly.

    Raises:
      UserError: names the nearest sizes that they can share.
    """
    over = batch_size % num_devices
    if over:
        sizes = [size for size in (batch_size - over, batch_size - over + num_devices) if size]
        raise UserError(
            f"config.train.batch_size: {batch_size} is no multiple of the {num_devices} devices "
            f"that share it; take {' or '.join(map(str, sizes))}"
        )


def whole(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that lies on every device whole."""
    return NamedSharding(mesh, PartitionSpec())


def put(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """Puts numpy arrays, the same ones in every process, on every device whole."""
    assert mesh is not None, "arrays are put on the devices of a mesh"

    def put_one(x: np.ndarray) -> jax.Array:
        # Not device_put, which sends every array around to compare what the processes have.
        return jax.make_array_from_process_local_data(whole(mesh), x, x.shape)

    return jax.tree.map(put_one, tree)


def split(mesh: Mesh | None, tree: PyTree, axis: str = BATCH) -> PyTree:
    """In a program: has every device take its part of the leading axis of arrays.

    Args:
      mesh: None: there is nothing to split for.
      tree: arrays whose leading axis the number of devices divides.
      axis: of the mesh: that of a batch or that of members.
    """
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec(axis)))


def gather(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """In a program: has every device have arrays whole again."""
    return tree if mesh is None else jax.lax.with_sharding_constraint(tree, whole(mesh))


def by_device(mesh: Mesh | None, apply: Callable[..., Any], outputs: PyTree) -> Callable[..., Any]:
    """In a program: `apply(variables, batch, *others)` by every device to its part of the batch.

    Args:
      mesh: None: the one device does it all.
      apply: where it sums over the batch or draws for it, by `total` and `draw`.
      outputs: for what it returns, whether that has the batch's axis or is of all of it (a prefix
        of its tree).
    """
    if mesh is None or mesh.size == 1:
        return apply
    whole, part = PartitionSpec(), PartitionSpec(BATCH)

    def applied(variables: PyTree, batch: Array, *others: PyTree) -> Any:
        mapped = jax.shard_map(
            apply,
            mesh=mesh,
            in_specs=(whole, part, *(whole for _ in others)),
            out_specs=jax.tree.map(lambda split: part if split else whole, outputs),
            check_vma=False,
        )
        return mapped(variables, batch, *others)

    return applied


def num_parts() -> int:
    """How many parts a batch has where what is traced is one, that of `by_device`; elsewhere 1."""
    return lax.axis_size(BATCH) if BATCH in jax.sharding.get_abstract_mesh().manual_axes else 1


def total(x: Array) -> Array:
    """Of a part's sums: those of the whole batch."""
    return x if num_parts() == 1 else lax.psum(x, BATCH)


def draw(sample: Callable[[tuple[int, ...]], Array], shape: tuple[int, ...]) -> Array:
    """Random numbers for a part of a batch: of those that `sample` draws for all of it.

    Each device draws all: what an example gets does not depend on how many devices there are.
    """
    devices = num_parts()
    if devices == 1:
        return sample(shape)
    whole = sample((shape[0] * devices, *shape[1:]))
    return lax.dynamic_slice_in_dim(whole, lax.axis_index(BATCH) * shape[0], shape[0])
