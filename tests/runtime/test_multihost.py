"""Real processes train one run together: what one alone would have trained."""

import re
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
from devices import outcome, start, start_two, start_two_by_slurm

from mnist_jax import main
from mnist_jax.cli import flags
from mnist_jax.data import splits
from mnist_jax.runs import training
from mnist_jax.runtime import multihost
from mnist_jax.types import UserError
from mnist_jax.workdir import files

ROOT = Path(__file__).parents[2]
DIGITS = f"--config={ROOT}/configs/mlp.py:digits"
EPOCHS = 20
ARGV = [
    *(DIGITS, f"--config.train.epochs={EPOCHS}"),
    *("--config.model.widths=(16,)", "--config.model.activation=tanh"),
]


def wait_for(process, line):
    """Reads what a process prints until a line starts with this."""
    assert any(there.startswith(line) for there in process.stdout), outcome(process)


@pytest.fixture(scope="module")
def unbroken(folder):
    """The run of one process and one device."""
    config = flags.parse(ARGV).config
    training.train_run(config, splits.load(config), folder / "alone", log=lambda line: None)
    return folder / "alone"


def rows(workdir):
    return files.read_rows(workdir / files.METRICS)


def test_two_processes_are_stopped_killed_and_finish_the_run_of_one(folder, unbroken):
    workdir = folder / "together"
    argv = [*ARGV, f"--workdir={workdir}"]

    # Asked of the second process alone, both stop after the same epoch.
    first, second = start_two(folder, *argv)
    wait_for(first, "epoch 2/")
    second.send_signal(signal.SIGTERM)
    code, out, err = outcome(first)
    stopped = re.search(rf"^stopped after epoch (\d+) of {EPOCHS}, which is saved", out, re.M)
    assert (code, err) == (143, ""), out + err
    asked = "stopping after this epoch, which will be saved; the same again stops at once\n"
    assert outcome(second) == (143, "", asked)
    assert len(rows(workdir)) == int(stopped[1]) < EPOCHS

    # When the first dies, JAX ends the second; nothing that was saved is lost.
    first, second = start_two(folder, *argv)
    wait_for(first, f"{workdir}: resumes after epoch {stopped[1]}/{EPOCHS}")
    wait_for(first, f"epoch {int(stopped[1]) + 3}/")  # the one before is saved by then
    first.kill()
    assert outcome(first)[0] == -signal.SIGKILL
    assert outcome(second)[0] not in (0, 2)
    assert int(stopped[1]) + 2 <= len(rows(workdir)) < EPOCHS

    first, second = start_two(folder, *argv)
    code, out, err = outcome(first)
    assert (code, err) == (0, ""), out + err
    assert out.splitlines()[1].startswith(f"{workdir}: resumes after epoch")
    assert out.splitlines()[-1].startswith("digits: test accuracy")
    assert outcome(second) == (0, "", "")

    assert {path.name for path in workdir.iterdir()} == {path.name for path in unbroken.iterdir()}
    for ours, theirs in zip(rows(workdir), rows(unbroken), strict=True):
        for key in theirs.keys() - {"seconds", "examples_per_second"}:
            atol = 0.01 if "accuracy" in key else 0.0  # an example or so that was undecided
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-3, atol=atol, err_msg=key)
    logits = [np.load(w / files.PREDICTIONS)["logits"] for w in (workdir, unbroken)]
    np.testing.assert_allclose(*logits, rtol=1e-2, atol=1e-3)
    device = files.read_json(workdir / files.SUMMARY)["device"]
    assert device == f"2 processes, each on {files.read_json(unbroken / files.SUMMARY)['device']}"


def test_a_mistake_that_the_first_meets_is_told_by_all(folder, unbroken):
    argv = [*ARGV, "--config.seed=1", f"--workdir={unbroken}"]
    for process in start_two_by_slurm(folder, *argv):
        code, out, err = outcome(process)
        assert (code, out) == (2, "")
        assert re.fullmatch(r"error: .* another run, which differs in config\.seed; .*\n", err)


def test_one_process_acts_for_itself():
    assert multihost.is_first()
    assert multihost.on_first_process(lambda: {"any": "thing"}) == {"any": "thing"}
    assert multihost.max_over_processes(15) == 15


ALL = ["--coordinator=localhost:1234", "--num_processes=2", "--process_id=0"]


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (ALL[:1], "--process_id=I: give all three, or --distributed"),
        (ALL[1:], "--process_id=I: give all three, or --distributed"),
        (["--process_id=0"], "--process_id=I: give all three, or --distributed"),
        ([*ALL, "--distributed"], "--distributed: replaces --coordinator, --num_processes and"),
        (["--distributed", "--num_processes=2"], "--distributed: replaces --coord"),
        ([*ALL, "--process_id=2"], "--process_id=2: must be 0 to 1 for 2 processes"),
        ([*ALL, "--process_id=-1"], "--process_id=-1: must be 0 to 1 for 2 processes"),
        ([*ALL, "--num_processes=0"], "--num_processes=0: must be 1 or more"),
        ([*ALL, "--process_id=one"], "--process_id=one: is not a whole number"),
        ([*ALL, "--coordinator=localhost"], "--coordinator=localhost: is not HOST:PORT"),
        ([*ALL, "--coordinator=localhost:99999"], "--coordinator=localhost:99999: is not HOST"),
        ([*ALL, "--coordinator="], "--coordinator=: is not HOST:PORT"),
    ],
)
def test_flags_that_do_not_go_together(args, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        flags.parse([DIGITS, *args])


def test_flags_that_go_together():
    assert flags.parse([DIGITS]).cluster is None
    assert flags.parse([DIGITS, "--distributed"]).cluster == ()
    assert flags.parse([DIGITS, *ALL]).cluster == ("localhost:1234", 2, 0)


def test_an_environment_of_no_cluster(folder):
    code, out, err = outcome(start(folder, [DIGITS, "--distributed"], {}))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: --distributed: no Slurm, .* is found \(.*\); give .*\n", err)


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("", 0)) as taken:
        there = f"--coordinator=localhost:{taken.getsockname()[1]}"
        assert main.main([DIGITS, there, "--num_processes=2", "--process_id=0"]) == 2
    message = rf"error: {there}: cannot listen there \(.+\); take another port\n"
    assert re.fullmatch(message, capsys.readouterr().err)
