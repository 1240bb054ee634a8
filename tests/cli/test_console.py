"""The console command `mnist-jax`, and `python -m mnist_jax`."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from shell import ROOT

from mnist_jax import __main__ as console
from mnist_jax.cli import commands, flags
from mnist_jax.types import UserError


def test_the_script_is_the_command(monkeypatch, capsys):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["mnist-jax"].partition(":")
    monkeypatch.setattr(sys, "argv", ["mnist-jax", "--help"])
    assert getattr(importlib.import_module(module), name)() == 0
    assert capsys.readouterr().out == console.USAGE


def test_python_runs_it_as_well(here):
    command = [sys.executable, "-m", "mnist_jax", "list", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nowhere: there are no runs")


def test_the_help_lists_every_command(capsys):
    assert console.main([]) == console.main(["-h"]) == 0
    assert set(re.findall(r"^  (\w+) ", console.USAGE, re.MULTILINE)) == set(console.COMMANDS)
    assert max(map(len, console.USAGE.splitlines())) <= 80


def test_every_command_runs_its_module(capsys):
    assert console.main(["train"]) == 2
    assert "is needed to train" in capsys.readouterr().err
    assert console.main(["evaluate"]) == 2
    assert "is needed to evaluate" in capsys.readouterr().err
    for name in ("predict", "compare", "explore", "list"):
        with pytest.raises(SystemExit, match="0"):
            console.main([name, "--help"])
        assert f"usage: python -m mnist_jax.{name} " in capsys.readouterr().out
    assert console.main(["trian"]) == 2
    assert console.main(["xyz"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "error: trian: no such command; did you mean train?"
    assert told[1].startswith("error: xyz: no such command; there are train, evaluate, ")


@pytest.mark.parametrize("name", ["cnn", "fast", "linear", "mlp"])
def test_a_shipped_config_is_found_by_its_name_from_any_directory(here, name):
    found = flags.parse([f"--config={name}:digits"])
    assert found.config == flags.parse([f"--config=configs/{name}.py:digits"]).config
    assert commands.run_name(found, "digits") == f"{name}-digits-s0"


def test_files_of_that_name_come_first(here):
    mine = "from ml_collections import ConfigDict\nfrom mnist_jax import config\n\n\n"
    mine += "def get_config():\n    fields = config.default()\n    fields.seed = {}\n"
    mine += "    return fields\n"
    (here / "configs").mkdir()
    (here / "configs" / "cnn.py").write_text(mine.format(7))
    assert flags.parse(["--config=cnn"]).config.seed == 7
    (here / "cnn").write_text(mine.format(8))
    assert flags.parse(["--config=cnn"]).config.seed == 8
    with pytest.raises(UserError, match="--config=nothing: no such file; there are configs/cnn"):
        flags.parse(["--config=nothing"])


def test_a_command_is_printed_as_it_can_be_typed(here, monkeypatch):
    python = here / ".venv" / "bin" / "python"
    script = python.with_name("mnist-jax")
    python.parent.mkdir(parents=True)
    for path in (python, script):
        path.write_text("")
        path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["main.py"])
    assert commands.program() == ["./.venv/bin/python", "-m", "mnist_jax.main"]
    monkeypatch.setattr(sys, "argv", [".venv/bin/mnist-jax"])
    assert commands.program() == ["./.venv/bin/mnist-jax", "train"]
    monkeypatch.chdir(here.parent / "here" / "..")
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", str(python.parent))  # activated
    assert commands.program() == ["mnist-jax", "train"]
    monkeypatch.setattr(sys, "argv", ["main.py"])
    assert commands.program() == ["python", "-m", "mnist_jax.main"]


def test_the_next_commands_of_make_train_exist():
    command = ["make", "-n", "--no-print-directory", "train"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    named = re.findall(r"\.venv/bin/mnist-jax (\w+)", done.stdout)
    assert len(named) >= 3
    assert set(named) <= set(console.COMMANDS)
    assert Path(ROOT, "README.md").read_text().count(". .venv/bin/activate") == 1
