"""Commands under JAX's environment variables."""

import os
import re
import subprocess
import sys

import pytest
from shell import DIGITS, ROOT
from tiny_runs import environment


@pytest.mark.parametrize(
    ("name", "value"), [("JAX_PLATFORMS", "nonsense"), ("JAX_ENABLE_X64", "maybe")]
)
def test_a_value_that_stops_jax_is_a_user_error(tmp_path, name, value):
    done = subprocess.run(  # a new Python: JAX reads them when it is imported
        [sys.executable, "-m", "mnist_jax.main", DIGITS, "--workdir=run"],
        cwd=tmp_path,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: .*\b{name}\b.*{value}.*; .*\n", done.stderr) or re.fullmatch(
        rf"error: .*{value}.*\b{name}\b.*; .*\n", done.stderr
    ), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_platform_without_its_plugin_is_a_user_error(tmp_path):
    """JAX fails by an assertion if it knows the platform and finds no plugin."""
    code = (
        "import sys, jax\n"
        "from mnist_jax import main\n"
        "def devices(): raise AssertionError\n"
        "jax.devices = devices\n"
        "sys.exit(main.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, DIGITS, f"--workdir={tmp_path}/run"],
        cwd=ROOT,
        env={**environment(tmp_path), "JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: JAX_PLATFORMS=cuda: JAX cannot start (no such device is found); install JAX's "
        "plugin for this device, or set JAX_PLATFORMS=cpu\n"
    )
    assert not (tmp_path / "run").exists()
