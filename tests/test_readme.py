"""README says what is so: its code runs, its table is what was measured, its map is complete."""

import json
import re
from pathlib import Path

import pytest

from experiments import baselines

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_tour_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out.splitlines()[-1].split()[0]) > 0.9
    assert (tmp_path / "runs/tour/report.html").exists()


def test_the_table_is_the_one_that_was_measured():
    rows = json.loads((baselines.RESULTS / "baselines.json").read_text())
    assert baselines.into_readme(README, baselines.to_markdown(rows)) == README
    assert {row["config"] for row in rows} == {f"configs/{name}" for name in baselines.CONFIGS}


@pytest.mark.parametrize("path", sorted((ROOT / "mnist_jax").glob("*.py")), ids=lambda p: p.name)
def test_every_module_is_on_the_map(path):
    assert path.name == "__init__.py" or f"`{path.name}`" in README


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_command_names_flags_that_exist():
    from mnist_jax import cli

    commands = re.findall(r"^python -m mnist_jax.main (.*)$", README, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        cli.parse(command.partition("#")[0].split())
