"""Runs whose task is another than telling classes apart: what they leave, and what they refuse."""

import numpy as np
import pytest
from pages import Page, check_self_contained
from tiny_runs import LINEAR, make_config, train_run

from mnist_jax import main
from mnist_jax.cli import commands
from mnist_jax.data import splits
from mnist_jax.report import formats
from mnist_jax.runs import loop, run_members
from mnist_jax.types import UserError
from mnist_jax.workdir import files


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
    _, judged = loop.evaluate_run(workdir, "test")
    assert judged["errors"] == summary["test_errors"]


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
    # Whole grey levels of 0 to 99, each alike.
    noise = -10 * np.log10(np.mean((np.arange(100) / 255) ** 2))
    assert summary["test_noisy_psnr"] == pytest.approx(noise, abs=0.05)
    assert f"test images; {formats.loss(summary['test_noisy_psnr'])} dB before" in page.text
    assert len(page.all("img")) == 3 * 16
    assert "PSNR" in commands.headline(summary, workdir)
    assert [row["val_accuracy"] for row in files.read_rows(workdir / files.METRICS)] == [None] * 3
    losses = [row["val_loss"] for row in files.read_rows(workdir / files.METRICS)]
    assert summary["best_epoch"] == 1 + int(np.argmin(losses))
    capsys.readouterr()
    assert main.main(["--mode=evaluate", f"--workdir={workdir}"]) == 0
    (told,) = capsys.readouterr().out.splitlines()  # no table of classes
    assert f"PSNR {summary['test_psnr']:.2f} dB  SSIM {summary['test_ssim']:.4f}" in told
    assert "errors" not in told


def test_noise_that_is_none(tmp_path):
    summary, _, page = done(tmp_path, task__name="denoise", task__noise=1, train__epochs=1)
    assert summary["test_noisy_psnr"] is None
    assert f"; {formats.NOTHING} dB before" in page.text


@pytest.mark.parametrize("task", ["denoise", "multilabel", "one_vs_one"])
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


def test_members_are_of_classifiers(tmp_path):
    config = make_config(LINEAR, task__name="denoise", members__seeds=2)
    with pytest.raises(UserError, match="compares accuracies, which 'denoise' does not have"):
        run_members.run_members(config, splits.load(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_members_of_another_task_are_as_they_would_be_alone(tmp_path):
    config = make_config(LINEAR, task__name="one_vs_one", members__seeds=2, members__width=1)
    together = run_members.run_members(
        config, splits.load(config), tmp_path / "both", echo=lambda line: None
    )
    rows = files.read_rows(tmp_path / "both" / files.MEMBERS)
    config.members.seeds, config.seed = 1, 1
    # The split is by the config's own seed, so that both members have that of seed 0.
    examples = splits.load(make_config(LINEAR))
    alone = loop.run(config, examples, tmp_path / "one", echo=lambda line: None)
    assert rows[1]["test_accuracy"] == alone["test_accuracy"]
    assert together["test"]["accuracy"]["n"] == 2
