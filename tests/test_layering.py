"""Imports between subpackages go one way: each imports only what is listed for it here."""

import ast
from pathlib import Path

import pytest

# Each subpackage or module, and those that it may import; every line names only earlier ones.
ALLOWED = {
    "types": "",
    "runtime": "types",
    "analysis": "types",
    "tasks": "types analysis",
    "models": "types runtime",
    "data": "types runtime tasks",
    "train": "types runtime analysis tasks models data",
    "config": "types tasks models data train",
    "report": "types analysis models config",
    "workdir": "types runtime config",
    "runs": "types runtime analysis tasks data models config train report workdir",
    "compare": "types runtime analysis data config report workdir",
    "explore": "types runtime data report workdir",
    "predict": "types runtime analysis tasks data config train report workdir runs",
    "cli": "types runtime tasks data models config workdir runs",
    "list": "types runtime config workdir cli",
    "main": "runtime cli",
    "__main__": "types runtime",
    "__init__": "types data models config runs predict",
}
PACKAGE = Path(__file__).parent.parent / "mnist_jax"
PARTS = sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")})


def imported(path: Path) -> set[str]:
    """The subpackages and modules of the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "mnist_jax":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnist_jax."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            parts = [alias.name.split(".") for alias in node.names]
            names |= {p[1] for p in parts if p[0] == "mnist_jax" and len(p) > 1}
    return names


def test_every_part_is_listed_after_those_it_may_import():
    assert {part.removesuffix(".py") for part in PARTS} == set(ALLOWED)
    seen: set[str] = set()
    for part, allowed in ALLOWED.items():
        assert set(allowed.split()) <= seen, part
        seen.add(part)


@pytest.mark.parametrize("part", PARTS)
def test_imports_go_one_way(part):
    name = part.removesuffix(".py")
    files = (PACKAGE / part).rglob("*.py") if name == part else [PACKAGE / part]
    used = set().union(*map(imported, files)) - {name}
    assert used == set(ALLOWED[name].split())


def test_only_the_edges_import_their_libraries():
    """Flax in networks and builders, tensorflow-datasets in its reader, Orbax for checkpoints."""
    homes = {
        "flax": ("models/networks", "models/registry"),
        "tensorflow_datasets": ("data/tfds_reader",),
        "orbax": ("workdir/checkpoint",),
        "matplotlib": ("report/", "explore/explore_plots", "compare/compare_plots"),
        "jinja2": ("report/templates",),
        "sklearn": ("data/datasets", "analysis/thresholds", "explore/statistics"),
    }
    for library, allowed in homes.items():
        for path in PACKAGE.rglob("*.py"):
            text = path.read_text()
            if f"import {library}" in text or f"from {library}" in text:
                assert str(path.relative_to(PACKAGE)).startswith(allowed), (library, path)
