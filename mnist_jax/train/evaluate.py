"""Evaluation of a whole split: every example counts once, whatever the batch size."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int, Shaped, UInt8

from mnist_jax.analysis.metrics import AnyReport
from mnist_jax.data.augment import normalize
from mnist_jax.models.networks import Model
from mnist_jax.runtime import sharding
from mnist_jax.runtime.prng import stream
from mnist_jax.tasks import Task
from mnist_jax.types import PyTree


@partial(jax.jit, static_argnames=("model", "batch_size", "mesh", "corrupt"))
def predict(
    model: Model,
    variables: PyTree,
    images: UInt8[Array, "n 28 28 1"],
    batch_size: int = 500,
    mesh: Mesh | None = None,
    corrupt: Callable | None = None,
) -> Float32[Array, "n outputs"]:
    """Return the model's outputs for every image, in batches; the padding of the last is cut off.

    The devices of a mesh share each batch, which is made larger where they could not. `corrupt` is
    a task's: what it draws depends on an image's place among the images alone.
    """
    n = len(images)
    batch_size = min(batch_size, n)
    batch_size += -batch_size % (mesh.shape[sharding.BATCH] if mesh else 1)
    padding = -n % batch_size
    padded = jnp.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
    batches = padded.reshape(-1, batch_size, *images.shape[1:])
    places = jnp.arange(len(padded), dtype=jnp.int32).reshape(-1, batch_size)

    def predict_batch(batch: tuple[Array, Array]) -> Float32[Array, "batch outputs"]:
        images, places = sharding.shard(mesh, batch)
        pixels = inputs(images, places, corrupt)
        return sharding.shard_map(mesh, model.apply, True)(variables, pixels)

    outputs = lax.map(predict_batch, (batches, places))
    return sharding.replicate(mesh, outputs.reshape(n + padding, -1)[:n])


def inputs(
    images: UInt8[Array, "n 28 28 1"], places: Int[Array, "n"], corrupt: Callable | None
) -> Float32[Array, "n 28 28 1"]:
    """Return the inputs of the model for images at these indices of a split."""
    pixels = normalize(images)
    if corrupt is None:
        return pixels
    key = stream(jax.random.key(0), "evaluate", 0)
    keys = jax.vmap(partial(jax.random.fold_in, key))(places)
    return jax.vmap(corrupt)(keys, pixels)


@partial(jax.jit, static_argnames=("task", "model", "mesh"))
def evaluate(
    task: Task,
    model: Model,
    variables: PyTree,
    images: UInt8[Array, "n 28 28 1"],
    labels: Shaped[Array, "n ..."],
    mesh: Mesh | None = None,
) -> tuple[Float32[Array, "n scores"], AnyReport]:
    """Return the task's scores of a whole split, and their metrics."""
    outputs = predict(model, variables, images, mesh=mesh, corrupt=task.corrupt)
    return task.scores(outputs), task.evaluate(outputs, task.targets(normalize(images), labels))
