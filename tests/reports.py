"""A report's arguments: a run whose summary is worked out from its logits."""

from typing import Any

import numpy as np

from mnist_jax.models.registry import Layer
from mnist_jax.report import run_page

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
FASHION += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def make_run(names=FASHION, examples=400, epochs=4, seed=0, logits=None, val=True) -> dict:
    """Arguments for `render`: a run whose summary is worked out from its logits."""
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
        "num_test": examples, "best_epoch": epochs, "val_accuracy": 0.85 if val else None,
        "test_accuracy": 1 - errors / max(examples, 1), "test_loss": 0.3, "test_errors": errors,
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
    inside = run_page.Inside(
        layers=[Layer("Dense_0", "Dense", (len(names),), 7850, 0)],
        weights={f"unit {i}": rng.normal(size=(5, 5)).astype(np.float32) for i in range(3)},
        relevance=rng.normal(size=(min(errors, 8), 28, 28)),
        validation=(logits, labels) if val and classes == 2 else None,
    )
    return {
        "summary": summary, "history": history, "config": config, "labels": labels,
        "images": rng.integers(0, 256, (examples, 28, 28, 1)).astype(np.uint8), "logits": logits,
        "inside": inside,
        "command": "python -m mnist_jax.main --config=configs/cnn.py --workdir=runs/a",
    }  # fmt: skip


def render(run: dict, **summary: Any) -> str:
    return run_page.render(**{**run, "summary": run["summary"] | summary})
