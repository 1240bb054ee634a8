"""Which members go on and who is judged: halving, cross-validation, nested and not."""

import itertools
import json
import signal

import numpy as np
import pytest
from tiny_sweeps import parse, rows, run, same_bits, summary

from mnist_jax.analysis import thresholds
from mnist_jax.data import splits
from mnist_jax.report import formats
from mnist_jax.runs import run_group, run_members
from mnist_jax.runtime import progress
from mnist_jax.workdir import files


def test_cross_validation_is_followed_by_one_training_on_everything(folder):
    config = parse("--config.members.folds=3", '--config.members.grid={"optim.b1": [0.9, 0.1]}')
    found = run(config, folder / "folds")
    members, examples = rows(folder / "folds"), splits.load(config)
    assert len(examples.val.labels) == 0
    assert [(row["setting"], row["fold"]) for row in members] == [
        (setting, fold) for setting in range(2) for fold in range(3)
    ]
    assert all(row["best_epoch"] == row["epochs"] == 4 for row in members)
    assert not any("test_accuracy" in row for row in members)
    assert found["test"]["accuracy"]["n"] == 1
    assert found["committee"] is None
    # That training is the plain run without validation.
    from mnist_jax.runs import loop as plain

    alone = parse("--config.data.val_size=0", f"--config.optim.b1={[0.9, 0.1][found['chosen']]}")
    expected = plain.run(alone, splits.load(alone), folder / "alone", echo=lambda line: None)
    assert found["test_accuracy"] == pytest.approx(expected["test_accuracy"], abs=0.01)


def test_halving_drops_the_worse_half_of_the_settings(folder):
    grid = '--config.members.grid={"optim.learning_rate": [1e-6, 0.003, 1e-5, 0.01]}'
    config = parse(grid, "--config.members.seeds=2", "--config.members.halving=(1,3)")
    lines = []
    found = run(config, folder / "halved", lines.append)
    epochs = [row["epochs"] for row in rows(folder / "halved")]
    assert sorted(epochs) == [1, 1, 1, 1, 3, 3, 4, 4]
    assert epochs[0] == epochs[4] == 1
    chosen = found["chosen"]
    assert epochs[2 * chosen] == 4
    assert {row["status"] for row in rows(folder / "halved")} == {"dropped", "finished"}
    assert lines.count("halving after epoch 1: 2 dropped") == 1
    assert lines.count("halving after epoch 3: 1 dropped") == 1


BOTH_BETTER = json.dumps(  # of four units than of eight
    [
        {"model.widths": [widths], "optim.learning_rate": rate}
        for widths, rates in ((8, (1e-6, 1e-5)), (4, (0.003, 0.01)))
        for rate in rates
    ]
)


@pytest.fixture(scope="module")
def shapes(folder):
    """Two groups, the worse two settings in the first one."""
    config = parse(f"--config.members.settings={BOTH_BETTER}", "--config.members.halving=(1,)")
    lines = []
    run(config, folder / "halved shapes", lines.append)
    return config, folder / "halved shapes", lines


def test_halving_compares_settings_of_all_shapes(shapes):
    _, workdir, lines = shapes
    found = [(row["status"], row["epochs"]) for row in rows(workdir)]
    assert found == [("dropped", 1), ("dropped", 1), ("finished", 4), ("finished", 4)]
    assert summary(workdir)["chosen"] in (2, 3)
    assert f"{workdir}/checkpoints/0: all its settings are dropped" in lines
    assert not any(line.endswith("trained already") for line in lines)


def stop_after(epoch, config, workdir):
    def echo(line):
        if line.startswith(f"epoch {epoch}/"):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(progress.Stopped, match=f"after epoch {epoch} of 4"):
        run(config, workdir, echo)


def test_halving_goes_on_to_the_same_bits(shapes, folder):
    """Stopped between the groups, where a signal is not forgotten, and after halving."""
    config, unbroken, _ = shapes
    workdir = folder / "halved and stopped"
    for epoch in (1, 2):
        stop_after(epoch, config, workdir)
    run(config, workdir)
    same_bits(workdir, unbroken)


def test_halving_narrows_programs_and_goes_on_to_the_same_bits(folder, monkeypatch):
    compiled, widths = run_group.compile_epoch, []
    monkeypatch.setattr(
        run_group,
        "compile_epoch",
        lambda group, course: widths.append(group.plan.width) or compiled(group, course),
    )
    grid = '--config.members.grid={"optim.learning_rate": [1e-5, 0.003, 1e-6, 0.01]}'
    config = parse(grid, "--config.members.halving=(1,3)", "--config.members.width=4")
    unbroken, workdir = folder / "narrower", folder / "narrower and stopped"
    run(config, unbroken)
    assert widths == [4, 2, 1]
    for epoch in (2, 3):
        stop_after(epoch, config, workdir)
    widths.clear()
    run(config, workdir)
    assert widths == [1]
    same_bits(workdir, unbroken)


NESTED = ["--config.members.folds=2", "--config.members.outer_folds=2", "--config.train.epochs=2"]
NESTED += ['--config.members.grid={"optim.learning_rate": [1e-6, 0.01]}']


@pytest.fixture(scope="module")
def nested(folder):
    config, lines = parse(*NESTED), []
    run(config, folder / "nested", lines.append)
    return config, folder / "nested", lines


def test_an_outer_fold_judges_what_a_run_without_it_chooses(nested, folder):
    config, workdir, lines = nested
    found = summary(workdir)["nested"]
    assert [row["held_out"] for row in found["folds"]] == [719, 718]
    assert found["accuracy"]["mean"] == pytest.approx(
        np.mean([row["accuracy"] for row in found["folds"]])
    )
    assert sum(line.startswith("outer fold 2 of 2: ") for line in lines) == 2
    # What a run does whose training examples are the others and whose test split is the fold.
    _, last = splits.outer_folds(splits.load(config), 2, config.seed)
    plain = parse(*NESTED, "--config.members.outer_folds=0")
    expected = run_members.run_members(plain, last, folder / "a fold", echo=lambda line: None)
    row = found["folds"][1]
    assert (row["setting"], row["accuracy"]) == (expected["chosen"], expected["test_accuracy"])
    assert "Nested cross-validation" in (workdir / files.REPORT).read_text()
    assert expected["nested"] is None
    assert "Nested" not in (folder / "a fold" / files.REPORT).read_text()


def test_outer_folds_are_checked_one_at_a_time(monkeypatch):
    """Each has a copy of the images."""
    config, events = parse(*NESTED), []
    outer_folds, plan = splits.outer_folds, run_members.groups.plan

    def folds(*args):
        for part in outer_folds(*args):
            events.append("made")
            yield part

    monkeypatch.setattr(run_members.data_splits, "outer_folds", folds)
    monkeypatch.setattr(
        run_members.groups, "plan", lambda *args: events.append("planned") or plan(*args)
    )
    run_members._check(config, splits.load(config), run_members.sweep.expand(config))
    assert [event for event, _ in itertools.groupby(events)] == ["planned", "made"] * 2 + [
        "planned"
    ]


def test_nested_cross_validation_goes_on_to_the_same_bits(nested, folder):
    config, unbroken, _ = nested
    workdir, said = folder / "nested stopped", []

    def echo(line):
        said.append(line)
        if line.startswith("epoch 1/") and any(one.startswith("outer fold 2") for one in said):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(progress.Stopped, match="after epoch 1 of 2"):
        run(config, workdir, echo)
    said.clear()
    run(config, workdir, said.append)
    assert f"{workdir}/checkpoints/outer-1/0: goes on after epoch 1 of 2" in said
    outer = f"{workdir}/checkpoints/outer-0"
    told = [line for line in said if "outer-0" in line]
    assert told == [f"{outer}/0: trained already", f"{outer}/refit: trained already"]
    same_bits(workdir, unbroken)


def test_two_classes_have_thresholds_chosen_out_of_fold(folder):
    folds = ["--config.members.folds=3", "--config.members.seeds=2"]
    run(parse(*folds, "--config.task.name=binary"), folder / "binary")
    with np.load(folder / "binary" / files.OUT_OF_FOLD) as stored:
        scores, labels = stored["logits"].astype(np.float64), stored["labels"]
    chosen = thresholds.at_recall(np.diff(scores)[..., 0].ravel(), np.tile(labels, 2), 0.9)
    share = formats.percent(1 / (1 + np.exp(-chosen)))
    page = (folder / "binary" / files.REPORT).read_text()
    assert f'<th scope="row">90% recall out of fold</th><td>{share}</td>' in page
    assert "by each of 2 trainings" in page
