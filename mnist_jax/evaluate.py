"""Evaluation of a whole split: every example counts once, whatever the batch size."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, UInt8

from mnist_jax import metrics, parallel
from mnist_jax.augment import normalize
from mnist_jax.models import Model
from mnist_jax.types import PyTree


@partial(jax.jit, static_argnames=("model", "batch_size", "mesh"))
def predict(
    model: Model,
    variables: PyTree,
    images: UInt8[Array, "n 28 28 1"],
    batch_size: int = 500,
    mesh: Mesh | None = None,
) -> Float32[Array, "n classes"]:
    """Logits of every image, in batches; the last is padded and its padding's logits cut off.

    The devices of a mesh share each batch, which is made larger where they could not.
    """
    n = len(images)
    batch_size = min(batch_size, n)
    batch_size += -batch_size % (mesh.shape[parallel.BATCH] if mesh else 1)
    padding = -n % batch_size
    padded = jnp.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
    batches = padded.reshape(-1, batch_size, *images.shape[1:])

    def predict_batch(batch: UInt8[Array, "batch 28 28 1"]) -> Float32[Array, "batch classes"]:
        return model.apply(variables, normalize(parallel.split(mesh, batch)))

    logits = lax.map(predict_batch, batches)
    return parallel.gather(mesh, logits.reshape(n + padding, -1)[:n])


@partial(jax.jit, static_argnames=("model", "batch_size", "mesh"))
def judge(
    model: Model,
    variables: PyTree,
    images: UInt8[Array, "n 28 28 1"],
    labels: Int32[Array, " n"],
    batch_size: int = 500,
    mesh: Mesh | None = None,
) -> tuple[Float32[Array, "n classes"], metrics.Report]:
    """Logits of a whole split and everything they say about the model."""
    logits = predict(model, variables, images, batch_size, mesh)
    return logits, metrics.classification(logits, labels)
