"""`import mnist_jax`: its names, whatever else is imported, at no cost; its examples run."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import mnist_jax

PACKAGE = Path(mnist_jax.__file__).parent
MODULES = {path.stem for path in PACKAGE.iterdir()} - {"__init__"}
HOMES = {
    "UserError": ("types", "UserError"),
    "build_model": ("models.networks", "build"),
    "default_config": ("config", "default"),
    "evaluate_run": ("runs.evaluation", "evaluate_run"),
    "load": ("predict.classifier", "load"),
    "load_data": ("data.datasets", "load"),
    "load_splits": ("data.splits", "load"),
    "train_run": ("runs.training", "train_run"),
}


def python(code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_name_is_what_it_is_at_home():
    assert sorted(mnist_jax.__all__) == sorted(HOMES)
    assert set(HOMES) <= set(dir(mnist_jax))
    for name, (module, attribute) in HOMES.items():
        home = importlib.import_module(f"mnist_jax.{module}")
        assert getattr(mnist_jax, name) is getattr(home, attribute)


def test_no_name_is_a_modules():
    """Importing the module would put it in the name's place."""
    assert not set(HOMES) & MODULES


def test_what_is_not_there():
    with pytest.raises(AttributeError, match="module 'mnist_jax' has no attribute 'nothing'"):
        mnist_jax.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from mnist_jax import nothing  # noqa: F401


def test_importing_it_imports_nothing_and_the_order_does_not_matter():
    code = """
import sys, mnist_jax
heavy = {"jax", "numpy", "flax", "matplotlib", "PIL", "ml_collections"} & set(sys.modules)
inner = [name for name in sys.modules if name.startswith("mnist_jax.")]
import mnist_jax.train.step, mnist_jax.data.datasets
from mnist_jax.runs import training
from mnist_jax import *
print(heavy or "", inner or "", load is mnist_jax.load, train_run is training.train_run)
"""
    assert python(code).split() == ["True", "True"]


EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name.removesuffix(".__init__"))
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0
