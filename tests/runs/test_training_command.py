"""A run from the command line: what it prints, and its results on real data."""

import os
import re
import subprocess
import sys
import threading

import prepared
import pytest
from shell import unread
from tiny_runs import LINEAR, ROOT, logits_of, make_config, train_run

from mnist_jax import main
from mnist_jax.workdir import files

EPOCH = (
    r"epoch {}/3  loss \d\.\d{{4}} acc \d+\.\d\d%  "
    r"val loss \d\.\d{{4}} acc \d+\.\d\d%  \d+\.\d s\n"
)


def test_the_output_of_a_run(tmp_path):
    """Without notices and warnings of libraries on standard output or standard error."""
    argv = ["--config=configs/linear.py:digits", "--config.train.epochs=3"]
    done = subprocess.run(  # a new Python, in which libraries are imported as users see it
        [sys.executable, "-m", "mnist_jax.main", *argv, f"--workdir={tmp_path}/run"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("JAX_")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"linear on digits: 1,293 train, 144 val, 360 test\n"
        + "".join(EPOCH.format(epoch) for epoch in (1, 2, 3))
        + r"digits: test accuracy \d+\.\d\d%  \(\d+ errors of 360\)  trained in \d+\.\d s  "
        + rf"report: {tmp_path}/run/report\.html\n",
        done.stdout,
    ), done.stdout


@pytest.mark.parametrize("more", [["--config.train.epochs=1"], ["--help"]])
def test_a_closed_pipe_ends_the_command(tmp_path, more):
    """As with `| head`: no traceback. A training is finished first."""
    argv = ["--config=configs/linear.py:digits", *more, f"--workdir={tmp_path}/run"]
    assert unread("main", *argv) == (141, "")
    assert (tmp_path / "run" / files.SUMMARY).exists() is (more != ["--help"])


def test_off_the_main_thread(tmp_path):
    """As a notebook's widgets or a server may call it."""
    found = []
    config = make_config(LINEAR, train__epochs=1)
    thread = threading.Thread(target=lambda: found.append(train_run(config, tmp_path / "run")))
    thread.start()
    thread.join()
    assert found == [files.read_json(tmp_path / "run" / files.SUMMARY)]


@pytest.fixture(scope="module")
def mnist_dir(tmp_path_factory):
    return prepared.prepared_data_dir(tmp_path_factory)


@pytest.mark.usefixtures("optimised")
def test_two_epochs_of_mnist(mnist_dir, tmp_path, capsys):
    argv = [
        f"--config={ROOT}/configs/mlp.py",
        "--config.train.epochs=2",
        f"--config.data.data_dir={mnist_dir}",
        "--config.data.offline_fallback=False",
        f"--workdir={tmp_path}/run",
    ]
    assert main.main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    last = re.search(r"^mnist: test accuracy (.*)%  \((.*) errors of 10,000\)", out, re.MULTILINE)
    accuracy, errors = float(last[1]), int(last[2])
    assert accuracy >= 96.5, out
    assert accuracy == pytest.approx(100 * (1 - errors / 10_000))
    summary = files.read_json(tmp_path / "run" / files.SUMMARY)
    assert (summary["num_train"], summary["num_val"], summary["num_test"]) == (
        54_000,
        6_000,
        10_000,
    )
    assert len(logits_of(tmp_path / "run")) == sum(map(sum, summary["confusion_matrix"])) == 10_000
