"""Without a home directory, or with one that cannot be written."""

import os
import subprocess
import sys

import pytest
from shell import DIGITS, LINEAR, ROOT

from mnist_jax.cli import flags
from mnist_jax.data import datasets
from mnist_jax.runtime import paths
from mnist_jax.types import UserError

# A user without an entry in the system's list, as in a container with another user's number.
NOBODY = """
import pwd, sys

def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = unknown
from mnist_jax import main
sys.exit(main.main(sys.argv[1:]))
"""
NAMES = ("HOME", "MPLCONFIGDIR", "TFDS_DATA_DIR", "JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")


def run(*args, cwd, **env):
    """What the command does in a folder, for a user whom the system does not know."""
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    return subprocess.run(
        [sys.executable, "-c", NOBODY, *args],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("home", [{}, {"HOME": "/dev/null"}], ids=["none", "no folder"])
def test_a_run_needs_no_home(tmp_path, home):
    """No noise of libraries about their caches, and no folder called ~."""
    done = run(DIGITS, "--config.train.epochs=1", "--workdir=run", cwd=tmp_path, **home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("digits: test accuracy ")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_data_without_a_folder_for_it_is_a_user_error(tmp_path):
    done = run(LINEAR, "--workdir=run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: ~/tensorflow_datasets: no such home directory is known; set $HOME, or give the "
        "path without ~, in $TFDS_DATA_DIR or --config.data.data_dir\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["~no-such-user/runs", "~no-such-user"])
def test_an_unknown_home_in_a_path_is_a_user_error(path):
    with pytest.raises(UserError, match=rf"^{path}: no such home directory is known"):
        paths.expand(path)
    for flag in ("--workdir", "--compilation_cache"):
        with pytest.raises(UserError, match="no such home directory is known"):
            flags.parse([DIGITS, f"{flag}={path}"])
    with pytest.raises(UserError, match="no such home directory is known"):
        datasets.load(f"csv:{path}")
