"""Tasks by name: labels from a data set's classes, outputs, loss, and decision from the outputs.

A task of yes-or-no questions has a table of signs, a row for each output and a column for each
class: 1 where the class is a yes, -1 where it is a no, 0 where its examples do not count. One
versus rest and one versus one are such tables (Allwein, Schapire and Singer 2000); their
classifiers share nothing but the program that trains them all.

Adding a task takes a builder and an entry of `TASKS`. JAX and Optax are imported inside functions,
so that reading flags stays fast.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Num

from mnist_jax.types import Array, Fields, Option, UserError, plain, resolve, unread

if TYPE_CHECKING:
    from mnist_jax.analysis.metrics import AnyReport

Loss = Callable[[Array, Array, float | Array], Array]  # outputs, targets, smoothing: one an example
Classes = Int32[np.ndarray, " n"]
Labels = tuple[Int32[np.ndarray, "n ..."], tuple[str, ...]]  # of each example, and their names


class Task(NamedTuple):
    """Pure functions of a model's outputs and targets; static, hashable."""

    num_outputs: int
    loss: Loss
    scores: Callable[[Array], Array]  # outputs -> what predictions.npz calls logits
    evaluate: Callable[[Array, Array], "AnyReport"]  # outputs and targets of a whole split
    correct: Callable[[Array, Array], Bool[Array, "n"]] | None  # None: nothing is right or wrong
    score_name: str  # of the score by which epochs and settings are selected; higher is better
    score: Callable[[Array, Array, Array | None], Array]  # outputs, targets, weights of 0 and 1
    probable: bool = False  # whether the softmax of the scores are probabilities of classes
    # Targets from clean images and labels.
    targets: Callable[[Float32[Array, "n h w c"], Array], Array] = lambda images, labels: labels
    # The model's input from a clean image.
    corrupt: Callable[[Array, Float32[Array, "h w c"]], Float32[Array, "h w c"]] | None = None


class Entry(NamedTuple):
    """A task of the registry."""

    build: Callable[[Fields, str, int], Task]  # from config.task, the loss, the number of labels
    losses: tuple[str, ...]  # the default first
    options: Mapping[str, Option] = {}  # its own keys of config.task
    check: Callable[[Fields], object] | None = None  # of them
    # Labels from classes and class names; None: the classes.
    relabel: Callable[[Fields, Classes, Sequence[str]], Labels] | None = None
    classifies: bool = True  # whether the target of each example is one label


def build(config: Fields, num_classes: int) -> Task:
    """Build the task that `config.task` names.

    Args:
      config: `config.task`, which `config.validate` has passed.
      num_classes: the number of class names that `relabel` returns.
    """
    return TASKS[config["name"]].build(fields(config), loss(config), num_classes)


def loss(config: Fields) -> str:
    """Return the loss in `config.task`, or the task's default."""
    return config["loss"] or TASKS[config["name"]].losses[0]


def smoothed(config: Fields) -> bool:
    """Return whether the loss in `config.task` supports label smoothing."""
    return loss(config) in ("softmax", "logistic") and config["name"] != "denoise"


def classifies(config: Fields) -> bool:
    """Return whether the task's target is one of several classes."""
    return TASKS[config["name"]].classifies


def check(config: Fields) -> None:
    """Check the loss and the options of `config.task`; `relabel` checks that its classes exist.

    Raises:
      UserError: names the key and the allowed values.
    """
    name, entry = config["name"], TASKS[config["name"]]
    if loss(config) not in entry.losses:
        raise UserError(
            f"config.task.loss: '{name}' has no '{loss(config)}'; it has {', '.join(entry.losses)}"
        )
    if entry.check:
        entry.check(fields(config))


def unused(config: Fields) -> dict[str, str]:
    """Return the keys that are set, but not read by the task, and why; see `types.unread`."""
    return unread(config, config["name"], {name: entry.options for name, entry in TASKS.items()})


def fields(config: Fields) -> dict[str, Any]:
    """Return every key of `config.task`; None is replaced by the default of the task."""
    return resolve(config, TASKS[config["name"]].options)


def relabel(config: Fields, classes: Classes, class_names: Sequence[str]) -> Labels:
    """Return the task's label of each example, and the names of the labels.

    Returns:
      For "binary" 1 or 0 by whether the class is among `config.task.positive`; for "multilabel" a
      row of 1s and 0s, one for each of `config.task.labels`; otherwise the classes.

    Raises:
      UserError: the data lacks a class of the config, or has no other.
    """
    own = TASKS[config["name"]].relabel
    return own(fields(config), classes, class_names) if own else (classes, tuple(class_names))


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
    import jax
    import optax

    if targets.ndim == 1:
        targets = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def questions(
    loss: str,
    outputs: Float[Array, "batch outputs"],
    signs: Int[Array, "batch outputs"],
    smoothing: float | Float[Array, ""] = 0.0,
) -> Float[Array, "batch"]:
    """Sum of the losses of each example's yes-or-no questions.

    Args:
      loss: "logistic" (cross-entropy of the sigmoid), "hinge" or "squared".
      outputs: above 0 for yes.
      signs: 1: yes; -1: no; 0: not asked.
      smoothing: of "logistic" only.
    """
    import jax.numpy as jnp
    import optax

    signs = signs.astype(outputs.dtype)
    if loss == "logistic":
        targets = optax.smooth_labels(jnp.stack([1 + signs, 1 - signs], -1) / 2, smoothing)[..., 0]
        each = optax.sigmoid_binary_cross_entropy(outputs, targets)
    elif loss == "hinge":
        each = optax.hinge_loss(outputs, signs)
    else:
        each = jnp.square(outputs - signs)
    return (each * jnp.abs(signs)).sum(axis=-1)


def pairs(num_classes: int) -> Int[np.ndarray, "pairs classes"]:
    """Return the table of "one_vs_one": pairs (i, j) as of `itertools.combinations`; i is yes."""
    yes, no = np.triu_indices(num_classes, 1)
    is_class = np.eye(num_classes, dtype=np.int32)
    return is_class[yes] - is_class[no]


def vote(outputs: Float[Array, "*batch pairs"]) -> Float[Array, "*batch classes"]:
    """Score classes by the votes of all pairs; ties are broken by the sum of a class's outputs.

    The sum is squeezed to less than half a vote, as in scikit-learn's `OneVsOneClassifier`.
    """
    import jax.numpy as jnp

    num_classes = round((1 + (1 + 8 * outputs.shape[-1]) ** 0.5) / 2)
    table = jnp.asarray(pairs(num_classes), outputs.dtype)
    yes = (outputs > 0).astype(outputs.dtype)
    votes = yes @ jnp.maximum(table, 0) + (1 - yes) @ jnp.maximum(-table, 0)
    confidence = outputs @ table
    return votes + confidence / (3 * (jnp.abs(confidence) + 1))


def _same(outputs: Array) -> Array:
    return outputs


def _classify(num_outputs: int, loss: Loss, scores: Callable, probable: bool) -> Task:
    """Build a task of one class per example."""
    import jax.numpy as jnp

    from mnist_jax.analysis import metrics

    def correct(outputs: Array, targets: Array) -> Array:
        classes = targets if targets.ndim == 1 else targets.argmax(-1)
        return scores(outputs).argmax(-1) == classes

    def evaluate(outputs: Array, classes: Array) -> metrics.Report:
        report = metrics.classification(scores(outputs), classes)
        if not probable:
            report = metrics.without_probabilities(report)
        return report._replace(loss=loss(outputs, classes, 0.0).mean())

    def score(outputs: Array, targets: Array, weights: Array | None) -> Array:
        right = correct(outputs, targets)
        counted = jnp.ones_like(right) if weights is None else weights > 0
        return metrics.ratio((right & counted).sum(), counted.sum())

    return Task(num_outputs, loss, scores, evaluate, correct, "accuracy", score, probable)


def _multiclass(config: Fields, loss: str, num_classes: int) -> Task:
    import jax
    import jax.numpy as jnp
    import optax

    def hinge(logits: Array, classes: Array, smoothing: float | Array) -> Array:
        """Hinge loss of all classes at once (Crammer and Singer 2001)."""
        return optax.losses.multiclass_hinge_loss(logits, classes)

    def squared(outputs: Array, classes: Array, smoothing: float | Array) -> Array:
        """Squared distance from the one-hot vector of the class."""
        return jnp.square(
            outputs - jax.nn.one_hot(classes, outputs.shape[-1], dtype=outputs.dtype)
        ).sum(axis=-1)

    losses: dict[str, Loss] = {"softmax": cross_entropy, "hinge": hinge, "squared": squared}
    return _classify(num_classes, losses[loss], _same, loss == "softmax")


def _by_table(
    loss: str, table: Int[np.ndarray, "outputs classes"], scores: Callable, probable: bool = False
) -> Task:
    """Build a task whose outputs answer a table of yes-or-no questions."""
    import jax.numpy as jnp

    def losses(outputs: Array, classes: Array, smoothing: float | Array) -> Array:
        return questions(loss, outputs, jnp.asarray(table)[:, classes].T, smoothing)

    return _classify(len(table), losses, scores, probable)


def _one_vs_rest(config: Fields, loss: str, num_classes: int) -> Task:
    import jax

    # The softmax of log_sigmoid is each sigmoid, normalized over the classes.
    logistic = loss == "logistic"
    table = 2 * np.eye(num_classes, dtype=np.int32) - 1
    return _by_table(loss, table, jax.nn.log_sigmoid if logistic else _same, logistic)


def _one_vs_one(config: Fields, loss: str, num_classes: int) -> Task:
    return _by_table(loss, pairs(num_classes), vote)


def _binary(config: Fields, loss: str, num_classes: int) -> Task:
    import jax.numpy as jnp

    def scores(outputs: Float[Array, "*batch 1"]) -> Float[Array, "*batch 2"]:
        """Return scores of no and yes whose softmax is the sigmoid."""
        return jnp.concatenate([jnp.zeros_like(outputs), outputs], axis=-1)

    return _by_table(loss, np.array([[-1, 1]], np.int32), scores, loss == "logistic")


def _check_positive(config: Fields) -> None:
    if not config["positive"]:
        raise UserError("config.task.positive: give the positive classes, as in (5,)")


def _relabel_binary(config: Fields, classes: Classes, class_names: Sequence[str]) -> Labels:
    positive = config["positive"]
    _check_classes("positive", positive, class_names)
    yes = " or ".join(class_names[i] for i in positive)
    return np.isin(classes, positive).astype(np.int32), (f"not {yes}", yes)


def _multilabel(config: Fields, loss: str, num_labels: int) -> Task:
    """Build a task of several yes-or-no labels; an example is correct if all of them are."""
    from mnist_jax.analysis import metrics

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

    return Task(num_labels, losses, _same, evaluate, correct, "macro_f1", score)


def _read_labels(config: Fields) -> dict[str, list[Any]]:
    with contextlib.suppress(TypeError, ValueError):
        labels = plain(config["labels"])
        members = labels.values() if isinstance(labels, dict) else ()
        if members and all(isinstance(classes, list) and classes for classes in members):
            return labels
    raise UserError(
        'config.task.labels: must map names to classes, as in {"large": [7, 8, 9], "one": [1]}'
    )


def _relabel_multilabel(config: Fields, classes: Classes, class_names: Sequence[str]) -> Labels:
    labels = _read_labels(config)
    for members in labels.values():
        _check_classes("labels", members, class_names)
    columns = [np.isin(classes, members) for members in labels.values()]
    return np.stack(columns, axis=1).astype(np.int32), tuple(labels)


def _check_classes(key: str, members: Sequence[Any], class_names: Sequence[str]) -> None:
    count = len(class_names)
    for member in members:
        if type(member) is not int or not 0 <= member < count:
            raise UserError(
                f"config.task.{key}: {member!r} is not a class; classes are 0 to {count - 1}"
            )
    if len(set(members)) == count:
        raise UserError(f"config.task.{key}: {list(members)} are all classes; leave some out")


def _denoise(config: Fields, loss: str, num_classes: int) -> Task:
    """Build the task of the clean image from a noisy one; the loss is the mean over its pixels."""
    import jax
    import jax.numpy as jnp
    import optax

    from mnist_jax.analysis import image_quality

    def losses(outputs: Array, clean: Array, smoothing: float | Array) -> Array:
        if loss == "logistic":
            return optax.sigmoid_binary_cross_entropy(outputs, clean).mean(axis=1)
        return jnp.square(outputs - clean).mean(axis=1)

    def evaluate(outputs: Array, clean: Array) -> image_quality.Report:
        report = image_quality.compare(jnp.clip(scores(outputs), 0, 1), clean)
        return report._replace(loss=losses(outputs, clean, 0.0).mean())

    def targets(images: Float32[Array, "n h w c"], labels: Array) -> Float32[Array, "n pixels"]:
        return images.reshape(len(images), -1)

    scores, levels = jax.nn.sigmoid if loss == "logistic" else _same, config["noise"]

    def score(outputs: Array, clean: Array, weights: Array | None) -> Array:
        counted = jnp.ones(len(clean), jnp.float32) if weights is None else weights
        errors = jnp.square(jnp.clip(scores(outputs), 0, 1) - clean).mean(axis=1)
        return -10 * jnp.log10((errors * counted).sum() / counted.sum())

    def corrupt(key: Array, image: Float32[Array, "h w c"]) -> Float32[Array, "h w c"]:
        """Add an integer grey level to each pixel, uniform in 0 to `levels` - 1."""
        noise = jax.random.randint(key, image.shape, 0, levels, jnp.int32)
        return image + noise.astype(np.float32) / 255

    return Task(
        28 * 28, losses, scores, evaluate, None, "psnr", score, targets=targets, corrupt=corrupt
    )


_YES_OR_NO = ("logistic", "hinge", "squared")
TASKS = {
    "multiclass": Entry(_multiclass, ("softmax", "hinge", "squared")),
    "one_vs_rest": Entry(_one_vs_rest, ("hinge", "logistic", "squared")),
    "one_vs_one": Entry(_one_vs_one, ("hinge", "logistic", "squared")),
    "binary": Entry(
        _binary,
        _YES_OR_NO,
        {"positive": Option((5,), "the classes that are a yes")},
        _check_positive,
        _relabel_binary,
    ),
    "multilabel": Entry(
        _multilabel,
        _YES_OR_NO,
        {
            "labels": Option(
                {"large": [7, 8, 9], "odd": [1, 3, 5, 7, 9]}, "the classes of each label"
            )
        },
        _read_labels,
        _relabel_multilabel,
        classifies=False,
    ),
    "denoise": Entry(
        _denoise,
        ("squared", "logistic"),
        {"noise": Option(100, "each pixel gets 0 to one less grey levels", "[1, inf)")},
        classifies=False,
    ),
}
OPTIONS = {
    "name": Option("multiclass", "what to predict", TASKS),
    "loss": Option(str, "softmax, logistic, hinge or squared; None: the task's default"),
    **{
        key: option._replace(optional=True)
        for entry in TASKS.values()
        for key, option in entry.options.items()
    },
}
