"""Further tests of a trained net: displaced images and weights of 8 bits."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8

from mnist_jax.data import splits
from mnist_jax.data.augment import normalize
from mnist_jax.data.geometry import Affine, affine_matrix, resample
from mnist_jax.models import quantize
from mnist_jax.runs import restore
from mnist_jax.train import evaluate
from mnist_jax.workdir import files

# Displacements whose accuracies are averaged: zoom, degrees, pixels down and right.
DISPLACED: Mapping[str, list[tuple[float, float, float, float]]] = {
    "shifted by 4 pixels": [(1, 0, -4, 0), (1, 0, 4, 0), (1, 0, 0, -4), (1, 0, 0, 4)],
    "rotated by 20°": [(1, -20, 0, 0), (1, 20, 0, 0)],
    "zoomed to 75%": [(0.75, 0, 0, 0)],
    "zoomed to 125%": [(1.25, 0, 0, 0)],
}


def measure(workdir: Path) -> dict[str, float]:
    """Measure a finished run of one net on its test images."""
    config, _ = files.read_config(workdir)
    summary = files.read_summary(workdir)
    sizes = len(summary["class_names"]), summary["num_train"]
    restored = restore.best(workdir, config, sizes, 0, print)
    model, (variables,) = restored.recipe.model, restored.nets
    images, labels = splits.load(config).test
    predict = jax.jit(partial(evaluate.predict, model))

    def accuracy(variables: object, images: Array) -> float:
        decided = np.asarray(predict(variables, images)).argmax(-1)
        return 100 * float((decided == labels).mean())

    facts = {
        f"accuracy, {how}": float(
            np.mean([accuracy(variables, displace(images, *map(float, way))) for way in ways])
        )
        for how, ways in DISPLACED.items()
    }
    params = variables["params"]
    small = quantize.quantize(params)
    again = {**variables, "params": quantize.dequantize(small)}
    return {
        **facts,
        "accuracy with weights of 8 bits": accuracy(again, jnp.asarray(images)),
        "kB of weights": quantize.num_bytes(params) / 1000,
        "kB of weights of 8 bits": quantize.num_bytes(small) / 1000,
    }


@jax.jit
def displace(
    images: UInt8[Array | np.ndarray, "n h w c"], zoom: float, degrees: float, *shift: float
) -> UInt8[Array, "n h w c"]:
    """Displace all images in the same way; the border is extended outwards."""
    zooms = jnp.full(2, zoom, jnp.float32)
    moves = Affine(zooms, jnp.float32(0), jnp.float32(degrees), jnp.stack(shift))
    matrix = affine_matrix(moves)

    def move(image: Float32[Array, "h w c"]) -> Float32[Array, "h w c"]:
        return resample(image, matrix, "nearest")

    moved = jax.lax.map(move, normalize(jnp.asarray(images)), batch_size=256)
    return jnp.round(255 * moved).astype(jnp.uint8)
