"""Sweeps in processes of their own: killed, on several devices, and shared by two processes."""

import json
import random
import time

import forks
import numpy as np
import pytest
from devices import devices, outcome, start_two
from tiny_runs import ROOT, environment
from tiny_sweeps import SMALL, run, same_bits, summary

from mnist_jax.cli import flags
from mnist_jax.workdir import files

# The command with another number of seconds between checkpoints.
SAVING = """
import sys
from mnist_jax import main
from mnist_jax.runs import loop
loop._SAVE_SECONDS = float(sys.argv[1])
sys.exit(main.main(sys.argv[2:]))
"""


def start(workdir, *argv):
    argv = ["-c", SAVING, "0", *argv, f"--workdir={workdir}"]
    return forks.Process(argv, ROOT, environment(workdir.parent), merge=True)


def whole_checkpoints(directory):
    """Orbax writes `<epoch>.orbax-checkpoint-tmp` and renames it; a kill before loses the epoch."""
    return [path for path in directory.glob("*") if path.name.isdigit()]


def test_a_killed_and_resumed_sweep_has_the_bits_of_an_unbroken_one(folder, monkeypatch):
    """SIGKILL in the middle of epochs, once there are checkpoints."""
    # Long enough for the first checkpoint not to be the last one.
    argv = [*SMALL, "--config.train.epochs=24", "--config.sweep.seeds=4"]
    argv += ["--config.train.batch_size=4", "--config.model.dropout=(0.2,)"]
    argv += ["--config.train.augment.erase=0.5", "--config.sweep.width=2"]
    unbroken, workdir = folder / "unbroken", folder / "killed"
    process = start(unbroken, *argv)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    process = start(workdir, *argv)
    while process.poll() is None and not whole_checkpoints(workdir / "checkpoints/0"):
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    assert process.poll() is None, "it ended before it was killed"
    process.kill()
    process.communicate()
    process = start(workdir, *argv)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    assert "resumes after epoch" in out
    same_bits(workdir, unbroken)


# --- on several devices ---------------------------------------------------------------------------

MANY = ["--config.train.epochs=3", "--config.sweep.seeds=3", "--config.sweep.width=3"]


@pytest.fixture(scope="module")
def on_one(folder):
    config = flags.parse([*SMALL, *MANY]).config
    run(config, folder / "one")
    return folder / "one"


def close(workdir, on_one):
    ours, theirs = summary(workdir), summary(on_one)
    assert ours["test_accuracy"] == pytest.approx(theirs["test_accuracy"], abs=0.01)
    with np.load(workdir / files.PREDICTIONS) as a, np.load(on_one / files.PREDICTIONS) as b:
        np.testing.assert_allclose(a["logits"], b["logits"], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("count", [2, 4])
def test_devices_share_the_trials(folder, on_one, count):
    """The fourth place is padding; of four devices, two share the batches of a part."""
    workdir = folder / f"{count} devices"
    argv = ["-W", "error", "-m", "mnist_jax.main", *SMALL, *MANY, f"--workdir={workdir}"]
    done = forks.run(argv, ROOT, devices(count))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "3 trials of 3 epochs, 3 in one program\n" in done.stdout
    close(workdir, on_one)


def test_two_processes_share_the_trials(folder, on_one):
    """One process always wants to save, the other never."""
    workdir = folder / "processes"
    programs = [("-c", SAVING, seconds) for seconds in ("0", "1e9")]
    first, second = start_two(folder, *SMALL, *MANY, f"--workdir={workdir}", programs=programs)
    code, out, err = outcome(first)
    assert (code, err) == (0, ""), out + err
    assert outcome(second) == (0, "", "")
    assert json.loads((workdir / files.SUMMARY).read_text())["trials"] == 3
    close(workdir, on_one)


def test_the_training_after_the_folds_is_checked_before_them(folder):
    """Five folds fill four devices; the devices cannot share the batches of 50 after them."""
    workdir = folder / "refused"
    folds = ["--config.sweep.folds=5", "--config.train.batch_size=50", f"--workdir={workdir}"]
    done = forks.run(["-m", "mnist_jax.main", *SMALL, *folds], ROOT, devices(4))
    assert (done.returncode, done.stdout) == (2, "")
    assert "50 is not a multiple of the 4 devices that share it" in done.stderr
    assert not workdir.exists()
