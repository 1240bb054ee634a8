"""What a finished run of many members says: members.jsonl, summary.json and all the rest."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32
from ml_collections import ConfigDict

from mnist_jax.analysis import ensemble, metrics, stats
from mnist_jax.data.splits import Split, Splits
from mnist_jax.report import members_page, sweep_plots
from mnist_jax.runs import results
from mnist_jax.types import Row
from mnist_jax.workdir import files

_SIZES = (1, 2, 3, 5, 10, 20, 50, 100)  # of committees


def describe_settings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What validation says of each setting.

    Args:
      rows: of the members, as in members.jsonl.

    Returns:
      By setting: its `overrides`, how many `members` it has, how many of them `diverged`, whether
      halving `dropped` it, and `val_accuracy`, described over those that did not diverge and that
      validation judged; else None.
    """
    settings = []
    for number in range(1 + max(row["setting"] for row in rows)):
        own = [row for row in rows if row["setting"] == number]
        whole = [row for row in own if row["status"] != "diverged"]
        values, folds = _validation(whole)
        settings.append(
            {
                "setting": number,
                "overrides": own[0]["overrides"],
                "members": len(own),
                "diverged": len(own) - len(whole),
                "dropped": any(row["status"] == "dropped" for row in own),
                "val_accuracy": stats.describe(values, folds)._asdict() if values else None,
            }
        )
    return settings


def beside_chosen(
    rows: Sequence[Row], settings: Sequence[Mapping[str, Any]], chosen: int
) -> list[dict[str, Any]]:
    """The settings, each with how much more it is than the chosen one: `beside_chosen`.

    That is a `stats.Comparison` of validation accuracies over the seeds and folds that both have;
    None of the chosen one, and where they have none in common.
    """
    judged = {
        (row["setting"], row["seed"], row["fold"]): row
        for row in rows
        if row["status"] != "diverged" and row["val_accuracy"] is not None
    }
    described = []
    for setting in settings:
        pairs = [
            (judged[chosen, *key], row)
            for (number, *key), row in judged.items()
            if number == setting["setting"] != chosen and (chosen, *key) in judged
        ]
        found = None
        if pairs:
            (theirs, folds), (own, _) = map(_validation, zip(*pairs, strict=True))
            found = stats.paired(theirs, own, folds)._asdict()
        described.append({**setting, "beside_chosen": found})
    return described


def _validation(rows: Sequence[Row]) -> tuple[list[float], list[int] | None]:
    """Validation accuracies of those who have one, and the folds that they are of, if any."""
    there = [row for row in rows if row["val_accuracy"] is not None]
    folds = [row["fold"] for row in there]
    accuracies = [row["val_accuracy"] for row in there]
    return accuracies, folds if folds and folds[0] is not None else None


def describe_outer(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows of outer folds, and their `accuracy` described."""
    accuracies, folds = [r["accuracy"] for r in rows], [r["fold"] for r in rows]
    return {"accuracy": stats.describe(accuracies, folds)._asdict(), "folds": [*rows]}


def rank(setting: Mapping[str, Any]) -> tuple[bool, int, float]:
    """The key by which the best setting is the largest.

    First whether halving let it come to its end, with somebody who did not diverge; then how few
    diverged; then the mean accuracy.
    """
    accuracy = setting["val_accuracy"]
    mean = accuracy["mean"] if accuracy else -math.inf
    whole = not setting["dropped"] and setting["diverged"] < setting["members"]
    return whole, -setting["diverged"], mean


def choice(settings: Sequence[Mapping[str, Any]], chosen: int, folds: int) -> str:
    """What validation says of the chosen setting, in a line; nothing where it decided nothing."""
    accuracy = settings[chosen]["val_accuracy"]
    if accuracy is None or (len(settings) == 1 and not folds):
        return ""
    what = f"{folds} held-out folds" if folds else "validation"
    if len(settings) > 1:
        name = sweep_plots.name(settings[chosen]["overrides"])
        what = f"best of {len(settings)} settings by {what}: {name}"
    spread = "" if accuracy["sd"] is None else f" ± {100 * accuracy['sd']:.2f}"
    return f"{what}: accuracy {100 * accuracy['mean']:.2f}%{spread}"


def summarize(
    config: ConfigDict,
    splits: Splits,
    *,
    requested_dataset: str,
    num_params: int,
    rows: Sequence[Row],
    settings: Sequence[Mapping[str, Any]],
    chosen: int,
    outer: Sequence[Row],
    tested: Sequence[Mapping[str, Any]],
    logits: Float32[np.ndarray, "members test classes"],
    train_seconds: float,
    compile_seconds: float,
) -> dict[str, Any]:
    """The content of summary.json.

    Args:
      config: of the run.
      splits: what it learnt from and was judged by.
      requested_dataset: the data set that was asked for.
      num_params: trained numbers of one member of the chosen setting.
      rows: of the members.
      settings: from `describe_settings`.
      chosen: which of them was judged on the test split.
      outer: from `nested.judge`; none without nested cross-validation.
      tested: the reports of its members on the whole test split.
      logits: of the same.
      train_seconds: of all members together.
      compile_seconds: what compiling took in this process.
    """
    accuracy = stats.describe([report["accuracy"] for report in tested])
    probable = tested[0]["ece"] is not None  # scores of a hinge are no probabilities
    return {
        **results.of_what(config, splits, requested_dataset, num_params),
        "members": len(rows),
        "seeds": config.members.seeds,
        "folds": config.members.folds,
        "diverged": sum(row["status"] == "diverged" for row in rows),
        "settings": beside_chosen(rows, settings, chosen),
        "chosen": chosen,
        "nested": describe_outer(outer) if outer else None,
        "test_accuracy": accuracy.mean,
        "test": {
            "accuracy": accuracy._asdict(),
            "loss": stats.describe([report["loss"] for report in tested])._asdict(),
            "ece": stats.describe([report["ece"] for report in tested])._asdict()
            if probable
            else None,
            "reliability": pool([r["reliability"] for r in tested]) if probable else None,
        },
        "committee": judge_committee(logits, splits.test.labels, probable)
        if len(tested) > 1
        else None,
        "confusion_matrix": np.sum([r["confusion_matrix"] for r in tested], axis=0).tolist(),
        "class_names": list(splits.class_names),
        "train_seconds": train_seconds,
        "compile_seconds": compile_seconds,
        **results.where(splits),
    }


def pool(diagrams: Sequence[Sequence[Row]]) -> list[Row]:
    """The reliability diagrams of some members as one: all their predictions in the same bins."""
    bins = []
    for same in zip(*diagrams, strict=True):
        count = sum(row["count"] for row in same)
        means = {
            key: sum(row["count"] * row[key] for row in same) / max(count, 1)
            for key in ("confidence", "accuracy")
        }
        bins.append({**same[0], "count": count, **means})
    return bins


def judge_committee(
    logits: Float32[np.ndarray, "members n classes"],
    labels: Int32[np.ndarray, " n"],
    probable: bool,
) -> dict[str, Any]:
    """What at least two members are worth together.

    Args:
      logits: theirs.
      labels: classes.
      probable: whether the softmax of the logits are probabilities.

    Returns:
      How many `members` there are; the `test_accuracy` by each rule of `ensemble` and that of
      smaller committees, `by_size`; of the mean of their probabilities the `nll` (negative
      log-likelihood, nats), beside it the mean of the members' own, `nll_of_members`, the expected
      calibration error `ece` and the `reliability` diagram. None where nothing is a probability.
    """
    count = len(logits)
    sizes = [size for size in _SIZES if size < count] + [count]
    found: dict[str, Any] = {
        "members": count,
        "test_accuracy": ensemble.accuracies(logits, labels),
        "by_size": ensemble.by_size(logits, labels, sizes),
        **dict.fromkeys(("nll", "nll_of_members", "ece", "reliability")),
    }
    if probable:
        scores = ensemble.mean_probabilities(logits)  # logarithms, so their own logits
        names = [str(label) for label in range(logits.shape[-1])]
        report = metrics.classification(jnp.asarray(scores), jnp.asarray(labels))
        judged = metrics.to_python(report, names)
        found |= {key: judged[key] for key in ("ece", "reliability")}
        found |= {"nll": judged["loss"], "nll_of_members": _nll(logits, labels)}
    return found


def _nll(
    logits: Float32[np.ndarray, "members n classes"], labels: Int32[np.ndarray, " n"]
) -> float:
    from scipy.special import log_softmax

    return -float(log_softmax(logits, axis=-1)[:, np.arange(len(labels)), labels].mean())


def publish(
    workdir: Path,
    summary: dict[str, Any],
    rows: Sequence[Row],
    history: Sequence[Row],
    config: ConfigDict,
    test: Split,
    logits: Float32[np.ndarray, "members test classes"],
    command: str,
    held_out: members_page.HeldOut | None = None,
) -> None:
    """Writes what a finished run leaves; the summary last, for it says that the rest is there."""
    results.write_predictions(workdir / files.PREDICTIONS, logits, test.labels)
    files.write(workdir / files.METRICS, files.to_rows(history))
    files.write(workdir / files.MEMBERS, files.to_rows(rows))
    plain = config.to_dict()
    page = members_page.render(summary, rows, history, plain, test, logits, command, held_out)
    files.write(workdir / files.REPORT, page)
    files.write(workdir / files.SUMMARY, files.to_json(summary))
