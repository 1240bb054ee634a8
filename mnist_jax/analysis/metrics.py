"""Metrics: sums accumulated in training, and the full report of a split."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Integer

from mnist_jax.analysis import image_quality


class Metrics(NamedTuple):
    """Sums over examples; sums of batches add up to the sum over all examples."""

    loss: Float32[Array, ""]
    correct: Int[Array, ""]
    examples: Int[Array, ""]


class Scores(NamedTuple):
    """Precision, recall and their harmonic mean: of each class, or averaged over classes."""

    precision: Float32[Array, "*classes"]
    recall: Float32[Array, "*classes"]
    f1: Float32[Array, "*classes"]


class Averages(NamedTuple):
    """Scores of each class, their mean, and their mean weighted by support."""

    per_class: Scores
    macro: Scores
    weighted: Scores


class Reliability(NamedTuple):
    """The reliability diagram: bins of equal width over the confidence, 0 where a bin is empty."""

    examples: Int32[Array, "bins"]
    confidence: Float32[Array, "bins"]  # mean probability of the predicted class
    accuracy: Float32[Array, "bins"]


class Report(NamedTuple):
    """Metrics of a split's logits; each array may have leading axes of trials."""

    loss: Float32[Array, ""]  # mean cross-entropy, in nats
    accuracy: Float32[Array, ""]
    errors: Int32[Array, ""]
    top2_accuracy: Float32[Array, ""]
    ece: Float32[Array, ""]  # expected calibration error
    confusion: Int32[Array, "classes classes"]  # rows: true class, columns: predicted
    support: Int32[Array, "classes"]  # examples of each class
    per_class: Scores
    macro: Scores  # each class that occurs or is predicted weighs the same
    weighted: Scores  # by support
    reliability: Reliability


class LabelsReport(NamedTuple):
    """Metrics of several yes-or-no labels; each array may have leading axes of trials."""

    loss: Float32[Array, ""]
    accuracy: Float32[Array, ""]  # share of examples with all labels right
    errors: Int32[Array, ""]
    support: Int32[Array, "labels"]  # examples that have each label
    per_class: Scores  # of each label's yes
    macro: Scores
    weighted: Scores


AnyReport = Report | LabelsReport | image_quality.Report


def zeros() -> Metrics:
    """Return the sums over no examples, the initial value of a scan."""
    return Metrics(jnp.float32(0), jnp.int32(0), jnp.int32(0))


def merge(a: Metrics, b: Metrics) -> Metrics:
    """Add the sums of two sets of examples."""
    return jax.tree.map(jnp.add, a, b)


def classification(
    logits: Float[Array, "n k"], labels: Integer[Array, "n"], num_bins: int = 15
) -> Report:
    """Evaluate the predictions of a whole split; every example counts once.

    The predicted class is the first of the largest logits. Precision, recall and F1 follow
    scikit-learn with `zero_division=0`: 0 for a class that is never predicted, or has no examples.
    As there, a class that neither occurs nor is predicted is left out of the averages. The
    calibration error is equation 3 of Guo et al. 2017, its bins
    open on the left and closed on the right.

    Args:
      logits: one row per example, at least two classes.
      labels: classes in [0, k).
      num_bins: of the reliability diagram and the calibration error; static.

    Returns:
      The report.
    """
    k = logits.shape[1]
    logits, labels = logits.astype(jnp.float32), labels.astype(jnp.int32)
    log_probs = jax.nn.log_softmax(logits)
    loss = -jnp.mean(jnp.take_along_axis(log_probs, labels[:, None], axis=1))
    # Not lax.top_k, to which 0.0 is more than -0.0 where argmax sees a tie.
    first = jnp.argmax(logits, axis=1)
    taken = first[:, None] == jnp.arange(k)[None, :]
    second = jnp.argmax(jnp.where(taken, -jnp.inf, logits), axis=1)
    correct = first == labels

    confusion = jnp.zeros((k, k), jnp.int32).at[labels, first].add(1)
    total = confusion.sum(dtype=jnp.int32)
    reliability, ece = _calibration(jnp.exp(jnp.max(log_probs, axis=1)), correct, num_bins)
    return Report(
        loss=loss,
        accuracy=ratio(correct.sum(), total),
        errors=jnp.sum(~correct, dtype=jnp.int32),
        top2_accuracy=ratio(jnp.sum(correct | (second == labels)), total),
        ece=ece,
        confusion=confusion,
        support=confusion.sum(axis=1, dtype=jnp.int32),
        reliability=reliability,
        **of_confusion(confusion)._asdict(),
    )


def of_confusion(confusion: Int[Array | np.ndarray, "k k"]) -> Averages:
    """Return the scores of counts; rows: true class, columns: predicted."""
    counts = jnp.asarray(confusion)
    predicted, support = counts.sum(axis=0), counts.sum(axis=1)
    return _scores(jnp.diagonal(counts), predicted, support, (predicted + support > 0).sum())


def without_probabilities(report: Report) -> Report:
    """Remove what needs probabilities from a report of other scores."""
    nothing = jax.tree.map(jnp.zeros_like, report.reliability)
    return report._replace(ece=jnp.full_like(report.ece, jnp.nan), reliability=nothing)


def has_probabilities(report: Mapping[str, Any]) -> bool:
    """Return True if a report of `to_python`, or a summary with one, is of probabilities."""
    return report.get("ece") is not None


def multilabel(
    answers: Bool[Array, "n labels"],
    labels: Integer[Array, "n labels"],
    loss: Float[Array, ""],
) -> LabelsReport:
    """Evaluate the answers on a whole split; the scores are as in `classification`.

    All labels count in the averages, as in scikit-learn.

    Args:
      answers: predicted labels of each example.
      labels: 1 for its true labels, else 0.
      loss: mean over the examples.
    """
    truth = labels > 0
    wrong = (answers != truth).any(axis=1).sum(dtype=jnp.int32)
    return LabelsReport(
        loss=loss,
        accuracy=1 - ratio(wrong, jnp.int32(len(labels))),
        errors=wrong,
        support=truth.sum(axis=0, dtype=jnp.int32),
        **_of_labels(answers, truth)._asdict(),
    )


def macro_f1(answers: Bool[Array, "n labels"], truth: Bool[Array, "n labels"]) -> Float[Array, ""]:
    """Mean over labels of the F1 score of their yes."""
    return _of_labels(answers, truth).macro.f1


def _of_labels(answers: Bool[Array, "n labels"], truth: Bool[Array, "n labels"]) -> Averages:
    right, said, there = (x.sum(axis=0) for x in (answers & truth, answers, truth))
    return _scores(right, said, there, jnp.int32(truth.shape[1]))


def to_python(report: Any, class_names: Sequence[str]) -> dict[str, Any]:
    """Convert a report to plain numbers for strict JSON.

    Args:
      report: of one split, without leading axes; a NamedTuple of arrays.
      class_names: one per class or label.

    Returns:
      The report's fields; `confusion` as confusion_matrix, `per_class` as a list with names, the
      reliability diagram as a list of bins. Numbers that are not finite (the loss of a run that
      diverged) become None.
    """
    plain = jax.tree.map(_plain, report)._asdict()
    if "confusion" in plain:
        plain["confusion_matrix"] = plain.pop("confusion")
    if "reliability" in plain:
        bins = plain["reliability"]
        edges = np.linspace(0, 1, len(bins.examples) + 1).tolist()
        columns = ("low", "high", "count", "confidence", "accuracy")
        plain["reliability"] = _rows(columns, edges[:-1], edges[1:], *bins)
    if "per_class" in plain:
        columns = ("name", *Scores._fields, "support")
        plain["per_class"] = _rows(columns, class_names, *plain["per_class"], plain.pop("support"))
        for average in ("macro", "weighted"):
            plain[average] = plain[average]._asdict()
    return plain


def _rows(names: Sequence[str], *columns: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _scores(
    true_positives: Int[Array, "k"],
    predicted: Int[Array, "k"],
    support: Int[Array, "k"],
    averaged: Int[Array, ""],
) -> Averages:
    """Return the scores of counts, and their averages over some of the classes; others are 0."""
    per_class = Scores(
        precision=ratio(true_positives, predicted),
        recall=ratio(true_positives, support),
        f1=ratio(2 * true_positives, support + predicted),
    )
    share = ratio(support, support.sum())
    count = jnp.maximum(averaged, 1).astype(jnp.float32)
    macro = Scores(*(jnp.sum(score) / count for score in per_class))
    return Averages(per_class, macro, Scores(*(jnp.sum(share * score) for score in per_class)))


def ratio(a: Int[Array, "..."], b: Int[Array, "..."]) -> Float32[Array, "..."]:
    """Quotient of counts; 0 where b is 0."""
    b = lax.optimization_barrier(b)  # XLA would multiply by the rounded inverse of a constant
    return a.astype(jnp.float32) / jnp.maximum(b, 1).astype(jnp.float32)


def _calibration(
    confidence: Float32[Array, "n"], correct: Bool[Array, "n"], num_bins: int
) -> tuple[Reliability, Float32[Array, ""]]:
    edges = jnp.asarray(np.arange(1, num_bins) / num_bins, jnp.float32)
    bins = jnp.sum(confidence[:, None] > edges[None, :], axis=1)
    inside = bins[:, None] == jnp.arange(num_bins)[None, :]
    count = inside.sum(axis=0, dtype=jnp.int32)
    hits = jnp.sum(inside & correct[:, None], axis=0)
    # Sums of a mask, not a scatter-add: the same bits every time, on GPUs too.
    total = jnp.sum(jnp.where(inside, confidence[:, None], 0), axis=0)
    ece = jnp.sum(jnp.abs(hits.astype(jnp.float32) - total)) / len(confidence)
    mean_confidence = total / jnp.maximum(count, 1).astype(jnp.float32)
    return Reliability(count, mean_confidence, ratio(hits, count)), ece


def _plain(x: Array | np.ndarray | np.generic) -> Any:
    """Convert to numbers, nested lists or None; the shortest decimal of each float32."""
    if x.ndim:
        return [_plain(element) for element in np.asarray(x)]
    if jnp.issubdtype(x.dtype, jnp.integer):
        return int(x)
    return float(str(np.float32(x))) if np.isfinite(x) else None
