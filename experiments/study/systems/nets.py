"""Networks: a run for each seed, with the test accuracies as outcome."""

import gzip
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from configs import cnn, mlp, study
from experiments.study.row import Outcome, Settings, System, of_seed
from experiments.study.systems import afterwards
from mnist_jax import config as configs
from mnist_jax import tasks
from mnist_jax.data import datasets, splits
from mnist_jax.models import networks
from mnist_jax.runs.training import train_run
from mnist_jax.train import evaluate
from mnist_jax.workdir import files

KAGGLE = "kaggle"  # the file that `kaggle` writes
_COUNT = 42_000


def keras(net: str, dataset: str, **overrides: Any) -> System:
    """Train a net as its study did: on all training examples, to the last epoch."""

    def make() -> ConfigDict:
        config = study.get_config(net)
        config.data.val_size = 0.0
        config.update_from_flattened_dict(overrides)
        return config

    return partial(_train, f"{net}-{dataset}-{'-'.join(overrides) or 'plain'}", make, dataset)


def shipped(file: Any, dataset: str) -> System:
    """Train a shipped config, whose choices were made on validation data."""
    name = f"{file.__name__.rpartition('.')[2]}-{dataset}-shipped"
    # The CSV file contains images of MNIST.
    return partial(
        _train, name, lambda: file.get_config("mnist" if dataset == KAGGLE else dataset), dataset
    )


best_mlp = partial(shipped, mlp)
best_cnn = partial(shipped, cnn)


def _train(name: str, make: Callable[[], ConfigDict], dataset: str, settings: Settings) -> Outcome:
    config = make()
    config.data.name = data_name(dataset, settings)
    config.data.offline_fallback = False
    if settings.quick:
        config.train.epochs = 1
    values, seconds, facts, each = [], [], [], []
    for config.seed in range(settings.seeds):
        workdir = settings.folder / f"{name}-s{config.seed}"
        summary = train_run(config, splits.load(config), workdir, log=lambda line: None)
        values.append(100 * summary["test_accuracy"])
        seconds.append(summary["train_seconds"])
        each.append(right(workdir))
        if dataset == KAGGLE:  # the study about small weights and displaced digits
            facts.append(afterwards.measure(workdir))
    means = {key: float(np.mean([fact[key] for fact in facts])) for key in (facts or [{}])[0]}
    examples = np.mean(each, axis=0).tolist()
    last = {**shown(config, workdir), "note": of_seed(config.seed, settings.seeds)}
    return Outcome(values, statistics.median(seconds), means, last, examples)


def right(workdir: Path) -> Float[np.ndarray, " test"]:
    """Return, for each test image, the percentage of a run's trials that classify it correctly."""
    with np.load(workdir / files.PREDICTIONS) as stored:
        logits, labels = stored["logits"], stored["labels"]
    return 100.0 * (logits.reshape(-1, *logits.shape[-2:]).argmax(-1) == labels).mean(axis=0)


def shown(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Return what the page shows of a run: net, learning curves and confusion matrix."""
    summary = files.read_json(workdir / files.SUMMARY)
    return {
        "classes": summary["class_names"],
        "confusion": summary["confusion_matrix"],
        "history": files.read_rows(workdir / files.METRICS),
        "layers": layers(config, len(summary["class_names"])),
    }


def layers(config: ConfigDict, classes: int) -> list[dict[str, Any]]:
    """Return the layers of a config's net, as `shown` needs them."""
    outputs = tasks.build(config.task, classes).num_outputs
    return [layer._asdict() for layer in networks.build(config.model, outputs).layers()]


def data_name(dataset: str, settings: Settings) -> str:
    """Return `config.data.name` for a data set of a study; digits if the run is quick."""
    name = settings.dataset(dataset)
    return f"csv:{kaggle(settings.folder)}" if name == KAGGLE else name


def kaggle(folder: Path) -> Path:
    """Return a CSV file of 42,000 stratified MNIST images, as in study D; write it if missing.

    The fifth that is held out of a CSV consists of images of MNIST's test split: the validation
    images, on which nets were chosen, are all in the other four fifths.
    """
    path = folder / "kaggle.csv.gz"
    if path.exists():
        return path
    mnist = datasets.load("mnist")
    _, drawn = datasets.split(mnist.train_labels, _COUNT, seed=0)
    images, labels = mnist.train_images[drawn], mnist.train_labels[drawn]
    _, held_out = datasets.split(labels, 0.2, seed=0)  # as `datasets.load` does
    for label in np.unique(labels):
        places = held_out[labels[held_out] == label]
        images[places] = mnist.test_images[mnist.test_labels == label][: len(places)]
    table = np.column_stack([labels, images.reshape(_COUNT, -1)])
    header = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name("aside.csv.gz")
    with gzip.open(aside, "wt", compresslevel=1) as file:
        np.savetxt(file, table, fmt="%d", delimiter=",", header=header, comments="")
    return aside.rename(path)


def denoise(settings: Settings) -> tuple[Outcome, np.ndarray, np.ndarray]:
    """Train denoising MLPs; return the PSNR, noisy test images and denoised ones."""
    config = configs.default()
    config.data.name = settings.dataset("mnist")
    config.task.name = "denoise"
    config.model.update(name="mlp", widths=(1024, 1024))
    config.train.epochs = 1 if settings.quick else 30
    config.optim.schedule = "one_cycle"
    values, seconds, facts = [], [], []
    for config.seed in range(settings.seeds):
        workdir = settings.folder / f"denoise-s{config.seed}"
        summary = train_run(config, splits.load(config), workdir, log=lambda line: None)
        values.append(summary["test_psnr"])
        seconds.append(summary["train_seconds"])
        facts.append((summary["test_ssim"], summary["test_pixel_error"]))
    means = dict(zip(("SSIM", "pixel error of 255"), np.mean(facts, axis=0).tolist(), strict=True))
    shown = {
        "history": files.read_rows(workdir / files.METRICS),
        "layers": layers(config, 10),
        "note": of_seed(config.seed, settings.seeds),
    }
    images = jnp.asarray(splits.load(config).test.images)
    corrupt = tasks.build(config.task, 10).corrupt
    noisy = np.asarray(evaluate.inputs(images, jnp.arange(len(images)), corrupt))
    with np.load(workdir / files.PREDICTIONS) as stored:
        clean = stored["logits"].reshape(noisy.shape)
    seen, made = (255 * x for x in (noisy, clean))
    outcome = Outcome(values, statistics.median(seconds), means, shown)
    return outcome, np.round(seen).astype(np.int16), np.clip(made, 0, 255)
