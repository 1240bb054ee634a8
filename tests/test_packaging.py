"""A wheel of the project contains everything and trains where the repository is not importable."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
TRAIN = """
import importlib.util, sys
from mnist_jax import main
assert not importlib.util.find_spec("configs") and not importlib.util.find_spec("experiments")
print(main.__file__)
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which a wheel of the project is installed; built and installed offline."""
    root = tmp_path_factory.mktemp("packaging")
    source, site = root / "source", root / "site"
    for part in ("mnist_jax", "configs"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, source)
    offline = ["--no-index", "--no-deps"]
    subprocess.run(
        [*PIP, "wheel", *offline, "--no-build-isolation", "--wheel-dir", root, source], check=True
    )
    (wheel,) = root.glob("*.whl")
    subprocess.run([*PIP, "install", *offline, "--no-compile", "--target", site, wheel], check=True)
    return site


def test_the_wheel_contains_every_file_and_nothing_else(site):
    files = {path.relative_to(site) for path in site.rglob("*") if path.is_file()}
    expected = {path.relative_to(ROOT) for path in ROOT.glob("mnist_jax/**/*") if path.is_file()}
    expected |= {"mnist_jax" / path.relative_to(ROOT) for path in ROOT.glob("configs/*.py")}
    expected = {path for path in expected if "__pycache__" not in path.parts}
    expected.add(Path("bin/mnist-jax"))
    assert {path for path in files if "dist-info" not in str(path)} == expected


def installed(site):
    """The environment of a Python with -S, which ignores .pth files and so editable installs."""
    libraries = [path for path in sys.path if path.endswith("-packages")]
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *libraries])}


def test_the_console_command_finds_the_configs_from_another_directory(site, here):
    command = [sys.executable, "-S", site / "bin/mnist-jax", "train", "--config=cnn:digits"]
    done = subprocess.run([*command, "--help"], env=installed(site), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_trains_from_another_directory(site, here):
    environment = installed(site)
    flags = ["--config=configs/linear.py:digits", "--config.train.epochs=1", "--workdir=run"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", TRAIN, *flags], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert Path(first) == site / "mnist_jax/main.py"
    assert last.endswith("report: run/report.html")
    assert Path("run/report.html").exists()
    assert json.loads(Path("run/summary.json").read_text())["dataset"] == "digits"
