"""Runs of all tasks, plain and as sweeps, which select by the score of the task."""

import numpy as np
import pytest
from pages import Page, check_self_contained
from tiny_runs import LINEAR, make_config, train_run, with_pages

from mnist_jax import main
from mnist_jax.cli import commands
from mnist_jax.data import splits
from mnist_jax.report import formats, run_page
from mnist_jax.runs import evaluation
from mnist_jax.workdir import files

pytestmark = pytest.mark.usefixtures("folder")


@with_pages()
def done(tmp_path, **overrides):
    config = make_config({**LINEAR, "optim.learning_rate": 0.01}, **overrides)
    summary = train_run(config, tmp_path / "run", command="python -m mnist_jax.main")
    return summary, tmp_path / "run", Page((tmp_path / "run" / files.REPORT).read_text())


def test_binary(tmp_path):
    summary, workdir, page = done(tmp_path, task__name="binary")
    assert summary["class_names"] == ["not 5", "5"]
    assert summary["test_accuracy"] > 0.93  # always "not 5": 0.9
    assert np.shape(summary["confusion_matrix"]) == (2, 2)
    assert "not 5" in page.text
    _, report = evaluation.evaluate_run(workdir, "test")
    assert report["errors"] == summary["test_errors"]


def test_multilabel(tmp_path):
    summary, workdir, page = done(tmp_path, task__name="multilabel")
    assert [row["name"] for row in summary["per_class"]] == ["large", "odd"]
    with np.load(workdir / files.PREDICTIONS) as stored:
        right = ((stored["logits"] > 0) == (stored["labels"] > 0)).all(axis=1)
    assert summary["test_accuracy"] == pytest.approx(right.mean())
    assert "All labels right" in page.text
    assert "test accuracy" in commands.headline(summary, workdir)


def test_denoise(tmp_path, capsys):
    summary, workdir, page = done(tmp_path, task__name="denoise")
    assert summary["test_accuracy"] is None
    with np.load(workdir / files.PREDICTIONS) as stored:
        restored = np.clip(stored["logits"], 0, 1)
    config, _ = files.read_config(workdir)
    clean = splits.load(config).test.images.reshape(len(restored), -1) / 255
    expected = -10 * np.log10(((restored - clean) ** 2).mean())
    assert summary["test_psnr"] == pytest.approx(expected, rel=1e-4)
    # Grey levels of 0 to 99, uniform.
    noise = -10 * np.log10(np.mean((np.arange(100) / 255) ** 2))
    assert summary["test_noisy_psnr"] == pytest.approx(noise, abs=0.05)
    assert f"test images; {formats.loss(summary['test_noisy_psnr'])} dB before" in page.text
    assert len(page.all("img")) == 2 * 3 * 16  # the first images, and the worst
    assert "PSNR" in commands.headline(summary, workdir)
    assert [row["val_accuracy"] for row in files.read_rows(workdir / files.METRICS)] == [None] * 3
    losses = [row["val_loss"] for row in files.read_rows(workdir / files.METRICS)]
    assert summary["best_epoch"] == 1 + int(np.argmin(losses))
    capsys.readouterr()
    assert main.main(["--mode=evaluate", f"--workdir={workdir}"]) == 0
    (line,) = capsys.readouterr().out.splitlines()  # no table of classes
    assert f"PSNR {summary['test_psnr']:.2f} dB  SSIM {summary['test_ssim']:.4f}" in line
    assert "errors" not in line


def test_denoise_without_noise(tmp_path):
    summary, _, page = done(tmp_path, task__name="denoise", task__noise=1, train__epochs=1)
    assert summary["test_noisy_psnr"] is None
    assert f"; {formats.NOTHING} dB before" in page.text


@pytest.mark.parametrize("task", ["denoise", "multilabel", "one_vs_one"])
@with_pages()
def test_a_convolutional_net_takes_any_task(tmp_path, task):
    net = {"name": "cnn", "channels": (2, 4), "widths": (8,)}
    config = make_config(
        LINEAR, **{f"model__{key}": value for key, value in net.items()},
        task__name=task, train__epochs=2, optim__learning_rate=0.01,
    )  # fmt: skip
    workdir = tmp_path / "run"
    summary = train_run(config, workdir)
    first, last = (row["train_loss"] for row in files.read_rows(workdir / files.METRICS))
    assert last < first
    page = (workdir / files.REPORT).read_text()
    check_self_contained(page)
    assert "cnn" in page
    assert np.isfinite(summary["test_loss"])
    with np.load(workdir / files.PREDICTIONS) as stored:
        outputs = {"denoise": 784, "multilabel": 2, "one_vs_one": 10}[task]
        assert stored["logits"].shape == (360, outputs)


def test_thresholds_of_a_binary_run_are_chosen_on_validation(tmp_path, monkeypatch):
    found, render = [], run_page.render

    def watched(run, *args):
        found.append(run)
        return render(run, *args)

    monkeypatch.setattr(run_page, "render", watched)
    config = make_config(LINEAR, task__name="binary")
    train_run(config, tmp_path / "run")
    train_run(make_config(LINEAR, task__name="binary", data__val_size=0.0), tmp_path / "none")
    with_validation, without = found
    scores, labels = with_validation.held_out
    np.testing.assert_array_equal(labels, splits.load(config).val.labels)
    assert scores.shape == (1, len(labels), 2)
    np.testing.assert_array_equal(scores[..., 0], 0)
    accuracy = files.read_json(tmp_path / "run" / files.SUMMARY)["val_accuracy"]
    assert (scores[0].argmax(-1) == labels).mean() == pytest.approx(accuracy)
    assert with_validation.held_out_name == "on validation"
    assert without.held_out is None


# --- sweeps --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "score", "name"),
    [
        ("multilabel", "macro_f1", "macro f1"),
        ("denoise", "psnr", "psnr"),
        ("binary", "accuracy", "accuracy"),
    ],
)
@with_pages()
def test_sweeps_select_by_the_score_of_the_task(tmp_path, task, score, name):
    config = make_config(LINEAR, task__name=task, sweep__seeds=2)
    config.sweep.grid = {"optim.learning_rate": [1e-6, 0.01]}
    workdir, lines = tmp_path / "run", []
    summary = train_run(config, workdir, log=lines.append)
    assert summary["score"] == score
    trials = files.read_rows(workdir / files.TRIALS)
    history = files.read_rows(workdir / files.METRICS)
    for row in trials:  # its best epoch has the best score
        own = [r[f"val_{score}"] for r in history if r["trial"] == row["trial"]]
        assert row[f"val_{score}"] == own[row["best_epoch"] - 1] == max(own)
    means = [
        np.mean([row[f"val_{score}"] for row in trials if row["setting"] == i]) for i in range(2)
    ]
    found = [setting["val_score"]["mean"] for setting in summary["settings"]]
    assert found == pytest.approx(means)
    assert summary["chosen"] == 1 == int(np.argmax(means))
    assert summary[f"val_{score}"] == pytest.approx(means[1])
    line = next(line for line in lines if line.startswith("best of 2 settings by validation"))
    assert f": {name} " in line
    evaluated = [row[f"test_{score}"] for row in trials if f"test_{score}" in row]
    assert summary["test"][score]["n"] == len(evaluated) == 2
    assert summary[f"test_{score}"] == pytest.approx(np.mean(evaluated))
    Page((workdir / files.REPORT).read_text())
    epochs, report = evaluation.evaluate_run(workdir, "val")
    assert epochs == [row["best_epoch"] for row in trials if row["setting"] == 1]
    assert evaluation.score_of(report, score) == pytest.approx(means[1], rel=1e-3)


@pytest.mark.parametrize("task", ["multilabel", "denoise"])
def test_cross_validation_of_other_tasks(tmp_path, task):
    config = make_config(LINEAR, task__name=task, sweep__folds=2, train__epochs=1)
    summary = train_run(config, tmp_path / "run")
    assert summary["settings"][0]["val_score"]["n"] == 2
    with np.load(tmp_path / "run" / files.OUT_OF_FOLD) as stored:
        assert stored["logits"].shape == (1, 1437, 784 if task == "denoise" else 2)
        assert len(stored["labels"]) == 1437


def test_a_trial_of_another_task_is_the_plain_run(tmp_path):
    config = make_config(LINEAR, task__name="one_vs_one", sweep__seeds=2, sweep__width=1)
    with with_pages():
        together = train_run(config, tmp_path / "both")
    rows = files.read_rows(tmp_path / "both" / files.TRIALS)
    alone = train_run(make_config(LINEAR, task__name="one_vs_one", seed=1), tmp_path / "one")
    assert rows[1]["test_accuracy"] == alone["test_accuracy"]
    assert together["test"]["accuracy"]["n"] == 2
