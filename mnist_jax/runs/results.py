"""What a finished run says of itself: summary.json, predictions.npz, report.html."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, UInt8
from ml_collections import ConfigDict

from mnist_jax import tasks
from mnist_jax.analysis import image_quality, metrics
from mnist_jax.data.augment import normalize
from mnist_jax.data.splits import Splits
from mnist_jax.report import run_page, task_page
from mnist_jax.runtime import provenance
from mnist_jax.tasks import AnyReport
from mnist_jax.train import evaluate
from mnist_jax.types import Row
from mnist_jax.workdir import files

# What a summary says of the test split without saying so in its name.
_OF_TEST = ("ece", "confusion_matrix", "per_class", "macro", "weighted", "reliability")


def summarize(
    config: ConfigDict,
    splits: Splits,
    *,
    requested_dataset: str,
    num_params: int,
    history: Sequence[Row],
    best_epoch: int,
    test: AnyReport,
    compile_seconds: float,
) -> dict[str, Any]:
    """The content of summary.json.

    Args:
      config: of the run.
      splits: what it learnt from and was judged by.
      requested_dataset: the data set that was asked for.
      num_params: trained numbers of the model.
      history: the rows of metrics.jsonl.
      best_epoch: the one whose parameters were judged.
      test: their report on the whole test split.
      compile_seconds: what compiling took in this process.
    """
    tested = metrics.to_python(jax.device_get(test), splits.class_names)
    train_seconds = sum(row["seconds"] for row in history)
    return {
        **of_what(config, splits, requested_dataset, num_params),
        "best_epoch": best_epoch,
        "val_accuracy": history[best_epoch - 1]["val_accuracy"],
        **{key if key in _OF_TEST else f"test_{key}": value for key, value in tested.items()},
        **_before(config, splits),
        "class_names": list(splits.class_names),
        "train_seconds": train_seconds,
        "compile_seconds": compile_seconds,
        "seconds_per_epoch": train_seconds / len(history),
        **where(splits),
    }


def _before(config: ConfigDict, splits: Splits) -> dict[str, float | None]:
    """What a denoising net starts from, beside what it comes to; of other tasks nothing."""
    corrupt = tasks.build(config.task, len(splits.class_names)).corrupt
    if corrupt is None:
        return {}

    def judge(images: UInt8[Array, "n 28 28 1"]) -> Float32[Array, ""]:
        noisy = evaluate.inputs(images, jnp.arange(len(images)), corrupt)
        return image_quality.psnr(noisy, normalize(images))

    psnr = float(jax.jit(judge)(jnp.asarray(splits.test.images)))
    return {"test_noisy_psnr": round(psnr, 4) if math.isfinite(psnr) else None}


def of_what(
    config: ConfigDict, splits: Splits, requested_dataset: str, num_params: int
) -> dict[str, Any]:
    """The part of a summary that says what was trained, and on how much."""
    return {
        "dataset": splits.name,
        "requested_dataset": requested_dataset,
        "model": config.model.name,
        "seed": config.seed,
        "num_params": num_params,
        "num_train": len(splits.train.labels),
        "num_val": len(splits.val.labels),
        "num_test": len(splits.test.labels),
    }


def where(splits: Splits) -> dict[str, Any]:
    """The part of a summary that says with what, and on which machine."""
    return {
        "peak_rss_bytes": provenance.peak_rss_bytes(),
        "device": provenance.device(),
        "backend": jax.default_backend(),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "data_fingerprint": splits.fingerprint,
    }


def publish(
    workdir: Path,
    summary: dict[str, Any],
    history: Sequence[Row],
    config: ConfigDict,
    splits: Splits,
    scores: Float32[np.ndarray, "test scores"],
    inside: run_page.Inside | None,
    command: str,
) -> None:
    """Writes what a finished run leaves; the summary last, for it says that the rest is there.

    `inside` is what the net tells besides its scores, where its task is to tell classes apart.
    """
    test = splits.test
    write_predictions(workdir / files.PREDICTIONS, scores, test.labels)
    plain = config.to_dict()
    if inside is not None:
        page = run_page.render(
            summary=summary,
            history=history,
            config=plain,
            images=test.images,
            logits=scores,
            labels=test.labels,
            command=command,
            inside=inside,
        )
    elif config.task.name == "multilabel":
        page = task_page.labels(summary, history, plain, command)
    else:
        shown = slice(task_page.SHOWN)
        corrupt = tasks.build(config.task, len(splits.class_names)).corrupt
        first = jnp.asarray(test.images[shown])
        noisy = np.asarray(evaluate.inputs(first, jnp.arange(len(first)), corrupt))
        page = task_page.pixels(
            summary, history, plain, command, test.images[shown], noisy, scores[shown]
        )
    files.write(workdir / files.REPORT, page)
    files.write(workdir / files.SUMMARY, files.to_json(summary))


def write_predictions(
    path: Path, logits: Float32[np.ndarray, "..."], labels: Int32[np.ndarray, "n ..."]
) -> None:
    """Writes the logits (n, classes), or (members, n, classes), of a whole split."""
    packed = io.BytesIO()
    np.savez(packed, logits=logits, labels=labels, images_index=np.arange(len(labels)))
    files.write(path, packed.getvalue())
