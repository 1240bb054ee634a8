"""What a report asks of the trained net itself, beyond its scores of the test split."""

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, UInt8

from mnist_jax.analysis import error_analysis
from mnist_jax.data.splits import Splits
from mnist_jax.models import networks
from mnist_jax.models.networks import Model
from mnist_jax.report import run_page
from mnist_jax.runs import saliency
from mnist_jax.runtime import sharding, xla
from mnist_jax.train import evaluate
from mnist_jax.train.step import Recipe
from mnist_jax.types import PyTree

MISTAKES = 8  # how many are explained: each costs as much as evaluating 170 images
UNITS = 32  # of the first layer, how many are shown


def look(
    recipe: Recipe,
    variables: PyTree,
    splits: Splits,
    scores: Float32[np.ndarray, "test classes"],
    mesh: Mesh,
) -> run_page.Inside:
    """The first layer's weights, what the worst mistakes rest on, of two classes their validation.

    Args:
      recipe: of a net that tells classes apart.
      variables: its own, on the devices of the mesh.
      splits: what it learnt from and is judged by.
      scores: of the whole test split.
      mesh: all devices.
    """

    @jax.jit
    def predict(variables: PyTree, images: Array) -> Array:
        return recipe.task.scores(evaluate.predict(recipe.model, variables, images, mesh=mesh))

    def score(images: UInt8[np.ndarray, "n 28 28 1"]) -> Float32[np.ndarray, "n classes"]:
        placed = sharding.put_replicated(mesh, images)
        program = xla.compile_lowered(predict.lower(variables, placed), predicts=True)
        return np.asarray(program(variables, placed))

    (images, labels), val = splits.test, splits.val
    decisions = error_analysis.decide(scores)
    worst = error_analysis.worst_mistakes(decisions, labels, MISTAKES)
    asks_for_threshold = len(splits.class_names) == 2 and len(val.labels)
    return run_page.Inside(
        layers=recipe.model.layers(),
        weights=_weights(recipe.model, variables, splits.class_names),
        relevance=saliency.occlusion(
            score, images[worst], labels[worst], decisions.predicted[worst]
        ),
        validation=(score(val.images), val.labels) if asks_for_threshold else None,
    )


def _weights(
    model: Model, variables: PyTree, class_names: tuple[str, ...]
) -> dict[str, Float32[np.ndarray, "h w"]]:
    """The units with the largest weights, by class in a linear net, else by number."""
    weights = networks.first_weights(model, variables)
    if weights is None:
        return {}
    kinds = [layer.kind for layer in model.layers() if layer.kind != "BatchNorm"]
    names = class_names[1:] if len(weights) == 1 else class_names  # one output is of the yes
    if kinds == ["Dense"] and len(weights) == len(names):
        return dict(zip(names, weights, strict=True))
    size = np.linalg.norm(weights, axis=(1, 2))
    largest = np.sort(np.argsort(-size, kind="stable")[:UNITS]).tolist()
    return {str(unit): weights[unit] for unit in largest}
