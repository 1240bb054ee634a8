"""Finished runs, read from their workdirs, and what statistics say of two of them.

Trials of the same seed and fold are pairs; two single trainings share their test examples, which
McNemar's test looks at.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8

from mnist_jax import config as configs
from mnist_jax.analysis import ensemble, metrics, stats
from mnist_jax.data import splits
from mnist_jax.types import UserError, printable
from mnist_jax.workdir import files

_SURE = 0.05  # a smaller p-value is called a difference


class Run(NamedTuple):
    """A finished run; of a sweep, its chosen setting."""

    name: str
    config: dict[str, Any]
    fingerprint: str  # of its data
    summary: dict[str, Any]
    history: list[dict[str, Any]]  # rows of metrics.jsonl
    # Test accuracies by seed. With folds, held-out accuracies by seed, fold, number of folds and
    # seed of the split. Equal keys of two runs make a pair.
    accuracies: dict[tuple[int, ...], float]
    logits: Float32[np.ndarray, "trials test classes"]
    labels: Int32[np.ndarray, " test"]

    @property
    def alone(self) -> bool:
        """True for one training that is evaluated on the test split."""
        return len(self.accuracies) == 1 and not self.folds

    @property
    def probable(self) -> bool:
        """True if the softmax of the logits gives probabilities, unlike with a hinge loss."""
        return metrics.has_probabilities(self.summary)

    @property
    def folds(self) -> int:
        """Of its cross-validation; 0: none."""
        return self.config["sweep"]["folds"]


class Versus(NamedTuple):
    """The comparison of a run with the first one."""

    compared: stats.Comparison  # by pairs of trials, or example by example
    decisions: stats.McNemar  # of the test examples; of several trials, by their ensemble
    # The 95% interval of the difference for new seeds and new images; None of folds, whose interval
    # is for new images already, and where nothing differs.
    on_new_images: tuple[float, float] | None


def read(workdir: Path) -> Run:
    """Read a finished run.

    Raises:
      UserError: there is none.
    """
    config, fingerprint = files.read_config(workdir)
    summary = files.read_summary(workdir)
    if "confusion_matrix" not in summary:
        raise UserError(f"{workdir}: does not classify; only runs that do can be compared")
    try:
        history = files.read_rows(workdir / files.METRICS)
        rows = files.read_rows(workdir / files.TRIALS) if "trials" in summary else []
        with np.load(workdir / files.PREDICTIONS) as stored:
            logits, labels = stored["logits"], stored["labels"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{workdir}: is incomplete ({reason}); train the run again") from error
    if "trials" not in summary:
        accuracies: dict[tuple[int, ...], float] = {(summary["seed"],): summary["test_accuracy"]}
        logits = logits[None]
    else:
        own = {row["trial"]: row for row in rows if row["setting"] == summary["chosen"]}
        history = [row for row in history if row["trial"] in own]
        folds = summary["folds"]
        accuracies = {}
        for row in own.values():
            pair = (row["fold"], folds, config.data.split_seed) if folds else ()
            accuracy = row.get("val_accuracy" if folds else "test_accuracy")
            if accuracy is not None:
                accuracies[(row["seed"], *pair)] = accuracy
    name = printable(str(workdir))
    return Run(name, config.to_dict(), fingerprint, summary, history, accuracies, logits, labels)


def read_all(workdirs: Iterable[Path]) -> tuple[list[Run], list[Versus], list[str]]:
    """Read the runs that can be compared with the first one that can be read.

    Returns:
      The runs, the comparison of each but the first with it, and why others are left out.
    """
    runs: list[Run] = []
    found: list[Versus] = []
    skipped = []
    for workdir in workdirs:
        try:
            run = read(workdir)
            if runs:
                found.append(versus(runs[0], run))
            runs.append(run)
        except UserError as error:
            skipped.append(str(error))
    return runs, found, skipped


def accuracy(run: Run) -> stats.Described:
    """Describe the trials' accuracies; for one trial the interval is Wilson's, over test examples.

    With folds, accuracies on the held-out examples; otherwise on the test split.
    """
    values = list(run.accuracies.values())
    found = stats.describe(values, _folds(run, run.accuracies), stats.SHARE)
    if run.alone:
        right = correct(run)
        low, high = stats.wilson(int(right.sum()), len(right))
        found = found._replace(low=low, high=high)
    return found


def on_new_images(run: Run) -> tuple[float, float] | None:
    """Return the interval of its test accuracy for new images, and new seeds if it has several.

    None of a cross-validation, which evaluates other examples.
    """
    return None if run.folds else stats.on_new_images(_correct_by_trial(run), stats.SHARE)


def intervals(run: Run) -> list[tuple[str, float, float]]:
    """Return the 95% intervals of its accuracy: the question that each answers, and its ends."""
    found, on_images = accuracy(run), on_new_images(run)
    questions: list[tuple[str, tuple[float | None, float | None] | None]] = []
    if not run.alone:
        on = "new images" if run.folds else "new seeds on these test images"
        questions.append((on, (found.low, found.high)))
    questions.append(("new images" if run.alone else "new seeds and new images", on_images))
    return [
        (f"95% interval for {name}", low, high)
        for name, ends in questions
        if ends and (low := ends[0]) is not None and (high := ends[1]) is not None
    ]


def _correct_by_trial(run: Run) -> Bool[np.ndarray, "trials test"]:
    return run.logits.argmax(axis=-1) == run.labels


def flattery(run: Run) -> str:
    """Return a warning if the same held-out folds chose and evaluate a setting, else ""."""
    count = len(run.summary.get("settings", ()))
    if not run.folds or count < 2:
        return ""
    return (
        f"the same folds chose its setting among {count}, and so flatter it; "
        "config.sweep.outer_folds evaluates such a choice on others"
    )


def probabilities(run: Run) -> Float[np.ndarray, "test classes"]:
    """Mean probabilities of the test examples over its trials."""
    return ensemble.probabilities(run.logits.astype(np.float64))


def decisions(run: Run) -> Int[np.ndarray, " test"]:
    """Return the predicted classes, of the ensemble if there are several trials."""
    return run.logits[0].argmax(-1) if len(run.logits) == 1 else probabilities(run).argmax(-1)


def correct(run: Run) -> Bool[np.ndarray, " test"]:
    """Mark the test examples that are classified correctly."""
    return decisions(run) == run.labels


def versus(first: Run, other: Run) -> Versus:
    """Compare another run with the first one.

    Raises:
      UserError: they have other data or classes, or nothing in common that makes pairs.
    """
    if first.fingerprint != other.fingerprint:
        raise UserError(f"{other.name}: has other data than {first.name}; nothing can be compared")
    if first.summary["class_names"] != other.summary["class_names"]:
        raise UserError(f"{other.name}: has other classes than {first.name}; give runs of one task")
    right = correct(first), correct(other)
    decided = stats.mcnemar(*right)
    limits = stats.limits_of_difference(stats.SHARE)
    on_images = None
    if first.alone and other.alone:
        a, b = (r.astype(np.float64) for r in right)
        compared = stats.paired(a.tolist(), b.tolist(), limits=stats.SHARE)
        compared = compared._replace(p_value=decided.p_value)
        differ = decided.only_a + decided.only_b > 0
    else:
        pairs = sorted(first.accuracies.keys() & other.accuracies.keys())
        folds = _folds(first, pairs)
        if len(set(pairs if folds is None else folds)) < 2:
            raise UserError(
                f"{other.name}: has fewer than two seeds or folds in common with {first.name}; "
                "train both with the same config.seed, config.sweep.seeds and config.sweep.folds"
            )
        ours, theirs = ([run.accuracies[pair] for pair in pairs] for run in (first, other))
        compared = stats.paired(ours, theirs, folds, stats.SHARE)
        differ = compared.p_value is not None
        if not folds:
            a, b = (
                _correct_by_trial(run)[[list(run.accuracies).index(pair) for pair in pairs]]
                for run in (first, other)
            )
            on_images = stats.on_new_images(np.subtract(b, a, dtype=np.float64), limits)
    if not differ:  # an interval without width would be too sure
        compared, on_images = compared._replace(low=None, high=None), None
    return Versus(compared, decided, on_images)


def _folds(run: Run, pairs: Iterable[tuple[int, ...]]) -> list[int] | None:
    """Return the fold of each key of `Run.accuracies`; None without folds."""
    return [fold for _, fold, *_ in pairs] if run.folds else None


def verdict(compared: stats.Comparison) -> str:
    """Return the verdict in a word or two, and the difference in points."""
    points = f"{100 * compared.difference:+.2f} points"
    if compared.p_value is None or compared.p_value >= _SURE:
        return f"no clear difference ({points})"
    return f"{'better' if compared.difference > 0 else 'worse'} ({points})"


def test_images(run: Run) -> UInt8[np.ndarray, "test 28 28 1"] | None:
    """Return the images of the test split, or None if the data is not available."""
    config = configs.default()  # configs of earlier versions have no task
    config.update(run.config)
    try:
        found = splits.load(config)
    except UserError:
        return None
    return found.test.images if found.fingerprint == run.fingerprint else None
