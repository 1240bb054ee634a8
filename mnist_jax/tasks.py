"""What is predicted: what a net is to say, the loss, and what its outputs decide.

A task of yes-or-no questions has a table of signs, an output a row and a class a column: 1 where a
class is a yes, -1 where it is a no, 0 where its examples teach the output nothing. One versus rest
and one versus one are such tables (Allwein, Schapire and Singer 2000); their classifiers share
nothing but the program that trains them all.
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Int, Num, Shaped

from mnist_jax import labels
from mnist_jax.analysis import image_quality, metrics
from mnist_jax.runtime.prng import Key
from mnist_jax.types import Fields

AnyReport = metrics.Report | metrics.LabelsReport | image_quality.Report
Loss = Callable[[Array, Array, float | Array], Array]  # outputs, targets, smoothing: one an example


class Task(NamedTuple):
    """Pure functions of a net's outputs and of its targets; static, hashable."""

    num_outputs: int
    targets: Callable[[Float32[Array, "n h w c"], Array], Array]  # of clean images and labels
    corrupt: Callable[[Key, Float32[Array, "h w c"]], Float32[Array, "h w c"]] | None  # an image
    loss: Loss
    correct: Callable[[Array, Array], Bool[Array, "n"]] | None  # None: nothing is right or wrong
    scores: Callable[[Array], Array]  # outputs -> what predictions.npz calls logits
    evaluate: Callable[[Array, Array], AnyReport]  # outputs and targets of a whole split
    score_name: str  # of the score by which epochs and settings are selected; higher is better
    score: Callable[[Array, Array, Array | None], Array]  # outputs, targets, weights of 0 and 1
    probable: bool = False  # whether the softmax of the scores are probabilities of classes


def build(config: Fields, num_classes: int) -> Task:
    """The task that `config.task` names.

    Args:
      config: `config.task`, which `config.validate` has passed.
      num_classes: how many class names the data has, as `labels.relabel` returns them.
    """
    name, loss = config["name"], labels.loss(config)
    if name == "denoise":
        return _denoise(loss, config["noise"])
    if name == "multilabel":
        return _multilabel(loss, num_classes)
    if name == "multiclass":
        return _classify(num_classes, _MULTICLASS[loss], _same, loss == "softmax")
    table = signs(name, num_classes)
    # The softmax of log_sigmoid is each sigmoid, made to add up to 1 with the others.
    rest = jax.nn.log_sigmoid if loss == "logistic" else _same
    scores: dict[str, Callable] = {"binary": _of_two, "one_vs_rest": rest, "one_vs_one": vote}
    return _classify(
        num_outputs=len(table),
        loss=lambda outputs, classes, smoothing: questions(
            loss, outputs, jnp.asarray(table)[:, classes].T, smoothing
        ),
        scores=scores[name],
        probable=loss == "logistic" and name != "one_vs_one",
    )


def cross_entropy(
    logits: Float[Array, "batch classes"],
    targets: Num[Array, "batch *classes"],
    label_smoothing: float | Float[Array, ""] = 0.0,
) -> Float[Array, "batch"]:
    """Softmax cross-entropy of each example, in nats.

    Smoothing gives the share `label_smoothing` of a target to all classes alike (Szegedy et al.
    2016, section 7).

    Args:
      logits: of each class.
      targets: classes, or the probability of each: soft targets (Hinton et al. 2015).
      label_smoothing: in [0, 1).
    """
    if targets.ndim == 1:
        targets = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def questions(
    loss: str,
    outputs: Float[Array, "batch outputs"],
    signs: Int[Array, "batch outputs"],
    smoothing: float | Float[Array, ""] = 0.0,
) -> Float[Array, "batch"]:
    """The losses of an example's yes-or-no questions, added up.

    Args:
      loss: "logistic" (cross-entropy of the sigmoid), "hinge" or "squared".
      outputs: the more, the more of a yes.
      signs: 1: yes; -1: no; 0: not asked.
      smoothing: of "logistic" alone.
    """
    signs = signs.astype(outputs.dtype)
    if loss == "logistic":
        targets = optax.smooth_labels(jnp.stack([1 + signs, 1 - signs], -1) / 2, smoothing)[..., 0]
        each = optax.sigmoid_binary_cross_entropy(outputs, targets)
    elif loss == "hinge":
        each = optax.hinge_loss(outputs, signs)
    else:
        each = jnp.square(outputs - signs)
    return (each * jnp.abs(signs)).sum(axis=-1)


def signs(name: str, num_classes: int) -> Int[np.ndarray, "outputs classes"]:
    """The table of "binary", "one_vs_rest" or "one_vs_one".

    The pairs (i, j) of the last are in the order of `itertools.combinations`; i is the yes.
    """
    if name == "binary":
        return np.array([[-1, 1]], np.int32)
    if name == "one_vs_rest":
        return 2 * np.eye(num_classes, dtype=np.int32) - 1
    pairs = list(combinations(range(num_classes), 2))
    table = np.zeros((len(pairs), num_classes), np.int32)
    rows = np.arange(len(pairs))
    table[rows, [i for i, _ in pairs]], table[rows, [j for _, j in pairs]] = 1, -1
    return table


def vote(outputs: Float[Array, "*batch pairs"]) -> Float[Array, "*batch classes"]:
    """What the pairs of one versus one decide: votes, ties broken by how sure the voters are.

    A class's sureness is the sum of its outputs, squeezed to less than half a vote, as in
    scikit-learn's `OneVsOneClassifier`.
    """
    num_classes = round((1 + (1 + 8 * outputs.shape[-1]) ** 0.5) / 2)
    table = jnp.asarray(signs("one_vs_one", num_classes), outputs.dtype)
    yes = (outputs > 0).astype(outputs.dtype)
    votes = yes @ jnp.maximum(table, 0) + (1 - yes) @ jnp.maximum(-table, 0)
    sure = outputs @ table
    return votes + sure / (3 * (jnp.abs(sure) + 1))


def decide(scores: Float[Array, "*batch classes"]) -> Int[Array, "*batch"]:
    """The class with the largest score; the first of equals."""
    return scores.argmax(-1)


def add_noise(key: Key, image: Float32[Array, "h w c"], *, levels: int) -> Float32[Array, "h w c"]:
    """Adds to each pixel a whole grey level, uniform in 0 to `levels` - 1; 255 of them make 1."""
    noise = jax.random.randint(key, image.shape, 0, levels)
    return image + noise.astype(jnp.float32) / 255


def _classify(num_outputs: int, loss: Loss, scores: Callable, probable: bool) -> Task:
    """One class an example."""

    def correct(outputs: Array, targets: Array) -> Array:
        classes = targets if targets.ndim == 1 else targets.argmax(-1)
        return decide(scores(outputs)) == classes

    def evaluate(outputs: Array, classes: Array) -> metrics.Report:
        report = metrics.classification(scores(outputs), classes)
        if not probable:
            report = metrics.without_probabilities(report)
        return report._replace(loss=loss(outputs, classes, 0.0).mean())

    def score(outputs: Array, targets: Array, weights: Array | None) -> Array:
        right = correct(outputs, targets)
        counted = jnp.ones_like(right) if weights is None else weights > 0
        return metrics.ratio((right & counted).sum(), counted.sum())

    return Task(
        num_outputs,
        _labels,
        None,
        loss,
        correct,
        scores,
        evaluate,
        "accuracy",
        score,
        probable,
    )


def _multilabel(loss: str, num_labels: int) -> Task:
    """Several yes-or-no labels an example; it is right if all of them are."""

    def correct(outputs: Array, answers: Array) -> Array:
        return ((outputs > 0) == (answers > 0)).all(axis=1)

    def losses(outputs: Array, answers: Array, smoothing: float | Array) -> Array:
        return questions(loss, outputs, 2 * answers - 1, smoothing)

    def evaluate(outputs: Array, answers: Array) -> metrics.LabelsReport:
        return metrics.multilabel(outputs > 0, answers, losses(outputs, answers, 0.0).mean())

    def score(outputs: Array, answers: Array, weights: Array | None) -> Array:
        said, truth = outputs > 0, answers > 0
        if weights is not None:
            said, truth = (x & (weights > 0)[:, None] for x in (said, truth))
        return metrics.macro_f1(said, truth)

    return Task(num_labels, _labels, None, losses, correct, _same, evaluate, "macro_f1", score)


def _denoise(loss: str, levels: int) -> Task:
    """The clean image from a noisy one; the loss is the mean over its pixels."""

    def losses(outputs: Array, clean: Array, smoothing: float | Array) -> Array:
        if loss == "logistic":
            return optax.sigmoid_binary_cross_entropy(outputs, clean).mean(axis=1)
        return jnp.square(outputs - clean).mean(axis=1)

    def evaluate(outputs: Array, clean: Array) -> image_quality.Report:
        report = image_quality.compare(jnp.clip(scores(outputs), 0, 1), clean)
        return report._replace(loss=losses(outputs, clean, 0.0).mean())

    scores = jax.nn.sigmoid if loss == "logistic" else _same
    corrupt = partial(add_noise, levels=levels)

    def score(outputs: Array, clean: Array, weights: Array | None) -> Array:
        counted = jnp.ones(len(clean)) if weights is None else weights
        errors = jnp.square(jnp.clip(scores(outputs), 0, 1) - clean).mean(axis=1)
        return -10 * jnp.log10((errors * counted).sum() / counted.sum())

    return Task(28 * 28, _clean, corrupt, losses, None, scores, evaluate, "psnr", score)


def _same(outputs: Array) -> Array:
    return outputs


def _labels(images: Array, labels: Shaped[Array, "n ..."]) -> Shaped[Array, "n ..."]:
    return labels


def _clean(images: Float32[Array, "n h w c"], labels: Array) -> Float32[Array, "n pixels"]:
    return images.reshape(len(images), -1)


def _of_two(outputs: Float[Array, "*batch 1"]) -> Float[Array, "*batch 2"]:
    """Scores of no and yes whose softmax is the sigmoid."""
    return jnp.concatenate([jnp.zeros_like(outputs), outputs], axis=-1)


def _crammer_singer(logits: Array, classes: Array, smoothing: float | Array) -> Array:
    """The hinge loss of all classes at once (Crammer and Singer 2001)."""
    return optax.losses.multiclass_hinge_loss(logits, classes)


def _one_hot_error(outputs: Array, classes: Array, smoothing: float | Array) -> Array:
    """The squared distance from the one-hot vector of the class."""
    return jnp.square(outputs - jax.nn.one_hot(classes, outputs.shape[-1])).sum(axis=-1)


_MULTICLASS: dict[str, Loss] = {
    "softmax": cross_entropy,
    "hinge": _crammer_singer,
    "squared": _one_hot_error,
}
