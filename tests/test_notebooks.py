"""Notebooks: every cell runs, and what is committed has no outputs."""

import json
import re
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "experiments/notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@each
def test_nothing_but_the_source_is_kept(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in cells(path, "code"):
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})
    assert cells(path, "markdown")[0]["source"][0].startswith("# ")


@each
def test_every_cell_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    names = {}
    for cell in cells(path, "code"):
        exec(compile("".join(cell["source"]), f"{path.name}:{cell['id']}", "exec"), names)
    plt.close("all")


@each
def test_the_files_it_names_exist(path):
    text = "".join(line for cell in cells(path, "markdown") for line in cell["source"])
    for name in re.findall(r"[\w/]+\.(?:ipynb|py|md)\b", text):
        assert any((folder / name).exists() for folder in (path.parent, ROOT)), name
