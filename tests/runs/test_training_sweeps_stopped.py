"""Members that stop before the others: by their patience, diverged, or refused at the start."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_sweeps import parse, rows, run, summary

from mnist_jax.runs import run_group, run_members
from mnist_jax.types import UserError
from mnist_jax.workdir import files

GRID = '--config.members.grid={"optim.learning_rate": [0.003, 0.01, 1e-6]}'


def test_who_has_no_patience_stops_and_a_finished_group_is_not_trained_again(folder, monkeypatch):
    """As after a kill between the last checkpoint and the summary."""
    workdir = folder / "patient"
    config = parse("--config.members.seeds=2", "--config.members.patience=1")
    config.optim.learning_rate, config.optim.schedule, config.train.epochs = 3.0, "constant", 30
    run(config, workdir)
    unbroken = summary(workdir), rows(workdir)
    assert {row["status"] for row in unbroken[1]} == {"stopped"}
    assert all(row["epochs"] == row["best_epoch"] + 1 < 30 for row in unbroken[1])
    (workdir / files.SUMMARY).unlink()
    monkeypatch.setattr(run_group, "train_epoch", None)
    run(config, workdir)
    assert (summary(workdir), rows(workdir)) == unbroken


def test_one_training_may_have_no_patience_either(folder):
    config = parse("--config.members.patience=1")
    config.optim.learning_rate, config.optim.schedule, config.train.epochs = 3.0, "constant", 30
    run(config, folder / "impatient")
    (row,) = rows(folder / "impatient")
    assert (row["status"], row["epochs"]) == ("stopped", row["best_epoch"] + 1)


def test_of_a_setting_those_who_did_not_diverge_are_judged(folder, monkeypatch):
    train = run_group.run_group

    def lost(*args):
        finished = train(*args)
        course = finished.course._replace(diverged=jnp.array([True, False, False]))
        return finished._replace(course=course)

    monkeypatch.setattr(run_group, "run_group", lost)
    found = run(parse("--config.members.seeds=3"), folder / "two of three")
    assert (found["diverged"], found["committee"]["members"]) == (1, 2)
    first, *others = rows(folder / "two of three")
    assert first["status"] == "diverged"
    assert "test_accuracy" not in first
    with np.load(folder / "two of three" / files.PREDICTIONS) as stored:
        right = (stored["logits"].argmax(-1) == stored["labels"]).mean(1)
    assert [row["test_accuracy"] for row in others] == pytest.approx(right.tolist())


def test_where_a_fold_diverged_there_are_no_scores_out_of_fold(folder, monkeypatch):
    choose = run_members.choice.choose

    def lost(*args):
        found = choose(*args)
        finished, places = found.folds
        course = finished.course._replace(diverged=jnp.array([False, True]))
        return found._replace(folds=(finished._replace(course=course), places))

    monkeypatch.setattr(run_members.choice, "choose", lost)
    lines = []
    run(parse("--config.members.folds=2"), folder / "lost fold", lines.append)
    assert "out_of_fold.npz: left out, for the best setting diverged in a fold" in lines
    assert summary(folder / "lost fold")["folds"] == 2
    assert not (folder / "lost fold" / files.OUT_OF_FOLD).exists()


def test_who_diverges_is_reported_and_left_out(folder):
    grid = '--config.members.grid={"optim.learning_rate": [1e38, 0.1]}'
    argv = [grid, "--config.model.activation=relu", "--config.optim.name=sgd"]
    found = run(parse(*argv, "--config.members.seeds=2"), folder / "diverged")
    assert [row["status"] for row in rows(folder / "diverged")] == ["diverged"] * 2 + [
        "finished"
    ] * 2
    assert (found["diverged"], found["chosen"]) == (2, 1)
    # NaN would decide for the first class, and so be right now and then.
    lost = [row for row in rows(folder / "diverged") if row["setting"] == 0]
    assert [(row["val_loss"], row["val_accuracy"]) for row in lost] == [(None, None)] * 2
    last = [row for row in rows(folder / "diverged", files.METRICS) if row["member"] < 2]
    assert {row["val_accuracy"] for row in last if row["val_loss"] is None} == {None}
    with pytest.raises(
        UserError, match=r"^all members diverged; try a lower config.optim.learning"
    ):
        run(parse(*argv[1:], "--config.optim.learning_rate=1e38", "--config.members.seeds=2"),
            folder / "all")  # fmt: skip


def test_where_all_folds_diverged_there_is_no_last_training(folder):
    config = parse("--config.members.folds=2", "--config.model.activation=relu")
    config.optim.name, config.optim.learning_rate = "sgd", 1e38
    lines = []
    with pytest.raises(UserError, match=r"^all members diverged; try a lower config.optim.lear"):
        run(config, folder / "all folds", lines.append)
    assert not any(line.startswith("trained once more") for line in lines)


def test_who_diverges_on_all_folds_together_is_said_to(folder, monkeypatch):
    train = run_group.run_group

    def lost(config, *args):
        finished = train(config, *args)
        if config.members.folds:
            return finished
        return finished._replace(course=finished.course._replace(diverged=jnp.array([True])))

    monkeypatch.setattr(run_group, "run_group", lost)
    with pytest.raises(UserError, match=r"^the training on all folds together diverged; try a l"):
        run(parse("--config.members.folds=2"), folder / "refit lost")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([GRID, "--config.data.val_size=0"], "settings are chosen by validation"),
        (["--config.members.seeds=2", "--config.members.halving=(2,)"], "there is only one"),
        (["--config.members.halving=(2,)"], "there is only one"),
        (["--config.members.folds=400"], "fewer than one a fold"),
        (["--config.members.folds=2", "--config.members.outer_folds=2"], "there is only one"),
        (
            [GRID, "--config.members.folds=2", "--config.members.outer_folds=400"],
            "folds=400: class 8 has 139 examples",
        ),
        (
            [
                GRID,
                "--config.members.folds=2",
                "--config.members.outer_folds=2",
                "--config.train.batch_size=400",
            ],
            "400 is more than the 359 examples that each member is trained on",
        ),
        (["--config.members.folds=2", "--config.train.batch_size=1000"], "than the 718 examples"),
        (
            ['--config.members.grid={"train.batch_size": [10, 1294]}'],
            "1294 is more than the 1,293 examples that each member is trained on",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(folder, argv, message):
    config = parse(*argv)
    with pytest.raises(UserError, match=message):
        run(config, folder / "refused")
    assert not (folder / "refused").exists()
