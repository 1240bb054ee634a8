"""XLA's options and the cache of compiled programs, in processes of their own: both are global."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

from mnist_jax.models import conv
from mnist_jax.runtime import xla

ROOT = Path(__file__).parents[2]
RUN = ["-m", "mnist_jax.main", f"--config={ROOT / 'configs/linear.py'}:digits"]
RUN += ["--config.train.epochs=2", "--overwrite"]


def python(*args: str, cwd: Path, **env: str) -> str:
    """What a new process says, both streams together; it must end well."""
    own = {"PATH": "", "HOME": str(cwd), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    own |= {name: os.environ[name] for name in ("XLA_FLAGS", "TFDS_DATA_DIR")}
    own["MPLCONFIGDIR"] = mpl.get_cachedir()  # or matplotlib looks for fonts in a new home
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env={**own, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def losses(workdir: Path) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train_loss"] for line in lines]


@pytest.fixture(scope="module")
def first_start(tmp_path_factory):
    """What a start without kept programs leaves: a folder of them, and its losses."""
    folder = tmp_path_factory.mktemp("first")
    cache = folder / "programs"
    python(*RUN, f"--compilation_cache={cache}", f"--workdir={folder / 'run'}", cwd=folder)
    return cache, losses(folder / "run")


def test_the_second_start_compiles_nothing_and_computes_the_same(tmp_path, first_start):
    cache, first = first_start
    kept = {path.name for path in cache.iterdir()}
    assert kept
    run = [*RUN, f"--compilation_cache={cache}", f"--workdir={tmp_path / 'run'}"]
    python(*run, cwd=tmp_path, JAX_RAISE_PERSISTENT_CACHE_ERRORS="1")
    assert {path.name for path in cache.iterdir()} == kept
    assert losses(tmp_path / "run") == first


def test_another_mode_and_another_learning_rate_compile_nothing(tmp_path, first_start):
    cache, first = first_start
    kept = {path.name for path in cache.iterdir()}
    keep = f"--compilation_cache={cache}"
    other = tmp_path / "other"
    python(*RUN, keep, "--config.optim.learning_rate=0.02", f"--workdir={other}", cwd=tmp_path)
    assert losses(other) != first
    python("-m", "mnist_jax.main", keep, "--mode=evaluate", f"--workdir={other}", cwd=tmp_path)
    assert {path.name for path in cache.iterdir()} == kept


@pytest.mark.parametrize(
    ("directory", "env", "expected"),
    [
        (["off"], {"JAX_COMPILATION_CACHE_DIR": "by-env"}, []),
        ([], {"JAX_COMPILATION_CACHE_DIR": "by-env"}, ["by-env"]),
        ([], {"XDG_CACHE_HOME": "by-xdg"}, ["by-xdg"]),
    ],
    ids=["off", "JAX's variable", "the user's cache directory"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME is Linux's")
def test_where_programs_are_kept(tmp_path, directory, env, expected):
    env = {name: str(tmp_path / value) for name, value in env.items()}
    code = (
        "import sys, jax; from mnist_jax.runtime import xla\n"
        "xla.enable_cache(*sys.argv[1:]); jax.jit(lambda x: x + 1)(1.0)"
    )
    python("-c", code, *directory, cwd=tmp_path, **env)
    assert [d for d in ("by-env", "by-xdg") if list((tmp_path / d).rglob("*-cache"))] == expected


def test_a_damaged_program_is_compiled_again(tmp_path, first_start):
    cache, first = first_start  # a copy would not be read: its folder is part of a program's name
    whole = shutil.copytree(cache, tmp_path / "whole")
    for path in cache.glob("*-cache"):
        path.write_bytes(path.read_bytes()[:100])
    try:
        run = [*RUN, f"--compilation_cache={cache}", f"--workdir={tmp_path / 'run'}"]
        said = python(*run, cwd=tmp_path)
    finally:
        shutil.copytree(whole, cache, dirs_exist_ok=True)
    assert losses(tmp_path / "run") == first
    assert "Error reading persistent compilation cache entry for 'jit_train_epoch'" in said
    assert "Traceback" not in said


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are for CPUs")
@pytest.mark.parametrize("version", ["0.10.2", "0.11.0"])
def test_options_are_used_only_with_releases_that_were_tested(monkeypatch, version):
    monkeypatch.setattr(xla.jaxlib, "__version__", version)
    lowered = jax.jit(lambda x: jax.lax.optimization_barrier(x * 2) + 1).lower(jnp.float32(1))
    compiled = xla.compile_lowered(lowered, predicts=True)
    assert compiled(jnp.float32(1)) == 3
    assert ("opt-barrier" in compiled.as_text()) == (version in xla.TESTED)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are for CPUs")
def test_a_small_loop_with_a_barrier_compiles():
    """A jaxlib that compiles small loops in its own way aborts at a barrier in one of them."""

    def step(carry, x):
        return xla.barrier(carry * 2) + x, None

    lowered = jax.jit(lambda xs: jax.lax.scan(step, jnp.float32(1), xs)[0]).lower(jnp.ones(10))
    assert xla.compile_lowered(lowered)(jnp.ones(10)) == 2**11 - 1


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are for CPUs")
@pytest.mark.usefixtures("optimised")
def test_convolutions_are_eigens_on_a_cpu_that_trains_and_ynnpacks_on_one_that_predicts():
    x, kernel = jnp.ones((8, 14, 14, 32)), jnp.ones((3, 3, 32, 32))
    lowered = jax.jit(conv.conv2d).lower(x, kernel)
    trains, predicts = (xla.compile_lowered(lowered, predicts=p) for p in (False, True))
    assert "ynn_fusion" not in trains.as_text()
    assert "ynn_fusion" in predicts.as_text()
    np.testing.assert_allclose(trains(x, kernel), predicts(x, kernel), rtol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are for CPUs")
@pytest.mark.usefixtures("optimised")
def test_what_is_behind_a_barrier_is_computed_once():
    """The responses of a first layer, which are cheap enough to be made again wherever needed."""
    x, kernel = jnp.ones((8, 28, 28, 1)), jnp.ones((3, 3, 1, 8))

    def loss(kernel):
        return (conv.max_pool(conv.conv2d(x, kernel), 2) ** 2).sum()

    lowered = jax.jit(jax.grad(loss)).lower(kernel)
    ours, plain = xla.compile_lowered(lowered), lowered.compile()
    assert "opt-barrier" not in plain.as_text()  # or there is nothing to ask for
    assert "opt-barrier" in ours.as_text()
    np.testing.assert_allclose(ours(kernel), plain(kernel), rtol=1e-4)
