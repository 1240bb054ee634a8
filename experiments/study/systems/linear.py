"""Linear and kernel machines and nets, cross-validated and evaluated out of fold."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from experiments.study.row import OUT_OF_FOLD, Outcome, Settings, System, confusion
from experiments.study.systems import nets, out_of_fold
from experiments.study.systems.out_of_fold import PRECISION
from mnist_jax import config as configs
from mnist_jax.analysis import thresholds
from mnist_jax.data import datasets, splits
from mnist_jax.runs.training import train_run
from mnist_jax.workdir import files

Odds = tuple[
    Float[np.ndarray, " n"], Bool[np.ndarray, " n"]
]  # scores for a yes, and the true answers

_FOLDS = 3  # as the study has

# The counterpart of a study's `SGDClassifier`: one hinge loss for each class.
SGD = {
    "task.name": "one_vs_rest",
    "optim.name": "sgd",
    "optim.learning_rate": 0.3,  # of 0.01, 0.03, 0.1 and 0.3 the best out of fold; see Row.seen
    "optim.schedule": "cosine",
    "train.epochs": 10,
}
A_5 = {"task.name": "binary"}
SGD_OF_A_5 = {**SGD, **A_5, "task.loss": "hinge"}


def cross_validated(
    name: str, overrides: Mapping[str, Any], dataset: str = "mnist", folds: int = _FOLDS
) -> System:
    """Return the accuracy of each held-out fold; for two classes also facts from the scores."""
    return partial(_cross_validate, name, overrides, dataset, folds)


def ranked(name: str, overrides: Mapping[str, Any]) -> System:
    """Return the ROC AUC of each fold for "is it a 5"."""
    return partial(_rank, name, overrides)


def folds_of_a_5(yes: Bool[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " _"], ...]:
    """Return the held-out indices of each fold, the same as in a run."""
    return datasets.folds(yes.astype(np.int32), _FOLDS, configs.default().seed)


def odds_of_a_5(settings: Settings) -> Odds:
    """Return the out-of-fold scores of linear SGD for "is it a 5", from its row's run."""
    cross_validated("a_5", SGD_OF_A_5)(settings)
    return _odds(*_out_of_fold(_folder("a_5", _FOLDS, settings)))


def on_test(name: str, overrides: Mapping[str, Any], dataset: str = "mnist") -> System:
    """Return the test accuracy of each seed."""
    return partial(_test, name, overrides, dataset)


def binary_facts(yes: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Compute facts from out-of-fold scores, in percent; 0 or more is a yes."""
    point = thresholds.operating_point(scores, yes, 0.0)
    # As in scikit-learn, precision is 0 if nothing is called a yes.
    p, r = (0.0 if np.isnan(x) else x for x in (point.precision, point.recall))
    strict = thresholds.at_precision(scores, yes, PRECISION)
    return {
        "precision": 100 * p,
        "recall": 100 * r,
        "F1": 200 * p * r / (p + r) if r else 0.0,
        "ROC AUC": 100 * thresholds.ranking(scores, yes).auc,
        f"recall at {PRECISION:.0%} precision": 100
        * thresholds.operating_point(scores, yes, strict).recall,
    }


def _cross_validate(
    name: str, overrides: Mapping[str, Any], dataset: str, folds: int, settings: Settings
) -> Outcome:
    config = _config(overrides, dataset, settings)
    config.sweep.folds = folds
    workdir = _folder(name, folds, settings)
    examples = splits.load(config)
    summary = train_run(config, examples, workdir, log=lambda line: None)
    rows = files.read_rows(workdir / files.TRIALS)
    scores, labels = _out_of_fold(workdir)
    if len(examples.class_names) == 2:
        odds, yes = _odds(scores, labels)
        facts = binary_facts(yes, odds)
        figures = out_of_fold.of_yes_or_no(name, odds, yes, 0.0)
    else:
        facts = {}
        figures = out_of_fold.of_classes(
            name, examples.train.images, scores, labels, examples.class_names
        )
    facts["test accuracy"] = 100 * summary["test_accuracy"]
    seconds = summary["train_seconds"] / (folds + 1)  # the last one is on all examples
    shown = {
        **nets.shown(config, workdir),
        **confusion(labels, scores.argmax(axis=1), examples.class_names),
        "note": OUT_OF_FOLD,
        "figures": figures,
    }
    values = [100 * row["val_accuracy"] for row in rows]
    return Outcome(values, seconds, facts, shown, of_folds=True)


def _folder(name: str, folds: int, settings: Settings) -> Path:
    return settings.folder / f"{name}-{folds}-folds"


def _out_of_fold(
    workdir: Path,
) -> tuple[Float[np.ndarray, "n classes"], Int[np.ndarray, " n"]]:
    with np.load(workdir / files.OUT_OF_FOLD) as stored:
        return stored["logits"][0], stored["labels"]


def _odds(scores: Float[np.ndarray, "n 2"], labels: Int[np.ndarray, " n"]) -> Odds:
    return scores[:, 1] - scores[:, 0], labels == 1


def _rank(name: str, overrides: Mapping[str, Any], settings: Settings) -> Outcome:
    outcome = cross_validated(name, {**A_5, **overrides})(settings)
    odds, yes = _odds(*_out_of_fold(_folder(name, _FOLDS, settings)))
    folds = folds_of_a_5(yes)
    aucs = [100 * thresholds.ranking(odds[held_out], yes[held_out]).auc for held_out in folds]
    return outcome._replace(values=aucs)


def _test(name: str, overrides: Mapping[str, Any], dataset: str, settings: Settings) -> Outcome:
    config = _config(overrides, dataset, settings)
    config.sweep.seeds = max(settings.seeds, 2)
    workdir = settings.folder / f"{name}-{config.sweep.seeds}-seeds"
    summary = train_run(config, splits.load(config), workdir, log=lambda line: None)
    rows = files.read_rows(workdir / files.TRIALS)
    accuracies = [100 * row["test_accuracy"] for row in rows]
    seconds = summary["train_seconds"] / len(rows)
    note = f"The confusion matrix adds up all {len(rows)} seeds."
    shown = {**nets.shown(config, workdir), "note": note}
    return Outcome(accuracies, seconds, shown=shown, examples=nets.right(workdir).tolist())


def _config(overrides: Mapping[str, Any], dataset: str, settings: Settings) -> ConfigDict:
    config = configs.default()
    config.data.name = nets.data_name(dataset, settings)
    config.model.name = "linear"
    config.update_from_flattened_dict(overrides)
    if settings.quick:
        config.train.epochs = 1
    configs.validate(config)
    return config
