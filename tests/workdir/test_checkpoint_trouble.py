"""Checkpoints where there is nowhere to write, and of processes that are killed."""

import logging
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import forks
import numpy as np
import pytest
from checkpoints import LIKE, assert_is_epoch, make_history, make_state, names, save_run

from mnist_jax.workdir import checkpoint
from mnist_jax.workdir.checkpoint import CheckpointError

# --- nowhere to write --------------------------------------------------------------------------


def test_a_file_in_the_directorys_place(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(CheckpointError, match=f"^{directory}: cannot write"),
            checkpoint.open_directory(directory),
        ):
            pass


@pytest.mark.parametrize("then", ["save", "wait", "leave"])
def test_a_failed_save_surfaces(tmp_path, then):
    def run():
        with checkpoint.open_directory(tmp_path / "run") as manager:
            checkpoint.save(manager, 1, make_state(1), [])
            checkpoint.wait(manager)
            shutil.rmtree(tmp_path / "run")
            (tmp_path / "run").write_text("")
            checkpoint.save(manager, 2, make_state(2), [])
            if then == "save":
                checkpoint.save(manager, 3, make_state(3), [])
            if then == "wait":
                checkpoint.wait(manager)
            if then != "leave":
                pytest.fail("not reached")

    with pytest.raises(CheckpointError, match=f"^{tmp_path / 'run'}: cannot write.*Not a dir"):
        run()


CHILD = """
import resource, sys
from pathlib import Path
import absl.logging
import numpy as np
from mnist_jax.train.state import State
from mnist_jax.types import UserError
from mnist_jax.workdir import checkpoint

absl.logging.set_verbosity("info")  # as a run would log that is told to
directory, trouble = Path(sys.argv[1]), sys.argv[2]

def state_of(epoch):
    draw = np.random.default_rng(epoch).normal
    return State(np.array(epoch, np.int32), {str(n): draw(size=(n, 50)) for n in range(1, 300, 30)},
                 {}, None, None, None)

def check(restored):
    assert restored.history == [{"epoch": e} for e in range(1, restored.epoch + 1)]
    assert restored.state.step == restored.epoch
    for name, value in state_of(restored.epoch).params.items():
        assert np.array_equal(restored.state.params[name], value)

def epochs():
    with checkpoint.open_directory(directory) as manager:
        last = checkpoint.restore(manager, state_of(0))
        if last is not None:
            check(last)
        first = 1 if last is None else last.epoch + 1
        for epoch in range(first, 100_000):
            if trouble and epoch == first + 3:
                checkpoint.wait(manager)
                if trouble == "full disk":
                    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
                else:
                    directory.rename(f"{directory}.moved")
                    directory.write_text("")
            history = [{"epoch": e} for e in range(1, epoch + 1)]
            checkpoint.save(manager, epoch, state_of(epoch), history)
            print(epoch, flush=True)

try:
    epochs()
except UserError as error:
    sys.exit(str(error))
"""


def start(directory, trouble=""):
    argv = ["-W", "error", "-c", CHILD, directory, trouble]
    return forks.Process(argv, Path.cwd(), {**os.environ, "JAX_PLATFORMS": "cpu"})


def started_in(process):
    """Waits for the first save to be under way; returns its epoch."""
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return int(line)


@pytest.mark.parametrize(
    ("trouble", "reason"), [("full disk", "File too large"), ("gone", "Not a directory")]
)
def test_trouble_is_one_line_and_the_earlier_are_intact(tmp_path, trouble, reason):
    directory = tmp_path / "run"
    process = start(directory, trouble)
    try:
        _, stderr = process.communicate(timeout=60)  # orbax's threads may wait five minutes
    finally:
        process.kill()
    assert stderr.startswith(f"{directory}: cannot write checkpoints (")
    assert reason in stderr
    assert stderr.count("\n") == 1, stderr
    assert process.returncode == 1
    if trouble == "gone":
        directory.unlink()
        Path(f"{directory}.moved").rename(directory)
    assert {"2", "3"} <= set(names(directory))
    process = start(directory)  # the disk works again: check epoch 3 and continue
    assert started_in(process) == 4
    process.kill()
    process.communicate()


def test_only_orbax_is_hushed():
    def passes(message, level, path, logger="absl"):
        record = logging.LogRecord(logger, level, path, 1, message, None, None)
        return bool(logging.getLogger(logger).filter(record))

    orbax = checkpoint.ocp.__file__
    assert not passes("Saving checkpoint", logging.INFO, orbax)
    assert not passes("Thread failed", logging.ERROR, orbax)  # raised as CheckpointError
    assert passes("Something may be wrong", logging.WARNING, orbax)
    assert passes("Anything", logging.INFO, "/site-packages/other/module.py")
    assert passes("Anything", logging.ERROR, "/site-packages/other/module.py")
    lost = "Task exception was never retrieved\nfuture: <Task finished coro=<f() defined at {}:1>>"
    assert not passes(lost.format(orbax), logging.ERROR, "/asyncio/events.py", "asyncio")
    assert passes(lost.format("/my/file.py"), logging.ERROR, "/asyncio/events.py", "asyncio")
    told = []
    hook = checkpoint._not_too_late(told.append)
    hook(SimpleNamespace(exc_value=RuntimeError("Event loop is closed")))
    assert told == []
    hook(SimpleNamespace(exc_value=RuntimeError("else")))
    assert len(told) == 1


def test_killed_at_any_moment(tmp_path):
    rng = np.random.default_rng()
    left_over, done = set(), 0
    for delay in rng.uniform(0, 0.3, size=6):
        process = start(tmp_path)
        assert started_in(process) > done - 1
        time.sleep(delay)
        process.kill()
        stdout, stderr = process.communicate()
        assert stderr == "", f"killed after {delay} s"
        # That a save has returned says that the one before it is complete.
        done = max([done, *(int(line) - 1 for line in stdout.split())])
        left_over |= {name for name in names(tmp_path) if not name.isdigit()}
        latest = max((int(name) for name in names(tmp_path) if name.isdigit()), default=0)
        assert latest >= done, f"killed after {delay} s"
    assert any("tmp" in name for name in left_over), "no kill was in the middle of a save"
    process = start(tmp_path)
    assert started_in(process) > done - 1
    assert started_in(process) > done  # the leftovers are gone when a second save begins
    process.kill()
    process.communicate()


def test_leftovers_of_a_killed_process_go(tmp_path):
    save_run(tmp_path, 3)
    shutil.copytree(tmp_path / "3", tmp_path / "4.orbax-checkpoint-tmp")
    shutil.copytree(tmp_path / "2", tmp_path / "deleted" / "1")
    with checkpoint.open_directory(tmp_path) as manager:
        assert_is_epoch(checkpoint.restore(manager, LIKE), 3)
        checkpoint.save(manager, 4, make_state(4), make_history(4))
    assert names(tmp_path) == ["3", "4"]
