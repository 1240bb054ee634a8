"""Sweeps: what they select and write, and that they resume."""

import itertools
import json
import re
import signal

import jax
import numpy as np
import pytest
from tensorboard_events import scalars
from tiny_runs import ROOT, bits, logits_of, restored, with_pages
from tiny_sweeps import SMALL, parse, rows, run, same_bits, summary

from mnist_jax import main
from mnist_jax.runs import loop
from mnist_jax.runtime import progress, provenance
from mnist_jax.types import UserError
from mnist_jax.workdir import files
from mnist_jax.workdir.writer import Writer

GRID = '--config.sweep.grid={"optim.learning_rate": [0.003, 0.01, 1e-6]}'


@pytest.fixture(scope="module")
@with_pages()
def swept(folder):
    """Three learning rates with three seeds each."""
    config = parse(GRID, "--config.sweep.seeds=3")
    run(config, folder / "swept")
    return folder / "swept"


def test_the_best_setting_by_validation_is_evaluated(swept):
    found, trials = summary(swept), rows(swept)
    assert len(trials) == 9
    means = [
        np.mean([row["val_accuracy"] for row in trials if row["setting"] == i]) for i in range(3)
    ]
    assert found["chosen"] == int(np.argmax(means)) != 2
    for setting, mean in zip(found["settings"], means, strict=True):
        assert setting["val_score"]["mean"] == pytest.approx(mean)
    evaluated = [row for row in trials if "test_accuracy" in row]
    assert {row["setting"] for row in evaluated} == {found["chosen"]}
    accuracies = [row["test_accuracy"] for row in evaluated]
    assert len(accuracies) == 3
    assert found["test_accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["test"]["accuracy"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    with np.load(swept / files.PREDICTIONS) as stored:
        right = (stored["logits"].argmax(-1) == stored["labels"]).mean(1)
    np.testing.assert_allclose(right, accuracies)


def test_the_files_of_a_sweep_agree(swept):
    history = rows(swept, files.METRICS)
    assert len(history) == 9 * 4
    assert {(row["epoch"], row["trial"]) for row in history} == {
        (epoch, trial) for epoch in range(1, 5) for trial in range(9)
    }
    for row in rows(swept):
        own = [r["val_accuracy"] for r in history if r["trial"] == row["trial"]]
        assert row["val_accuracy"] == own[row["best_epoch"] - 1] == max(own)
        assert (row["status"], row["epochs"]) == ("finished", 4)
    page = (swept / files.REPORT).read_text()
    assert "9 trials" in page
    assert "learning_rate 0.003" in page
    assert page.count("<svg") >= 4


def test_each_trial_has_its_curves_in_tensorboard(swept):
    history = rows(swept, files.METRICS)
    for row in rows(swept):
        found = scalars(swept / files.TENSORBOARD / f"trial-{row['trial']}")
        curve = [(epoch, value) for tag, epoch, value in found if tag == "val_accuracy"]
        own = [r for r in history if r["trial"] == row["trial"]]
        assert curve == [(r["epoch"], np.float32(r["val_accuracy"])) for r in own]
        tested = [value for tag, _, value in found if tag == "test_accuracy"]
        expected = [row["test_accuracy"]] if "test_accuracy" in row else []
        assert tested == pytest.approx(expected)


def test_a_finished_run_is_left_alone(swept):
    lines = []
    config = parse(GRID, "--config.sweep.seeds=3")
    before = (swept / files.SUMMARY).stat().st_mtime_ns
    run(config, swept, lines.append)
    assert lines == [f"{swept}: is finished; --overwrite starts it again"]
    assert (swept / files.SUMMARY).stat().st_mtime_ns == before


def test_a_locked_workdir_is_not_touched(swept):
    config = parse(GRID, "--config.sweep.seeds=3")
    before = (swept / files.SUMMARY).stat().st_mtime_ns
    with (
        files.locked(swept),
        pytest.raises(UserError, match=f"^{swept}: another run is using it"),
    ):
        run(config, swept, print)
    assert (swept / files.SUMMARY).stat().st_mtime_ns == before


def stop_after(epoch):
    """Return a log that asks to stop at the line of an epoch."""
    return lambda line: (
        signal.raise_signal(signal.SIGTERM) if line.startswith(f"epoch {epoch}/") else None
    )


def test_a_stopped_sweep_resumes_to_the_same_bits(swept, folder):
    config = parse(GRID, "--config.sweep.seeds=3")
    workdir = folder / "stopped"
    with pytest.raises(progress.Stopped, match="after epoch 2 of 4"):
        run(config, workdir, stop_after(2))
    lines = []
    run(config, workdir, lines.append)
    assert f"{workdir}/checkpoints/0: resumes after epoch 2/4" in lines
    same_bits(workdir, swept)


def test_a_checkpoint_is_written_while_the_next_epoch_is_computed(swept, folder, monkeypatch):
    """Also where programs end at different times, and the next epoch overwrites their arrays."""
    monkeypatch.setattr(loop, "_SAVE_SECONDS", -1.0)  # after every epoch
    events, saved = [], {}
    start_epoch, save = loop.start_epoch, Writer.save

    def started(group, programs, chunks, epoch):
        jobs = start_epoch(group, programs, chunks, epoch)
        events.append(f"start {epoch}")
        return jobs

    def watched(self, epoch, states, rows):
        events.append(f"save {epoch}")
        saved[epoch] = bits(states)
        assert {int(step) for step in states.state.step} == {10 * epoch}
        assert len(rows) == 9 * epoch
        save(self, epoch, states, rows)

    monkeypatch.setattr(loop, "start_epoch", started)
    monkeypatch.setattr(Writer, "save", watched)
    config, workdir = parse(GRID, "--config.sweep.seeds=3"), folder / "saved"
    run(config, workdir)
    later = [(f"start {n}", f"save {n - 1}") for n in (2, 3, 4)]
    assert events == ["start 1", *itertools.chain(*later), "save 4"]
    same_bits(workdir, swept)
    expected = saved.copy()
    with pytest.raises(progress.Stopped):
        run(config, folder / "stopped at 2", stop_after(2))
    assert saved[2] == expected[2] == bits(restored(folder / "stopped at 2").state)


def test_trials_of_other_shapes_are_other_groups(folder):
    config = parse('--config.sweep.grid={"model.widths": [[4], [8]]}', "--config.sweep.seeds=2")
    lines = []
    found = run(config, folder / "shapes", lines.append)
    assert sum("trials of 4 epochs" in line for line in lines) == 2
    assert [row["overrides"]["model.widths"] for row in rows(folder / "shapes")] == [
        [4], [4], [8], [8]
    ]  # fmt: skip
    assert found["test"]["accuracy"]["n"] == 2


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = [*SMALL, "--config.train.epochs=2", "--config.sweep.seeds=3"]
    assert main.main(argv) == 0
    out = capsys.readouterr().out
    last = out.splitlines()[-1]
    assert re.fullmatch(
        r"digits: test accuracy [\d.]+% ± [\d.]+  \(mean ± sd of 3 trials\)  trained in [\d.]+ s  "
        r"report: runs/mlp-digits-s0-[a-z]{4}-3-trials/report.html",
        last,
    ), last
    assert "3 trials: 3 seeds" in out
    assert main.main([*SMALL, '--config.sweep.grid={"optim.lr": [1]}']) == 2
    assert "config.optim.lr: no such key" in capsys.readouterr().err


SMALL_NETS = {
    "linear": [],
    "mlp": [],
    "cnn": ["--config.model.channels=(4,8)", "--config.model.widths=(16,)"],
}


@pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="the same bits are promised on CPU alone"
)
@pytest.mark.parametrize("net", SMALL_NETS)
def test_a_trial_has_the_bits_of_the_plain_run_of_its_seed(
    folder, optimised, monkeypatch, capsys, net
):
    """Through the command line; compiled for speed, and without convolutions two at once."""
    monkeypatch.setattr(provenance, "cores", lambda: 2)
    argv = [f"--config={ROOT}/configs/{net}.py:digits", "--config.train.epochs=2", *SMALL_NETS[net]]
    sweep = folder / f"seeds {net}"
    seeds = ["--config.seed=2", "--config.sweep.seeds=2"]
    assert main.main([*argv, *seeds, f"--workdir={sweep}"]) == 0
    how = "one after the other" if net == "cnn" else "one per core, 2 at once"
    assert f"2 trials of 2 epochs, {how}" in capsys.readouterr().out.splitlines()
    assert [row["seed"] for row in rows(sweep)] == [2, 3]
    for trial, seed in enumerate((2, 3)):
        plain = folder / f"{net} {seed}"
        assert main.main([*argv, f"--config.seed={seed}", f"--workdir={plain}"]) == 0
        np.testing.assert_array_equal(logits_of(sweep)[trial], logits_of(plain))
        own = [row for row in rows(sweep, files.METRICS) if row["trial"] == trial]
        expected = rows(plain, files.METRICS)
        assert own == [{"trial": trial, **row} for row in expected]
        ours, theirs = restored(sweep).state, restored(plain).state
        assert bits(jax.tree.map(lambda x: x[trial : trial + 1], ours)) == bits(theirs)  # noqa: B023
        found = files.read_json(plain / files.SUMMARY)
        for key in ("val_accuracy", "test_accuracy", "test_errors", "best_epoch"):
            assert rows(sweep)[trial][key] == found[key]


def test_presets_and_weights_of_classes_are_swept(folder):
    grid = {"train.augment": ["none", "mild"], "train.class_weights": [None, "balanced", [2] * 10]}
    argv = [f"--config.sweep.grid={json.dumps(grid)}", "--config.train.epochs=1"]
    found = run(parse(*argv), folder / "presets")
    assert found["trials"] == 6
    assert [s["overrides"]["train.augment"] for s in found["settings"]] == ["none"] * 3 + [
        "mild"
    ] * 3
    plain, balanced, equal = (row["val_loss"] for row in rows(folder / "presets")[:3])
    assert equal == pytest.approx(plain, rel=1e-4)
    assert balanced != plain
