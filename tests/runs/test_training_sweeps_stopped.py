"""Trials that stop early, diverge, or are refused at the start."""

import numpy as np
import pytest
from tiny_sweeps import parse, rows, run, summary

from mnist_jax.runs import loop, select
from mnist_jax.types import UserError
from mnist_jax.workdir import files

GRID = '--config.sweep.grid={"optim.learning_rate": [0.003, 0.01, 1e-6]}'


def test_patience_stops_trials_and_a_finished_group_is_not_trained_again(folder, monkeypatch):
    """As after a kill between the last checkpoint and the summary."""
    workdir = folder / "patient"
    config = parse("--config.sweep.seeds=2", "--config.train.patience=1")
    config.optim.learning_rate, config.optim.schedule, config.train.epochs = 3.0, "constant", 30
    run(config, workdir)
    unbroken = summary(workdir), rows(workdir)
    assert {row["status"] for row in unbroken[1]} == {"stopped"}
    assert all(row["epochs"] == row["best_epoch"] + 1 < 30 for row in unbroken[1])
    (workdir / files.SUMMARY).unlink()
    monkeypatch.setattr(loop, "start_epoch", None)
    run(config, workdir)
    assert (summary(workdir), rows(workdir)) == unbroken


def test_patience_stops_a_plain_run(folder):
    config = parse("--config.train.patience=1")
    config.optim.learning_rate, config.optim.schedule, config.train.epochs = 3.0, "constant", 30
    lines = []
    found = run(config, folder / "impatient", lines.append)
    epochs = [row["epoch"] for row in rows(folder / "impatient", files.METRICS)]
    assert epochs == [*range(1, found["best_epoch"] + 2)]
    assert len(epochs) < 30
    assert lines[-1] == f"stopped early after epoch {len(epochs)}/30: config.train.patience=1"
    (folder / "impatient" / files.SUMMARY).unlink()
    lines = []
    again = run(config, folder / "impatient", lines.append)
    assert lines[1:] == [f"{folder}/impatient: is trained already"]
    assert again["test_accuracy"] == found["test_accuracy"]


def test_the_trials_of_a_setting_that_did_not_diverge_are_evaluated(folder, monkeypatch):
    train = loop.train_group

    def lost(*args):
        finished = train(*args)
        states = finished.states._replace(diverged=np.array([True, False, False]))
        return finished._replace(states=states)

    monkeypatch.setattr(loop, "train_group", lost)
    found = run(parse("--config.sweep.seeds=3"), folder / "two of three")
    assert (found["diverged"], found["ensemble"]["trials"]) == (1, 2)
    first, *others = rows(folder / "two of three")
    assert first["status"] == "diverged"
    assert "test_accuracy" not in first
    with np.load(folder / "two of three" / files.PREDICTIONS) as stored:
        right = (stored["logits"].argmax(-1) == stored["labels"]).mean(1)
    assert [row["test_accuracy"] for row in others] == pytest.approx(right.tolist())


def test_without_scores_out_of_fold_if_a_fold_diverged(folder, monkeypatch):
    choose = select.choose

    def lost(*args, **kwargs):
        found = choose(*args, **kwargs)
        finished, places = found.folds
        states = finished.states._replace(diverged=np.array([False, True]))
        return found._replace(folds=(finished._replace(states=states), places))

    monkeypatch.setattr(select, "choose", lost)
    lines = []
    run(parse("--config.sweep.folds=2"), folder / "lost fold", lines.append)
    assert "out_of_fold.npz: left out, because the chosen setting diverged in a fold" in lines
    assert summary(folder / "lost fold")["folds"] == 2
    assert not (folder / "lost fold" / files.OUT_OF_FOLD).exists()


def test_diverged_trials_are_reported_and_left_out(folder):
    grid = '--config.sweep.grid={"optim.learning_rate": [1e38, 0.1]}'
    argv = [grid, "--config.model.activation=relu", "--config.optim.name=sgd"]
    found = run(parse(*argv, "--config.sweep.seeds=2"), folder / "diverged")
    assert [row["status"] for row in rows(folder / "diverged")] == ["diverged"] * 2 + [
        "finished"
    ] * 2
    assert (found["diverged"], found["chosen"]) == (2, 1)
    # NaN decides for the first class, which is sometimes right.
    lost = [row for row in rows(folder / "diverged") if row["setting"] == 0]
    assert [(row["val_loss"], row["val_accuracy"]) for row in lost] == [(None, None)] * 2
    last = [row for row in rows(folder / "diverged", files.METRICS) if row["trial"] < 2]
    assert {row["val_accuracy"] for row in last if row["val_loss"] is None} == {None}
    with pytest.raises(UserError, match=r"^all trials diverged; try a lower config.optim.learning"):
        run(parse(*argv[1:], "--config.optim.learning_rate=1e38", "--config.sweep.seeds=2"),
            folder / "all")  # fmt: skip


def test_without_a_last_training_if_all_folds_diverged(folder):
    config = parse("--config.sweep.folds=2", "--config.model.activation=relu")
    config.optim.name, config.optim.learning_rate = "sgd", 1e38
    lines = []
    with pytest.raises(UserError, match=r"^all trials diverged; try a lower config.optim.lear"):
        run(config, folder / "all folds", lines.append)
    assert not any(line.startswith("training on all folds together") for line in lines)


def test_a_diverged_training_on_all_folds_is_reported(folder, monkeypatch):
    train = loop.train_group

    def lost(group, *args):
        finished = train(group, *args)
        if group.data.folds is not None:
            return finished
        return finished._replace(states=finished.states._replace(diverged=np.array([True])))

    monkeypatch.setattr(loop, "train_group", lost)
    with pytest.raises(UserError, match=r"^the training on all folds together diverged; try a l"):
        run(parse("--config.sweep.folds=2"), folder / "refit lost")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([GRID, "--config.data.val_size=0"], "settings are chosen by validation"),
        (["--config.sweep.seeds=2", "--config.sweep.halving=(2,)"], "there is only one"),
        (["--config.sweep.halving=(2,)"], "there is only one"),
        (["--config.sweep.folds=400"], "fewer than one a fold"),
        (["--config.sweep.folds=2", "--config.sweep.outer_folds=2"], "there is only one"),
        (
            [GRID, "--config.sweep.folds=2", "--config.sweep.outer_folds=400"],
            "folds=400: class 8 has 139 examples",
        ),
        (
            [
                GRID,
                "--config.sweep.folds=2",
                "--config.sweep.outer_folds=2",
                "--config.train.batch_size=400",
            ],
            "400 is more than the 359 examples that each trial is trained on",
        ),
        (["--config.sweep.folds=2", "--config.train.batch_size=1000"], "than the 718 examples"),
        (
            ['--config.sweep.grid={"train.batch_size": [10, 1294]}'],
            "1294 is more than the 1,293 examples that each trial is trained on",
        ),
    ],
)
def test_impossible_sweeps_are_refused_and_write_nothing(folder, argv, message):
    config = parse(*argv)
    with pytest.raises(UserError, match=message):
        run(config, folder / "refused")
    assert not (folder / "refused").exists()
