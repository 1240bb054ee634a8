"""Runs that are trained longer, and runs that start from another one."""

import json
import re
import shutil
from datetime import UTC, datetime

import jax
import numpy as np
import pytest
from shell import content
from tiny_runs import LINEAR, bits, is_whole_and_the_same, make_config, restored, train_run

from mnist_jax.runs import restore
from mnist_jax.types import UserError
from mnist_jax.workdir import files

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture(scope="module")
def short(folder):
    """A finished run of three epochs."""
    train_run(make_config(LINEAR), folder / "short")
    return folder / "short"


def best_params(workdir):
    states = restored(workdir).state
    return jax.tree.map(lambda x: x[0], states.best["params"])


# --- more epochs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "step", "plateau"])
def test_a_finished_run_is_trained_longer_to_the_same_bits(folder, schedule):
    options = {**LINEAR, "optim.schedule": schedule}
    if schedule != "constant":
        options["optim.decay_epochs"] = 2
    workdir, unbroken, lines = folder / f"{schedule} longer", folder / f"{schedule} at once", []
    train_run(make_config(options), workdir)
    train_run(make_config(options, train__epochs=5), workdir, log=lines.append)
    assert f"{workdir}: resumes after epoch 3/5" in lines
    assert len(files.read_rows(workdir / files.METRICS)) == 5
    train_run(make_config(options, train__epochs=5), unbroken)
    is_whole_and_the_same(workdir, unbroken)
    # The next start finds a finished run of five epochs.
    lines.clear()
    train_run(make_config(options, train__epochs=5), workdir, log=lines.append)
    assert lines == [f"{workdir}: is finished; --overwrite starts it again"]


def test_a_sweep_is_trained_longer(folder):
    config = {**LINEAR, "sweep.seeds": 2, "sweep.folds": 2}
    summaries = []
    for name, epochs in (("sweep longer", (2, 3)), ("sweep at once", (3,))):
        for count in epochs:
            summary = train_run(make_config(config, train__epochs=count), folder / name)
        summaries.append(summary)
    assert summaries[0]["test_accuracy"] == summaries[1]["test_accuracy"]
    states = [restored(folder / name, "0").state for name in ("sweep longer", "sweep at once")]
    assert bits(states[0]) == bits(states[1])


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_a_schedule_over_all_epochs_cannot_be_made_longer(folder, schedule):
    workdir = folder / schedule
    options = {**LINEAR, "train.epochs": 1, "optim.schedule": schedule}
    train_run(make_config(options), workdir)
    before = content(workdir)
    with pytest.raises(UserError) as error:
        train_run(make_config(options, train__epochs=2), workdir)
    message = str(error.value)
    assert message.startswith(f"{workdir}: was planned for fewer epochs")
    assert f"--config.init_from={workdir}" in message
    assert content(workdir) == before


@pytest.mark.parametrize("changes", [{"train__epochs": 2}, {"train__epochs": 4, "seed": 1}])
def test_fewer_epochs_or_other_changes_are_another_run(short, changes):
    before = content(short)
    with pytest.raises(UserError, match="holds another run, which differs in config"):
        train_run(make_config(LINEAR, **changes), short)
    assert content(short) == before


def test_other_data_is_another_run(short, tmp_path):
    copy = shutil.copytree(short, tmp_path / "copy")
    stored = files.read_json(copy / files.CONFIG) | {files.FINGERPRINT: "another"}
    (copy / files.CONFIG).write_text(json.dumps(stored))
    with pytest.raises(UserError, match="holds another run"):
        train_run(make_config(LINEAR, train__epochs=4), copy)


# --- another run's net ---------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_starts_from_the_best_epoch_of_another(folder, short, ema):
    """With a learning rate of next to nothing the net stays what it was."""
    changes = {"init_from": str(short), "optim__learning_rate": 1e-12, "optim__ema": ema}
    workdir = folder / f"from {ema}"
    summary = train_run(make_config(LINEAR, train__epochs=1, **changes), workdir)
    assert summary["init_from"] == str(short)
    assert summary["test_accuracy"] == files.read_json(short / files.SUMMARY)["test_accuracy"]
    for ours, theirs in zip(
        *(jax.tree.leaves(best_params(w)) for w in (workdir, short)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_its_statistics_and_every_trial_start_from_there(folder):
    options = {**LINEAR, "model.name": "cnn", "model.channels": (4,), "model.widths": (8,)}
    options |= {"model.batch_norm": True, "train.epochs": 1}
    train_run(make_config(options), folder / "cnn")
    net = restore.start(folder / "cnn", print)
    assert jax.tree.leaves(net["batch_stats"])
    changes = {"init_from": str(folder / "cnn"), "sweep__seeds": 2, "optim__learning_rate": 1e-12}
    train_run(make_config(options, **changes), folder / "two")
    params = restored(folder / "two").state.state.params
    for ours, theirs in zip(*map(jax.tree.leaves, (params, net["params"])), strict=True):
        for trial in ours:
            np.testing.assert_allclose(trial, theirs, atol=1e-7)


def test_a_run_that_has_started_needs_its_source_no_more(folder, short, tmp_path):
    source = shutil.copytree(short, tmp_path / "source")
    config = make_config(LINEAR, init_from=str(source), train__epochs=1)
    summary = train_run(config, tmp_path / "run")
    shutil.rmtree(source)
    (tmp_path / "run" / files.SUMMARY).unlink()
    again = train_run(config, tmp_path / "run")
    assert again["test_accuracy"] == summary["test_accuracy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": "nowhere"}, "nowhere: there is no run"),
        ({"model__name": "mlp", "model__widths": (8,)}, r"is \(10,\) there and \(8,\) here"),
        ({"task__name": "binary", "task__positive": (1,)}, r"is \(10,\) there and \(1,\) here"),
        ({"data__split_seed": 1}, "was trained on examples that this run would validate on"),
        ({"sweep__folds": 2}, "was trained on examples that this run would validate on"),
    ],
)
def test_a_run_that_cannot_start_from_another(short, tmp_path, changes, message):
    config = make_config(LINEAR, **{"init_from": str(short), **changes})
    with pytest.raises(UserError, match=message) as error:
        train_run(config, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_start_from_what_it_overwrites(short):
    before = content(short)
    with pytest.raises(UserError, match="is the workdir itself"):
        train_run(make_config(LINEAR, init_from=str(short)), short, overwrite=True)
    assert content(short) == before


# --- where and when ------------------------------------------------------------------------------


def test_the_summary_has_the_date_and_the_place(short):
    summary = files.read_json(short / files.SUMMARY)
    assert (summary["name"], summary["directory"]) == ("short", str(short))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", summary["date"])
    assert datetime.fromisoformat(summary["date"]) <= datetime.now(UTC)
    assert summary["init_from"] is None
