"""CONTRIBUTING says what is so: its diffs apply, its commands run, its table counts right."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_layering import ALLOWED

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SECTIONS = dict(re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", TEXT, re.MULTILINE | re.DOTALL))

# Runs commands, one after the other, in one process: what they import and compile is shared.
RUN = """
import runpy, shlex, sys
for command in sys.argv[1:]:
    python, m, module, *sys.argv[1:] = shlex.split(command)
    assert (python, m) == ("python", "-m")
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        assert not error.code, command
"""


def blocks(section, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


def files(diff):
    """Each file of a diff, with its hunks as (before, after)."""
    parts = re.split(r"^--- \S+\n\+\+\+ b/(\S+)\n", diff, flags=re.MULTILINE)
    for path, body in zip(parts[1::2], parts[2::2], strict=True):
        hunks = [h.splitlines(keepends=True) for h in re.split(r"^@@\n", body, flags=re.M)[1:]]
        yield (
            path,
            [
                tuple("".join(line[1:] for line in hunk if line[0] in " " + sign) for sign in "-+")
                for hunk in hunks
            ],
        )


def apply(diff, root):
    """Each hunk's place must be there, and only once."""
    for path, hunks in files(diff):
        text = (root / path).read_text() if (root / path).exists() else ""
        for before, after in hunks:
            assert text.count(before) == 1 or not (text or before), f"{path}:\n{before}"
            text = text.replace(before, after) if text else after
        (root / path).write_text(text)


def copy(root):
    for part in ("mnist_jax", "configs", "experiments", "pyproject.toml", "README.md", "docs"):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, root / part)
    return root


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the project with all changes made and all commands run; and what they printed."""
    root = copy(tmp_path_factory.mktemp("contributing") / "copy")
    for section in SECTIONS:
        for diff in blocks(section, "diff"):
            apply(diff, root)
    commands = "".join(block for section in SECTIONS for block in blocks(section, "sh"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, *commands.splitlines()],
        cwd=root,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root, done.stdout


@pytest.mark.parametrize("section", SECTIONS)
def test_each_diff_applies_alone(section, tmp_path):
    assert len(blocks(section, "diff")) == len(blocks(section, "sh")) == 1
    apply(blocks(section, "diff")[0], copy(tmp_path / "copy"))


def test_the_commands_did_what_is_said(changed):
    root, output = changed
    for name in ("softplus", "lion", "noise", "codes", "maxout", "linear-counts-s0-epochs-1"):
        assert (root / "runs" / name / "report.html").exists(), name
    assert "counts: test accuracy" in output
    assert json.loads((root / "runs/codes/summary.json").read_text())["test_accuracy"] > 0.8
    assert 0 < json.loads((root / "runs/brier/summary.json").read_text())["test_brier"] < 2
    assert re.search(r"^total +50,890 ", output, re.MULTILINE)  # configs/small.py, layer by layer
    assert "| 0.1 | " in (root / "experiments/results/smoothing.md").read_text()


def test_the_changes_are_in_style(changed):
    paths = {path for section in SECTIONS for path, _ in files(blocks(section, "diff")[0])}
    for command in ("check", "format --check"):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command.split(), *paths],
            cwd=changed[0],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_the_table_counts_the_files():
    rows = dict(re.findall(r"^\| (an? .*?) \| (`.*`) \|$", TEXT, re.MULTILINE))
    counted = {
        section: [path.removeprefix("mnist_jax/") for path, _ in files(blocks(section, "diff")[0])]
        for section in SECTIONS
    }
    said = {name[0].upper() + name[1:]: re.findall(r"`(.*?)`", row) for name, row in rows.items()}
    assert said == counted


def test_the_layers_are_in_order():
    (line,) = re.findall(r"^`\w+`(?: · `\w+`)+$", TEXT, re.MULTILINE)
    levels = [[*ALLOWED].index(name) for name in re.findall(r"\w+", line)]
    assert levels == sorted(set(levels))


def test_what_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z]+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    told = re.sub(r"```diff.*?```", "", TEXT, flags=re.DOTALL).replace(
        "experiments/smoothing.py", ""
    )
    for path in re.findall(r"`((?:tests|experiments|mnist_jax)/[\w/.]*)`", told):
        assert (ROOT / path).exists(), path
