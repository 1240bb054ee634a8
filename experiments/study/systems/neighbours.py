"""Nearest neighbours, by `experiments.knn`, and the net by hand, by `experiments.by_hand`."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from configs import study
from experiments import by_hand as hand
from experiments.knn import rows as knn
from experiments.study.row import OUT_OF_FOLD, Outcome, Settings, System, of_seed
from experiments.study.systems import nets
from experiments.study.systems.references import load
from mnist_jax import config as configs
from mnist_jax.data import splits
from mnist_jax.data.datasets import Dataset
from mnist_jax.report import pictures

_SHOWN = 8  # of denoised images


def raw(dataset: str, k: int) -> System:
    """Raw pixels."""
    return partial(_tested, dataset, partial(knn.raw, k=k))


@cache
def best(dataset: str) -> System:
    """Deskewing, blurring, k and weights chosen by cross-validation; computed once for all rows."""
    return cache(partial(_tested, dataset, knn.preprocessed))


def multilabel(prepared: bool) -> System:
    """Macro F1 out of fold; `prepared`: deskewed and blurred, as `best` chooses for ten classes."""
    return partial(_multilabel, prepared)


def denoise(settings: Settings) -> Outcome:
    """Return the PSNR of the mean of the neighbours."""
    found = load("mnist", settings)
    noisy, clean, seconds = knn.restored(found)
    error, psnr = knn.pixel_error(clean, found.test_images)
    facts = {"pixel error of 255": error, **before_and_after(found, noisy, clean)}
    return Outcome([psnr], seconds, facts, triples(found, noisy, clean))


def by_hand(settings: Settings) -> Outcome:
    """Return the test accuracy of each seed."""
    config = configs.default()
    config.data.name = settings.dataset("fashion_mnist")
    found = hand.study(splits.load(config), settings.seeds, 10 if settings.quick else 140)
    recalls = np.mean(found["recall_percent"], axis=0).tolist()
    named = zip(found["class_names"], recalls, strict=True)
    facts = {f"recall of {name}": recall for name, recall in named}
    points = zip(
        *(found[key][0] for key in ("loss", "accuracy_percent", "val_accuracy_percent")),
        strict=True,
    )
    history = [
        {
            "epoch": iteration,
            "train_loss": loss,
            "val_loss": None,
            "train_accuracy": train / 100,
            "val_accuracy": val / 100,
            "learning_rate": found["learning_rate"],
        }
        for iteration, (loss, train, val) in zip(found["iteration"], points, strict=True)
    ]
    config.model.update(study.MODELS["mlp_512"])  # the same net
    shown = {
        "classes": found["class_names"],
        "confusion": found["confusion_matrix"],
        "history": history,
        "layers": nets.layers(config, len(found["class_names"])),
        "note": of_seed(0, settings.seeds),
    }
    return Outcome(found["test_accuracy_percent"], found["seconds"], facts, shown)


def denoise_by_net(settings: Settings) -> Outcome:
    """Return the PSNR of a denoising MLP."""
    found = load("mnist", settings)
    outcome, noisy, clean = nets.denoise(settings)
    facts = {**outcome.facts, **before_and_after(found, noisy, clean)}
    shown = {**outcome.shown, **triples(found, noisy, clean)}
    return outcome._replace(facts=facts, shown=shown)


def before_and_after(found: Dataset, noisy: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """Measure noisy test images and denoised ones.

    Accuracy is measured with three nearest neighbours among the clean training images.
    """
    _, psnr = knn.pixel_error(noisy, found.test_images)
    levels = 256 + knn.NOISE - 1
    accuracies = {
        f"accuracy of kNN on {what} images": knn.evaluate(
            found, found.train_images, images, 3, "uniform", levels=levels
        )["test_accuracy_percent"]
        for what, images in (("noisy", noisy), ("restored", np.round(clean).astype(np.int16)))
    }
    return {"PSNR of the noisy images": psnr, **accuracies}


def triples(found: Dataset, noisy: np.ndarray, clean: np.ndarray) -> dict[str, Any]:
    """Return the first test images: noisy, denoised and clean."""
    three = ([*map(_picture, images[:_SHOWN])] for images in (noisy, clean, found.test_images))
    return {"images": [list(row) for row in zip(*three, strict=True)]}


def _picture(image: np.ndarray) -> str:
    return pictures.png(np.clip(np.round(image), 0, 255).astype(np.uint8))


def _multilabel(prepared: bool, settings: Settings) -> Outcome:
    found = load("mnist", settings)
    if prepared:
        found = found._replace(train_images=np.asarray(knn.prepare(found.train_images, True, 0.5)))
    row = knn.multilabel(found)
    classes = ["small, even", "small, odd", "large, even", "large, odd"]
    return Outcome(
        [100 * f1 for f1 in row["f1_macro_of_folds"]],
        row["seconds"],
        {"of all together": 100 * row["f1_macro"], "weighted F1": 100 * row["f1_weighted"]},
        {"classes": classes, "confusion": row["confusion_matrix"], "note": OUT_OF_FOLD},
        of_folds=True,
    )


def _tested(
    dataset: str, do: Callable[[Dataset], Mapping[str, Any]], settings: Settings
) -> Outcome:
    found = load(dataset, settings)
    row = do(found)
    chosen = row.get("validation_accuracy_percent")
    facts = {} if chosen is None else {"held-out accuracy": chosen, "k": row["k"]}
    shown = {"classes": list(found.class_names), "confusion": row["confusion_matrix"]}
    right = (100.0 * (row["decided"] == found.test_labels)).tolist()
    seconds = row["seconds"] + row.get("grid_seconds", 0.0)
    return Outcome([row["test_accuracy_percent"]], seconds, facts, shown, right)


grid = partial(_tested, "mnist", knn.grid)  # neighbours and weights chosen by cross-validation
shifted = partial(_tested, "mnist", knn.shifted)  # five times as many training images
