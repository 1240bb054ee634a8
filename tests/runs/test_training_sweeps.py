"""A run of many members: what it chooses and leaves, and that it goes on."""

import re
import signal

import jax
import numpy as np
import pytest
from tiny_sweeps import SMALL, parse, rows, run, same_bits, summary
from tiny_runs import ROOT, logits_of

from mnist_jax import main
from mnist_jax.cli import flags
from mnist_jax.data import splits
from mnist_jax.runs import groups, run_members
from mnist_jax.runs import loop as plain
from mnist_jax.runtime import progress
from mnist_jax.types import UserError
from mnist_jax.workdir import files

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


def test_members_of_other_shapes_are_other_groups(folder):
    config = parse('--config.members.grid={"model.widths": [[4], [8]]}', "--config.members.seeds=2")
    lines = []
    found = run(config, folder / "shapes", lines.append)
    assert sum("members of 4 epochs" in line for line in lines) == 2
    assert [row["overrides"]["model.widths"] for row in rows(folder / "shapes")] == [
        [4], [4], [8], [8]
    ]  # fmt: skip
    assert found["test"]["accuracy"]["n"] == 2


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


@pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="the same bits are promised on CPU alone"
)
@pytest.mark.parametrize("net", ["mlp", "cnn"])
def test_each_member_has_the_bits_of_a_run_of_its_own(folder, optimised, monkeypatch, net):
    """Compiled for speed, and of an MLP two at a time."""
    monkeypatch.setattr(groups, "cores", lambda: 2)
    argv = [f"--config={ROOT}/configs/{net}.py:digits", "--config.train.epochs=1"]
    if net == "cnn":
        argv += ["--config.model.channels=(4,8)", "--config.model.widths=(16,)"]
    config = flags.parse([*argv, "--config.members.seeds=2"]).config
    examples = splits.load(config)
    lines = []
    run_members.run_members(config, examples, folder / f"both {net}", echo=lines.append)
    how = {"mlp": "one a core, 2 at once", "cnn": "one after the other"}[net]
    assert f"2 members of 1 epochs, {how}" in lines
    together = logits_of(folder / f"both {net}")
    history = rows(folder / f"both {net}", files.METRICS)
    for seed in range(2):
        alone = flags.parse([*argv, f"--config.seed={seed}"]).config
        workdir = folder / f"{net} {seed}"
        plain.run(alone, examples, workdir, echo=lambda line: None)
        np.testing.assert_array_equal(together[seed], logits_of(workdir))
        [row] = rows(workdir, files.METRICS)
        assert {"member": seed, **row}.items() >= history[seed].items()
