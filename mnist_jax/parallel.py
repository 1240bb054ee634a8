"""Every batch, and the members that train at once, split over one mesh of all devices.

They are those of all processes. Parameters and data lie on every device whole. A program says only
where its batch is split; XLA carries that through to the gradients and adds up over the devices
what sums over the batch (gradients, metrics, the statistics of batch normalisation). Random numbers
do not depend on it. One device is a mesh as well, and costs nothing: its programs are those of no
mesh.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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


def put(mesh: Mesh, tree: PyTree) -> PyTree:
    """Puts numpy arrays, the same ones in every process, on every device whole."""

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
