"""Imports go one way: a module imports only from the lines above it in this list."""

import ast
from pathlib import Path

import pytest

ORDER = [
    ["types"],
    [
        "nets",
        "labels",
        "keys",
        "tfds_source",
        "compilation",
        "exits",
        "memory",
        "parallel",
        "processes",
        "pixels",
        "quantize",
        "winograd",
    ],
    ["formats", "pictures", "drawings", "saliency", "thresholds", "halving", "ensemble", "errors"],
    ["config", "data", "augment", "layers", "metrics", "stats", "knn"],
    ["models", "tasks", "optim", "splits", "workdir", "provenance"],
    ["plots", "board", "sweep", "slices"],
    ["explore_stats", "errors_plots", "threshold_plots", "diagrams"],
    ["train", "evaluate", "preprocess", "checkpoint", "report", "members_plots", "progress", "cli"],
    ["explore_plots", "compare_runs", "predict_report"],
    ["members", "inside", "task_report", "members_report", "explore", "compare_plots"],
    ["groups", "results"],
    ["record", "members_results", "restore"],
    ["run", "classifier", "compare_report"],
    ["run_group"],
    ["choice", "out_of_fold"],
    ["nested"],
    ["run_members"],
    ["commands", "compare"],
    ["main", "predict", "__init__"],
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
PACKAGE = Path(__file__).parent.parent / "mnist_jax"
MODULES = sorted(PACKAGE.glob("*.py"))


def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports, anywhere in it."""
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


def test_every_module_has_a_level():
    assert {path.stem for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_go_one_way(path):
    upward = {name for name in imported(path) if LEVEL[name] >= LEVEL[path.stem]}
    assert not upward, f"{path.stem} imports {upward}, which are not above it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_file_is_long(path):
    assert len(path.read_text().splitlines()) <= 325


def test_only_the_edges_know_their_libraries():
    """Flax in models, tensorflow-datasets in its source, orbax where checkpoints are handled."""
    homes = {
        "flax": {"models"},
        "tensorflow_datasets": {"tfds_source"},
        "orbax": {"checkpoint"},
        "matplotlib": {
            "plots",
            "diagrams",
            "threshold_plots",
            "members_plots",
            "errors_plots",
            "explore_plots",
            "compare_plots",
        },
        "jinja2": {"report"},
        "sklearn": {"data", "thresholds", "explore_stats"},
    }
    for library, allowed in homes.items():
        users = {
            path.stem
            for path in MODULES
            if f"import {library}" in (t := path.read_text()) or f"from {library}" in t
        }
        assert users <= allowed, library
