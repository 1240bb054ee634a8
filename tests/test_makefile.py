"""The Makefile's list is true, and commits are checked by what it runs."""

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
TARGETS = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()


def make(*arguments):
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_help_lists_every_target():
    assert [line.split()[0] for line in make("help").splitlines()] == TARGETS


def test_half_an_environment_is_not_left_for_a_whole_one(tmp_path):
    """Debian's Python without its venv package makes one, says so, and fails."""
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\n[ $1 = -c ] && exit 0\nmkdir -p {tmp_path}/venv/bin\n"
        f"touch {tmp_path}/venv/bin/python\nexit 1\n"
    )
    python.chmod(0o755)
    command = ["make", f"PYTHON={python}", f"VENV={tmp_path}/venv", f"{tmp_path}/venv/bin/python"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 2
    assert not (tmp_path / "venv").exists()


def test_what_the_targets_run_exists():
    modules = set(re.findall(r"python -m ((?:experiments|mnist_jax)\.\w+)", make("-n", *TARGETS)))
    assert {"mnist_jax.main", "experiments.tables"} <= modules
    for module in modules:
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


def test_commits_are_checked_by_what_make_runs():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    recipe = make("-n", "lint", "types")
    for hook in repo["hooks"]:
        assert hook["language"] == "system"  # nothing is installed for it
        assert hook["entry"].removesuffix(" --force-exclude") in recipe
