"""Evaluation of runs, finished or not, and how the reports of several trials are combined."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_runs import LINEAR, logits_of, make_config, rows, train_run

from mnist_jax import main
from mnist_jax.analysis import metrics
from mnist_jax.data import splits
from mnist_jax.runs import evaluation
from mnist_jax.types import UserError
from mnist_jax.workdir import files

pytestmark = pytest.mark.usefixtures("folder")

HIGH_RATE = {**LINEAR, "train.epochs": 6, "optim.learning_rate": 0.3, "optim.schedule": "constant"}


@pytest.fixture(scope="module")
def plain(folder):
    train_run(make_config(HIGH_RATE), folder / "plain")
    return folder / "plain"


@pytest.fixture(scope="module")
def sweep(folder):
    """Two settings with three seeds each, the second one chosen; in a folder with brackets."""
    grid = {"optim.learning_rate": [1e-6, 0.01]}
    config = make_config(LINEAR, sweep__seeds=3)
    config.sweep.grid = grid
    found = train_run(config, folder / "sweep [2026]")
    assert found["chosen"] == 1
    return folder / "sweep [2026]"


def test_a_finished_run_is_evaluated_as_in_its_summary(plain):
    summary = files.read_json(plain / files.SUMMARY)
    epochs, report = evaluation.evaluate_run(plain, "test")
    assert epochs == [summary["best_epoch"]]
    assert report["errors"] == summary["test_errors"]
    assert report["confusion_matrix"] == summary["confusion_matrix"]
    ((epoch,), report) = evaluation.evaluate_run(plain, "val")
    row = rows(plain)[epoch - 1]
    assert report["accuracy"] == pytest.approx(row["val_accuracy"])
    assert report["loss"] == pytest.approx(row["val_loss"])
    _, report = evaluation.evaluate_run(plain, "train")
    assert sum(row["support"] for row in report["per_class"]) == 1293


def test_a_finished_sweep_is_evaluated_by_the_trials_of_its_chosen_setting(sweep):
    summary, trials = files.read_json(sweep / files.SUMMARY), files.read_rows(sweep / files.TRIALS)
    chosen = [row for row in trials if row["setting"] == 1]
    epochs, report = evaluation.evaluate_run(sweep, "test")
    assert epochs == [row["best_epoch"] for row in chosen]
    assert report["accuracies"] == pytest.approx([row["test_accuracy"] for row in chosen])
    assert report["accuracy"] == pytest.approx(summary["test_accuracy"])
    assert report["errors"] == pytest.approx(summary["test_errors"])
    assert report["confusion_matrix"] == summary["confusion_matrix"]
    _, report = evaluation.evaluate_run(sweep, "val")
    assert report["accuracies"] == pytest.approx([row["val_accuracy"] for row in chosen])


def test_a_sweep_with_folds_is_evaluated_by_its_last_training(folder):
    workdir = folder / "folds"
    summary = train_run(make_config(LINEAR, sweep__folds=2, sweep__seeds=2), workdir)
    epochs, report = evaluation.evaluate_run(workdir, "test")
    assert epochs == [3, 3]
    assert report["accuracy"] == pytest.approx(summary["test_accuracy"])
    right = (logits_of(workdir).argmax(-1) == splits.load(make_config(LINEAR)).test.labels).mean(1)
    assert report["accuracies"] == pytest.approx(right.tolist())
    with pytest.raises(UserError, match=r"has no val examples \(cross-validation\)$"):
        evaluation.evaluate_run(workdir, "val")


def test_a_plain_run_that_is_training_is_evaluated_by_its_best_epoch_so_far(folder, plain):
    """Each epoch's line is logged before its checkpoint is written: the last one is complete."""
    workdir, found = folder / "training", []

    def log(line):
        if line.startswith("epoch 5/"):
            found.append(evaluation.evaluate_run(workdir, "val"))

    train_run(make_config(HIGH_RATE), workdir, log=log)
    ((epochs, report),) = found
    order = [(-row["val_accuracy"], row["val_loss"]) for row in rows(workdir)]
    # The checkpoint of epoch 4 may still be incomplete.
    assert epochs[0] in {1 + order.index(min(order[:count])) for count in (3, 4)}
    assert report["accuracy"] == pytest.approx(rows(workdir)[epochs[0] - 1]["val_accuracy"])
    assert rows(workdir) == rows(plain)  # training was not disturbed


def test_a_sweep_that_is_training_is_refused(folder):
    config, found = make_config(LINEAR, sweep__seeds=2), []

    def log(line):
        if line.startswith("epoch 2/"):
            with pytest.raises(UserError, match="is not finished") as error:
                evaluation.evaluate_run(folder / "unfinished", "test")
            found.append(str(error.value))

    train_run(config, folder / "unfinished", log=log)
    assert len(found) == 1


def test_the_command_evaluates_a_sweep(sweep, capsys):
    assert main.main(["--mode=evaluate", f"--workdir={sweep}"]) == 0
    out = capsys.readouterr().out.splitlines()
    accuracy = files.read_json(sweep / files.SUMMARY)["test_accuracy"]
    assert out[0].startswith(
        f"{sweep}: mean of 3 trials on the test split of digits: accuracy {accuracy:.2%}  errors "
    )
    assert out[2].split() == ["class", "precision", "recall", "f1", "support"]
    assert len(out) == 3 + 10 + 2


def test_runs_that_cannot_be_evaluated(tmp_path):
    with pytest.raises(UserError, match=f"^{tmp_path}: there is no run"):
        evaluation.evaluate_run(tmp_path, "test")
    config = make_config(LINEAR, data__val_size=0.0, train__epochs=1)
    workdir = tmp_path / "run"
    workdir.mkdir()
    files.prepare(workdir, config.to_dict(), "other", overwrite=False)
    with pytest.raises(UserError, match=f"^{workdir}: was trained on other data than the digits"):
        evaluation.evaluate_run(workdir, "test")
    fingerprint = splits.load(config).fingerprint
    files.prepare(workdir, config.to_dict(), fingerprint, overwrite=True)
    with pytest.raises(UserError, match=f"^{workdir}: has no checkpoint yet"):
        evaluation.evaluate_run(workdir, "test")
    with pytest.raises(UserError, match=f"^{workdir}: has no val examples"):
        evaluation.evaluate_run(workdir, "val")


# --- reports of several trials -------------------------------------------------------------------


@pytest.fixture(scope="module")
def several():
    """Logits of three trials, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 300).astype(np.int32)
    logits = 3 * np.eye(5)[labels] + 3 * rng.normal(size=(3, 300, 5))
    return logits.astype(np.float32), labels


def test_pooled_diagrams_are_those_of_all_predictions(several):
    logits, labels = several

    def diagram(logits, labels):
        report = metrics.classification(jnp.asarray(logits), jnp.asarray(labels))
        return metrics.to_python(report, list("abcde"))["reliability"]

    pooled = evaluation.pool([diagram(one, labels) for one in logits])
    whole = diagram(logits.reshape(-1, 5), np.tile(labels, 3))
    assert len(pooled) == len(whole) == 15
    for ours, theirs in zip(pooled, whole, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_combined_reports_have_means_and_summed_matrices(several):
    logits, labels = several
    reports = [
        metrics.to_python(
            metrics.classification(jnp.asarray(one), jnp.asarray(labels)), list("abcde")
        )
        for one in logits
    ]
    combined = evaluation.combine(reports)
    for key in ("loss", "accuracy", "errors", "top2_accuracy", "ece"):
        assert combined[key] == pytest.approx(np.mean([report[key] for report in reports]))
    assert np.sum(combined["confusion_matrix"]) == 3 * 300
    rows = [report["per_class"][4] for report in reports]
    assert combined["per_class"][4]["name"] == "e"
    assert combined["per_class"][4]["f1"] == pytest.approx(np.mean([row["f1"] for row in rows]))
    assert combined["macro"]["f1"] == pytest.approx(
        np.mean([report["macro"]["f1"] for report in reports])
    )
    assert evaluation.combine(reports[:1]) == reports[0]
    without = evaluation.combine([{"psnr": 20.0, "ssim": None}, {"psnr": 22.0, "ssim": 0.5}])
    assert without == {"psnr": 21.0, "ssim": None}
