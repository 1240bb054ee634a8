"""Finished runs for tests of the report page."""

import itertools
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from mnist_jax.analysis import stats
from mnist_jax.models.registry import Layer
from mnist_jax.report import plots, run_page

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
FASHION += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def make_run(names=FASHION, examples=400, epochs=4, seed=0, logits=None, val=True) -> dict:
    """A plain run for `render`, with a summary of its logits."""
    rng = np.random.default_rng(seed)
    classes = len(names)
    labels = rng.integers(0, classes, examples).astype(np.int32)
    if logits is None:
        logits = rng.normal(size=(examples, classes)) + 3 * np.eye(classes)[labels]
    logits = np.asarray(logits, np.float32)
    predicted = logits.argmax(1)
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (labels, predicted), 1)
    scores = {"precision": 0.5, "recall": 0.25, "f1": 0.125}
    errors = int((predicted != labels).sum())
    history = [
        {
            "epoch": epoch, "step": 10 * epoch, "train_loss": 1 / epoch, "train_accuracy": 0.9,
            "val_loss": 1.1 / epoch if val else None, "val_accuracy": 0.85 if val else None,
            "learning_rate": 0.01 / epoch, "seconds": 1.5, "examples_per_second": 1000.0,
        }
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    summary = {
        "dataset": "fashion_mnist", "requested_dataset": "fashion_mnist", "model": "cnn", "seed": 0,
        "num_params": 421642, "num_train": 55000, "num_val": 5000 if val else 0,
        "num_test": examples, "score": "accuracy", "best_epoch": epochs,
        "val_accuracy": 0.85 if val else None,
        "test_accuracy": 1 - errors / max(examples, 1), "test_loss": 0.3, "test_errors": errors,
        "test_interval": {"low": 0.875, "high": 0.925},
        "test_top2_accuracy": 0.99, "ece": 0.01, "confusion_matrix": matrix.tolist(),
        "per_class": [{"name": name, "support": 7, **scores} for name in names],
        "macro": scores, "weighted": scores, "train_seconds": 93.2, "compile_seconds": 2.1,
        "seconds_per_epoch": 6.2, "peak_rss_bytes": 812_345_678, "device": "cpu", "backend": "cpu",
        "versions": {"jax": "0.10.2"}, "git_revision": None, "data_fingerprint": "crc32:1",
        "class_names": list(names),
        "reliability": [{"low": 0.0, "high": 1.0, "count": 7, "confidence": 0.8, "accuracy": 0.9}],
    }  # fmt: skip
    config = {
        "seed": 0,
        "train": {"epochs": epochs, "augment": {"shift": 2.0}},
        "optim": {"learning_rate": 0.01, "weight_decay": 0.1},
    }
    explanation = run_page.Explanation(
        layers=[Layer("Dense_0", "Dense", (len(names),), 7850, 0)],
        weights={f"unit {i}": rng.normal(size=(5, 5)).astype(np.float32) for i in range(3)},
        relevance=rng.normal(size=(min(errors, 8), 28, 28)),
    )
    return {
        "summary": summary, "history": history, "config": config, "labels": labels,
        "images": rng.integers(0, 256, (examples, 28, 28, 1)).astype(np.uint8), "logits": logits,
        "trials": [{"trial": 0, "status": "finished"}],
        "explanation": explanation,
        "held_out": (logits[None], labels) if val and classes == 2 else None,
        "command": "python -m mnist_jax.main --config=configs/cnn.py --workdir=runs/a",
    }  # fmt: skip


@contextmanager
def drawing(labels: Collection[str]) -> Iterator[None]:
    """Draw only the figures with these labels; drawing takes most of a page's time."""
    svg = plots.svg
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "svg", lambda figure, of: svg(figure, of) if of in labels else "")
        yield


def render(run: dict, **summary: Any) -> str:
    """The page of a plain run, with some values of its summary replaced."""
    finished = run_page.FinishedRun(
        summary=run["summary"] | summary,
        history=run["history"],
        trials=run["trials"],
        config=run["config"],
        images=run["images"],
        labels=run["labels"],
        scores=run["logits"][None],
        noisy=None,
        held_out=run["held_out"],
        held_out_name="on validation",
    )
    return run_page.render(finished, run["explanation"], run["command"])


def grid(**swept) -> list[dict[str, Any]]:
    """Overrides for every combination of values; a double underscore in a key is a dot."""
    keys = [key.replace("__", ".") for key in swept]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*swept.values())]


def describe_settings(trials, score="accuracy") -> list[dict[str, Any]]:
    """The settings of a summary whose last setting is chosen."""
    settings: list[dict[str, Any]] = []
    last = trials[-1]["setting"]
    scores = [
        [value for row in trials if row["setting"] == number and (value := row[f"val_{score}"])]
        for number in range(1 + last)
    ]
    for number, values in enumerate(scores):
        own = [row for row in trials if row["setting"] == number]
        paired = number != last and len(values) == len(scores[last]) > 0
        settings.append(
            {
                "setting": number,
                "overrides": own[0]["overrides"],
                "trials": len(own),
                "diverged": sum(row["status"] == "diverged" for row in own),
                "epochs": 2,
                "dropped": False,
                "val_score": stats.describe(values)._asdict() if values else None,
                "vs_chosen": stats.paired(scores[last], values)._asdict() if paired else None,
            }
        )
    means = [s["val_score"]["mean"] if s["val_score"] else 0.0 for s in settings]
    best_first = sorted(range(len(settings)), key=lambda i: (i != last, -means[i]))
    return [s | {"rank": 1 + best_first.index(i)} for i, s in enumerate(settings)]


def make_sweep(
    overrides: list[dict[str, Any]],
    seeds=3,
    *,
    validated=True,
    folds=0,
    diverged=(),
    probable=True,
    **changes: Any,
) -> run_page.FinishedRun:
    """A run of several trials on two classes, each with two epochs; the last setting is chosen.

    The ensemble is wrong about test image 2, the first trial also about image 9. `changes` replace
    values of the summary.
    """
    trials, history = [], []
    for trial, (number, seed) in enumerate(itertools.product(range(len(overrides)), range(seeds))):
        lost = trial in diverged or not validated
        trials.append(
            {
                "trial": trial,
                "setting": number,
                "overrides": overrides[number],
                "seed": seed,
                "fold": None,
                "status": "diverged" if trial in diverged else "finished",
                "val_accuracy": None if lost else 0.9 + 0.005 * number + 0.001 * seed,
            }
        )
        for epoch in (1, 2):
            values = dict.fromkeys(("train_loss", "train_accuracy"), 0.4 * epoch)
            values |= dict.fromkeys(
                ("val_loss", "val_accuracy"), 0.4 * epoch if validated else None
            )
            history.append({"epoch": epoch, "trial": trial, "learning_rate": 0.1, **values})
    count = 1 if folds else seeds
    labels = np.repeat(np.int32([0, 1]), 6)
    logits = np.tile(np.float32(np.eye(2)[labels]), (count, 1, 1))
    logits[:, 2] = (-1.0, 1.0)
    logits[0, 9] = (1.5, 0.0)
    accuracies = np.linspace(0.9, 0.95, count).tolist()
    tested = stats.describe(accuracies, None, stats.SHARE)._asdict()
    bins = [{"low": 0.0, "high": 1.0, "count": 7, "confidence": 0.8, "accuracy": 0.9}]
    empty = [{"low": 0.0, "high": 1.0, "count": 0, "confidence": 0.0, "accuracy": 0.0}]
    ensemble = {
        "trials": seeds,
        "nll": 0.123 if probable else None,
        "nll_of_trials": 0.234 if probable else None,
        "ece": 0.0456 if probable else None,
        "reliability": [{**bins[0], "count": 1000}] if probable else None,
        "test_accuracy": {"mean of probabilities": 0.96},
        "by_size": [
            {"size": 1, "accuracies": [0.9, 0.91, 0.93]},
            {"size": seeds, "accuracies": [0.96]},
        ],
    }
    mean = {"precision": 0.5, "recall": 0.25, "f1": 0.125}
    summary = {
        "dataset": "digits", "requested_dataset": "digits", "model": "mlp", "seed": 0,
        "trials": len(trials), "seeds": seeds, "folds": folds, "diverged": len(diverged),
        "score": "accuracy", "settings": describe_settings(trials), "chosen": len(overrides) - 1,
        "num_params": 1234, "num_train": 1000, "num_val": 100 if validated else 0, "num_test": 12,
        "rounds": [], "nested": None, "ensemble": ensemble if count > 1 else None,
        "best_epoch": None,
        "val_accuracy": None, "test_accuracy": tested["mean"], "test_loss": 0.3,
        "test_errors": 1.5, "test_top2_accuracy": 1.0, "ece": 0.05 if probable else None,
        "test_interval": {"low": 0.85, "high": 0.96},
        "test": {"accuracy": tested, "loss": tested, **({"ece": tested} if probable else {})},
        "confusion_matrix": [[5, 1], [0, 6]], "class_names": ["0", "1"],
        "per_class": [{"name": name, "support": 6, **mean} for name in ("0", "1")],
        "macro": mean, "weighted": mean, "reliability": bins if probable else empty,
        "train_seconds": 1.0, "compile_seconds": 1.0, "seconds_per_epoch": 0.1,
        "device": "cpu", "backend": "cpu", "peak_rss_bytes": 1, "versions": {"jax": "1"},
        "data_fingerprint": "abc", "git_revision": None,
    }  # fmt: skip
    return run_page.FinishedRun(
        summary=summary | changes,
        history=history,
        trials=trials,
        config={"a": {"b": 1}},
        images=np.zeros((12, 28, 28, 1), np.uint8),
        labels=labels,
        scores=logits,
        noisy=None,
        held_out=None,
        held_out_name="out of fold",
    )


def render_sweep(run: run_page.FinishedRun) -> str:
    """The page of a run of several trials."""
    layers = [Layer("Dense_0", "Dense", (2,), 1570, 0)]
    explanation = run_page.Explanation(layers, {}, np.zeros((0, 28, 28)))
    return run_page.render(run, explanation, "it")
