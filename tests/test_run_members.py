"""A run of many members: what it chooses and leaves, and that it goes on."""

import json
import re
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_members import SMALL, parse, rows, run, same_bits, summary

from mnist_jax import main, progress, run_group, run_members, splits
from mnist_jax import workdir as files
from mnist_jax.types import UserError

GRID = '--config.members.grid={"optim.learning_rate": [0.003, 0.01, 1e-6]}'


@pytest.fixture(scope="module")
def swept(folder):
    """Three rates, three seeds."""
    config = parse(GRID, "--config.members.seeds=3")
    run(config, folder / "swept")
    return folder / "swept"


def test_the_best_setting_by_validation_is_judged(swept):
    found, members = summary(swept), rows(swept)
    assert len(members) == 9
    means = [
        np.mean([row["val_accuracy"] for row in members if row["setting"] == i]) for i in range(3)
    ]
    assert found["chosen"] == int(np.argmax(means)) != 2
    for setting, mean in zip(found["settings"], means, strict=True):
        assert setting["val_accuracy"]["mean"] == pytest.approx(mean)
    judged = [row for row in members if "test_accuracy" in row]
    assert {row["setting"] for row in judged} == {found["chosen"]}
    accuracies = [row["test_accuracy"] for row in judged]
    assert len(accuracies) == 3
    assert found["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["test"]["accuracy"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    with np.load(swept / files.PREDICTIONS) as stored:
        right = (stored["logits"].argmax(-1) == stored["labels"]).mean(1)
    np.testing.assert_allclose(right, accuracies)


def test_what_it_leaves(swept):
    history = rows(swept, files.METRICS)
    assert len(history) == 9 * 4
    assert {(row["epoch"], row["member"]) for row in history} == {
        (epoch, member) for epoch in range(1, 5) for member in range(9)
    }
    for row in rows(swept):
        own = [r["val_accuracy"] for r in history if r["member"] == row["member"]]
        assert row["val_accuracy"] == own[row["best_epoch"] - 1] == max(own)
        assert (row["status"], row["epochs"]) == ("finished", 4)
    page = (swept / files.REPORT).read_text()
    assert "9 members" in page
    assert "learning_rate 0.003" in page
    assert page.count("<svg") >= 4


def test_a_finished_run_is_left_alone(swept):
    lines = []
    config = parse(GRID, "--config.members.seeds=3")
    before = (swept / files.SUMMARY).stat().st_mtime_ns
    run(config, swept, lines.append)
    assert lines == [f"{swept}: is finished; --overwrite starts it anew"]
    assert (swept / files.SUMMARY).stat().st_mtime_ns == before


def test_where_another_is_at_work_nothing_is_touched(swept):
    config = parse(GRID, "--config.members.seeds=3")
    before = (swept / files.SUMMARY).stat().st_mtime_ns
    with (
        files.locked(swept),
        pytest.raises(UserError, match=f"^{swept}: another run is at work there"),
    ):
        run(config, swept, print)
    assert (swept / files.SUMMARY).stat().st_mtime_ns == before


def test_stopped_it_goes_on_to_the_same_bits(swept, folder):
    config = parse(GRID, "--config.members.seeds=3")
    workdir, asked = folder / "stopped", []

    def echo(line):
        if line.startswith("epoch 2/") and not asked:
            asked.append(line)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(progress.Stopped, match="after epoch 2 of 4"):
        run(config, workdir, echo)
    lines = []
    run(config, workdir, lines.append)
    assert f"{workdir}/checkpoints/0: goes on after epoch 2 of 4" in lines
    same_bits(workdir, swept)


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
    from mnist_jax import run as plain

    alone = parse("--config.data.val_size=0", f"--config.optim.b1={[0.9, 0.1][found['chosen']]}")
    expected = plain.run(alone, splits.load(alone), folder / "alone", echo=lambda line: None)
    assert found["test_accuracy"] == pytest.approx(expected["test_accuracy"], abs=0.01)


def test_members_of_other_shapes_are_other_groups(folder):
    config = parse('--config.members.grid={"model.widths": [[4], [8]]}', "--config.members.seeds=2")
    lines = []
    found = run(config, folder / "shapes", lines.append)
    assert sum("members of 4 epochs" in line for line in lines) == 2
    assert [row["overrides"]["model.widths"] for row in rows(folder / "shapes")] == [
        [4], [4], [8], [8]
    ]  # fmt: skip
    assert found["test"]["accuracy"]["n"] == 2


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
    run(config, folder / "halved shapes")
    return config, folder / "halved shapes"


def test_halving_compares_settings_of_all_shapes(shapes):
    _, workdir = shapes
    found = [(row["status"], row["epochs"]) for row in rows(workdir)]
    assert found == [("dropped", 1), ("dropped", 1), ("finished", 4), ("finished", 4)]
    assert summary(workdir)["chosen"] in (2, 3)


def test_halving_goes_on_to_the_same_bits(shapes, folder):
    """Stopped between the groups, where a signal is not forgotten, and after halving."""
    config, unbroken = shapes
    workdir = folder / "halved and stopped"
    for epoch in (1, 2):

        def echo(line, epoch=epoch):
            if line.startswith(f"epoch {epoch}/"):
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(progress.Stopped, match=f"after epoch {epoch} of 4"):
            run(config, workdir, echo)
    run(config, workdir)
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


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = [*SMALL, "--config.train.epochs=2", "--config.members.seeds=3"]
    assert main.main(argv) == 0
    out = capsys.readouterr().out
    last = out.splitlines()[-1]
    assert re.fullmatch(
        r"digits: test accuracy [\d.]+% ± [\d.]+  \(mean ± sd of 3 members\)  trained in [\d.]+ s  "
        r"report: runs/mlp-digits-s0-widths-8-activation-tanh-epochs-2-3-members/report.html",
        last,
    ), last
    assert "3 members: 3 seeds" in out
    assert (
        main.main(
            [
                "--mode=evaluate",
                "--workdir=runs/mlp-digits-s0-widths-8-activation-tanh-epochs-2-3-members",
            ]
        )
        == 2
    )
    assert "is a run of many members" in capsys.readouterr().err
    assert main.main([*SMALL, '--config.members.grid={"optim.lr": [1]}']) == 2
    assert "config.optim.lr: no such key" in capsys.readouterr().err
