"""The files of a finished run, which users' scripts read: names, keys and meanings."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from tensorboard_events import events, scalars

from mnist_jax import main
from mnist_jax.data import datasets
from mnist_jax.runtime import provenance
from mnist_jax.workdir import files

READS_PAGES = True

LINEAR = Path(__file__).parents[2] / "configs" / "linear.py"
# The learning rate is so high that the best epoch need not be the last.
OPTIONS = [
    f"--config={LINEAR}:digits",
    "--config.train.epochs=6",
    "--config.optim.schedule=constant",
    "--config.optim.learning_rate=0.3",
]

SUMMARY = {
    "dataset": str,
    "requested_dataset": str,
    "date": str,
    "name": str,
    "directory": str,
    "init_from": type(None),
    "model": str,
    "seed": int,
    "num_params": int,
    "num_train": int,
    "num_val": int,
    "num_test": int,
    "score": str,
    "best_epoch": int,
    "val_accuracy": float,
    "test_accuracy": float,
    "test_loss": float,
    "test_errors": int,
    "test_top2_accuracy": float,
    "test_interval": dict,
    "ece": float,
    "confusion_matrix": list,
    "per_class": list,
    "macro": dict,
    "weighted": dict,
    "reliability": list,
    "class_names": list,
    "image_kind": str,
    "train_seconds": float,
    "compile_seconds": float,
    "seconds_per_epoch": float,
    "peak_rss_bytes": int,
    "device": str,
    "backend": str,
    "matmul_precision": str,
    "versions": dict,
    "git_revision": str | None,
    "data_fingerprint": str,
}
METRICS = {
    "epoch": int,
    "step": int,
    "train_loss": float,
    "train_accuracy": float,
    "val_loss": float,
    "val_accuracy": float,
    "learning_rate": float,
    "gradient_norm": float,
    "parameter_norm": float,
    "update_norm": float,
    "seconds": float,
    "examples_per_second": float,
}


class Run(NamedTuple):
    path: Path
    written: list[str]  # names of the files, in order
    summary: dict
    history: list[dict]
    predictions: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    path = tmp_path_factory.mktemp("results") / "run"
    written = []
    write = files.write

    def noted(file: Path, content: str | bytes) -> None:
        write(file, content)
        written.append(file.name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "write", noted)
        assert main.main([*OPTIONS, f"--workdir={path}"]) == 0
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    with np.load(path / "predictions.npz") as stored:
        predictions = dict(stored)
    summary = json.loads((path / "summary.json").read_text())
    return Run(path, written, summary, rows, predictions)


@pytest.fixture(scope="module")
def digits() -> datasets.Dataset:
    return datasets.load("digits")


def test_the_names_of_the_files(run):
    assert {entry.name for entry in run.path.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "summary.json",
        "predictions.npz",
        "report.html",
        "checkpoints",
        "tensorboard",
    }


def test_the_summary_is_written_last(run):
    assert run.written[0] == "config.json"
    assert run.written[-1] == "summary.json"
    assert run.written.count("metrics.jsonl") >= 6  # after each epoch
    for name in ("predictions.npz", "report.html", "summary.json"):
        assert run.written.count(name) == 1


def test_the_keys_of_the_summary(run):
    assert run.summary.keys() == SUMMARY.keys()
    for key, kind in SUMMARY.items():
        assert isinstance(run.summary[key], kind), key


def test_the_keys_of_the_metrics(run):
    for row in run.history:
        assert list(row) == list(METRICS)
        for key, kind in METRICS.items():
            assert isinstance(row[key], kind), key


def test_the_keys_and_types_of_the_predictions(run):
    assert run.predictions.keys() == {"logits", "labels", "images_index"}
    logits, labels, index = (run.predictions[k] for k in ("logits", "labels", "images_index"))
    assert (logits.dtype, logits.shape) == (np.float32, (360, 10))
    assert (labels.dtype, labels.shape) == (np.int32, (360,))
    assert np.issubdtype(index.dtype, np.integer)


def test_every_test_example_counts_once_in_its_own_order(run, digits):
    np.testing.assert_array_equal(run.predictions["images_index"], np.arange(360))
    np.testing.assert_array_equal(run.predictions["labels"], digits.test_labels)
    assert run.summary["num_test"] == len(digits.test_labels) == 360
    assert np.sum(run.summary["confusion_matrix"]) == 360


def test_the_config_is_that_of_the_run(run):
    config = json.loads((run.path / "config.json").read_text())
    assert config["train"]["epochs"] == 6
    assert config["optim"]["learning_rate"] == 0.3
    assert config["model"]["name"] == run.summary["model"] == "linear"
    assert config["data_fingerprint"] == run.summary["data_fingerprint"]


def test_the_model_and_the_data(run, digits):
    summary = run.summary
    assert summary["dataset"] == summary["requested_dataset"] == "digits"
    assert summary["num_params"] == 7_850
    assert summary["num_val"] == 144  # a tenth, rounded up
    assert summary["num_train"] + summary["num_val"] == len(digits.train_labels) == 1437
    assert summary["data_fingerprint"] == digits.fingerprint
    assert summary["class_names"] == list("0123456789")


def test_the_report_follows_from_the_predictions(run):
    """Computed again with scikit-learn and SciPy."""
    summary, labels = run.summary, run.predictions["labels"]
    logits = run.predictions["logits"].astype(np.float64)
    predicted = logits.argmax(axis=1)
    assert summary["test_errors"] == (predicted != labels).sum()
    assert summary["test_accuracy"] == pytest.approx(1 - summary["test_errors"] / 360)
    assert summary["confusion_matrix"] == confusion_matrix(labels, predicted).tolist()
    loss = -log_softmax(logits, axis=1)[np.arange(360), labels].mean()
    assert summary["test_loss"] == pytest.approx(loss, rel=1e-5)
    top2 = (np.argsort(logits, axis=1)[:, -2:] == labels[:, None]).any(axis=1).mean()
    assert summary["test_top2_accuracy"] == pytest.approx(top2)
    scores = precision_recall_fscore_support(labels, predicted, zero_division=0)
    for name, row, *expected in zip("0123456789", summary["per_class"], *scores, strict=True):
        assert row["name"] == name
        found = [row[key] for key in ("precision", "recall", "f1", "support")]
        assert found == pytest.approx(expected, rel=1e-5)
    confidence = softmax(logits, axis=1).max(axis=1)
    gaps = [
        abs((predicted == labels)[inside].sum() - confidence[inside].sum())
        for low in range(15)
        if (inside := (confidence > low / 15) & (confidence <= (low + 1) / 15)).any()
    ]
    assert summary["ece"] == pytest.approx(sum(gaps) / 360, abs=1e-4)


def test_the_interval_is_wilsons(run):
    """Of one training, on new images."""
    right = 360 - run.summary["test_errors"]
    bounds = binomtest(right, 360).proportion_ci(method="wilson")
    assert run.summary["test_interval"] == pytest.approx({"low": bounds.low, "high": bounds.high})


def test_the_best_epoch_has_the_fewest_validation_errors_and_then_the_lowest_loss(run):
    summary = run.summary
    errors = [round((1 - row["val_accuracy"]) * summary["num_val"]) for row in run.history]
    best = min(run.history, key=lambda row: (errors[row["epoch"] - 1], row["val_loss"]))
    assert summary["best_epoch"] == best["epoch"]
    assert summary["val_accuracy"] == best["val_accuracy"]
    assert len(set(errors)) > 1, "all epochs are equal: choose another learning rate"


def test_the_history_counts_epochs_and_steps_and_adds_up(run):
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4, 5, 6]
    steps_per_epoch = run.history[0]["step"]
    assert [row["step"] for row in run.history] == [steps_per_epoch * n for n in range(1, 7)]
    assert steps_per_epoch == run.summary["num_train"] // 128
    assert [row["learning_rate"] for row in run.history] == pytest.approx([0.3] * 6)
    seconds = sum(row["seconds"] for row in run.history)
    assert run.summary["train_seconds"] == pytest.approx(seconds)
    assert run.summary["seconds_per_epoch"] == pytest.approx(seconds / 6)
    assert run.summary["compile_seconds"] > 0
    for row in run.history:
        examples = row["examples_per_second"] * row["seconds"]
        assert examples == pytest.approx(steps_per_epoch * 128)


def test_the_provenance_of_the_result(run):
    summary = run.summary
    assert summary["versions"] == provenance.versions()
    assert summary["git_revision"] == provenance.git_revision()
    assert summary["device"] == provenance.device()
    assert summary["backend"] == jax.default_backend()
    assert summary["matmul_precision"] == "highest"  # the tests' own, see conftest
    # Linux counts pages on each core apart, and adds what it tells up roughly: a few MB.
    assert 2**26 < summary["peak_rss_bytes"] <= provenance.peak_rss_bytes() + 2**24


def test_the_report_shows_the_result_and_the_command(run):
    page = (run.path / "report.html").read_text()
    assert f"{100 * run.summary['test_accuracy']:.2f}" in page
    assert "--config.optim.learning_rate=0.3" in page
    assert 'role="alert"' not in page


def test_tensorboard_has_every_curve(run):
    (file,) = (run.path / "tensorboard").iterdir()
    assert file.name.startswith("events.out.tfevents.")
    tags = [tag for tag, _, _ in scalars(run.path / "tensorboard")]
    for name in METRICS.keys() - {"epoch", "step"}:
        assert tags.count(name) == 6, name
    assert tags.count("test_accuracy") == 1
    found = [value for _, value in events(run.path / "tensorboard")]
    mistakes = [value for value in found if value.tag.startswith("mistakes/")]
    summary = files.read_json(run.path / files.SUMMARY)
    assert len(mistakes) == min(16, summary["test_errors"])
    histograms = [value for value in found if value.tag.startswith("parameters/")]
    assert sum(value.histo.num for value in histograms) == summary["num_params"]


def test_numpy_and_json_can_read_a_run(run):
    """An analysis need not have JAX or this package."""
    code = """
import json, numpy, pathlib, sys
run = pathlib.Path(sys.argv[1])
summary = json.loads((run / "summary.json").read_text())
stored = numpy.load(run / "predictions.npz", allow_pickle=False)
errors = (stored["logits"].argmax(1) != stored["labels"]).sum()
print(errors == summary["test_errors"], "jax" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(run.path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_run_killed_before_its_summary_publishes_the_same_without_training(run, tmp_path, capsys):
    copy = shutil.copytree(run.path, tmp_path / "copy")
    for name in ("predictions.npz", "report.html", "summary.json"):
        (copy / name).unlink()
    assert main.main([*OPTIONS, f"--workdir={copy}"]) == 0
    _, line, headline = capsys.readouterr().out.splitlines()
    assert line == f"{copy}: is trained already"
    assert headline.startswith("digits: test")
    again = json.loads((copy / "summary.json").read_text())
    of_the_process = ("compile_seconds", "peak_rss_bytes", "date", "name", "directory")
    assert {**again, **{key: run.summary[key] for key in of_the_process}} == run.summary
    for name in ("metrics.jsonl", "predictions.npz"):
        assert (copy / name).read_bytes() == (run.path / name).read_bytes()
