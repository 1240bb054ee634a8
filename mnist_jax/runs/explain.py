"""Explanations of a trained net: its layers, its first weights, and the evidence for its mistakes.

Evidence is found by occlusion: the image is covered piece by piece, and the net is asked again. For
a net of a few convolutions this says more than its gradient, which is noise from pixel to pixel,
and it needs no program but the one that evaluates.
"""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, UInt8

from mnist_jax.analysis import error_analysis
from mnist_jax.data.splits import Splits
from mnist_jax.models import networks
from mnist_jax.models.networks import Model
from mnist_jax.report.run_page import Explanation
from mnist_jax.runs.select import Selection
from mnist_jax.runtime import sharding, xla
from mnist_jax.train import evaluate
from mnist_jax.types import PyTree

SIDE, STRIDE = 4, 2  # of the square that covers, and between its positions
MISTAKES = 8  # explained ones: each costs as much as evaluating 170 images
UNITS = 32  # of the first layer, shown at most


def explain(
    selection: Selection, splits: Splits, scores: Float32[np.ndarray, "trials test ..."]
) -> Explanation:
    """Explain the evaluated net; of several only their layers, which they share.

    Args:
      selection: the trials.
      splits: what they were trained and evaluated on.
      scores: of the evaluated trials on the whole test split.
    """
    recipe = selection.final.group.plan.recipe
    layers, mesh = recipe.model.layers(), sharding.make_mesh()
    if len(scores) > 1 or recipe.task.score_name != "accuracy":  # then there are no mistakes
        return Explanation(layers, {}, np.zeros((0, 28, 28)))
    place = selection.places[0]
    best = jax.tree.map(lambda x: x[place], selection.final.states.best)
    variables = sharding.put_replicated(mesh, best)

    @jax.jit
    def predict(variables: PyTree, images: Array) -> Array:
        return recipe.task.scores(evaluate.predict(recipe.model, variables, images, mesh=mesh))

    def score(images: UInt8[np.ndarray, "n 28 28 1"]) -> Float32[np.ndarray, "n classes"]:
        placed = sharding.put_replicated(mesh, images)
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return np.asarray(predict(variables, placed))
        program = xla.compile_lowered(predict.lower(variables, placed), predicts=True)
        return np.asarray(program(variables, placed))

    images, labels = splits.test
    decisions = error_analysis.decide(scores[0])
    worst = error_analysis.worst_mistakes(decisions, labels, MISTAKES)
    relevance = occlusion(score, images[worst], labels[worst], decisions.predicted[worst])
    weights = _weights(recipe.model, variables, splits.class_names)
    return Explanation(layers, weights, relevance)


def _weights(
    model: Model, variables: PyTree, class_names: tuple[str, ...]
) -> dict[str, Float32[np.ndarray, "h w"]]:
    """Return the units with the largest weights, by class in a linear net, else by number."""
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


def occlusion(
    score: Callable[[UInt8[np.ndarray, "m h w 1"]], Float32[np.ndarray, "m classes"]],
    images: UInt8[np.ndarray, "n h w 1"],
    chosen: Int[np.ndarray, "n"],
    other: Int[np.ndarray, "n"],
) -> Float[np.ndarray, "n h w"]:
    """Return the relevance of each pixel for one class over another (Zeiler and Fergus 2014).

    A pixel's relevance is the mean, over all black squares that cover it, of how much
    the square lowers score(chosen) - score(other). With a linear score that is the sum of weight
    times brightness under the square.

    Args:
      score: images -> a score of each class; called once, with every image under every square.
      images: of even height and width.
      chosen: a class for each image.
      other: the class it is held against.

    Returns:
      float64, in the units of the scores; negative where a pixel speaks for the other class.
    """
    n, height, width, _ = images.shape
    if not n:
        return np.zeros((0, height, width))
    squares = places(height, width)
    covered = np.where(squares[None, ..., None], np.uint8(0), images[:, None])
    asked = np.concatenate([images[:, None], covered], axis=1)  # (n, 1 + places, h, w, 1)
    scores = score(asked.reshape(-1, height, width, 1)).reshape(n, 1 + len(squares), -1)
    rows = np.arange(n)
    margins = scores[rows, :, chosen].astype(np.float64) - scores[rows, :, other]
    lowered = margins[:, :1] - margins[:, 1:]
    return np.tensordot(lowered, squares.astype(np.float64), axes=1) / squares.sum(axis=0)


def places(height: int, width: int) -> Bool[np.ndarray, "places h w"]:
    """Return the pixels under the square in each of its places; together these cover the image."""

    def covers(length: int) -> Bool[np.ndarray, "starts length"]:
        starts = np.arange(0, length - SIDE + 1, STRIDE)[:, None]
        return (starts <= np.arange(length)) & (np.arange(length) < starts + SIDE)

    rows, columns = covers(height), covers(width)
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(-1, height, width)
