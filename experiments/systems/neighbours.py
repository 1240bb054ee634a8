"""Nearest neighbours, by `experiments.knn`, and the net by hand, by `experiments.by_hand`."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from experiments import by_hand as hand
from experiments import knn
from experiments.systems.references import load
from experiments.systems.row import Outcome, Settings, System
from mnist_jax import config as configs
from mnist_jax import splits


def raw(dataset: str, k: int) -> System:
    """The pixels as they are."""
    return lambda settings: _tested(knn.raw(load(dataset, settings), k))


def best(dataset: str) -> System:
    """Deskewing, blurring, k and weights chosen by cross-validation."""
    return lambda settings: _tested(knn.preprocessed(load(dataset, settings)))


def grid(settings: Settings) -> Outcome:
    """The number of neighbours and their weights chosen by cross-validation."""
    return _tested(knn.grid(load("mnist", settings)))


def shifted(settings: Settings) -> Outcome:
    """Five times as many training images."""
    return _tested(knn.shifted(load("mnist", settings)))


def multilabel(prepared: bool) -> System:
    """Macro F1 out of fold; `prepared`: deskewed and blurred, as `best` chooses for ten classes."""
    return partial(_multilabel, prepared)


def denoise(settings: Settings) -> Outcome:
    """PSNR of the neighbours' mean."""
    row = knn.denoised(load("mnist", settings))
    facts = {"PSNR of the noisy images": row["noisy_psnr"], "pixel error": row["error"]}
    return Outcome([row["psnr"]], row["seconds"], facts)


def by_hand(settings: Settings) -> Outcome:
    """Test accuracies, a seed each."""
    config = configs.default()
    config.data.name = settings.dataset("fashion_mnist")
    found = hand.study(splits.load(config), settings.seeds, 10 if settings.quick else 140)
    recalls = np.mean(found["recall_percent"], axis=0).tolist()
    named = zip(found["class_names"], recalls, strict=True)
    facts = {f"recall of {name}": recall for name, recall in named}
    return Outcome(found["test_accuracy_percent"], None, facts)


def _multilabel(prepared: bool, settings: Settings) -> Outcome:
    found = load("mnist", settings)
    if prepared:
        found = found._replace(train_images=np.asarray(knn.prepare(found.train_images, True, 0.5)))
    row = knn.multilabel(found)
    return Outcome(
        [100 * row["f1_macro"]], row["seconds"], {"weighted F1": 100 * row["f1_weighted"]}
    )


def _tested(row: Mapping[str, Any]) -> Outcome:
    chosen = row.get("validation_accuracy_percent")
    facts = {} if chosen is None else {"held-out accuracy": chosen, "k": row["k"]}
    return Outcome([row["test_accuracy_percent"]], row["seconds"], facts)
