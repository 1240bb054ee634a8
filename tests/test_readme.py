"""README says what is so: its code runs, its table is what was measured, its map is complete."""

import json
import re
import shlex
from pathlib import Path

import pytest

from experiments import baselines, tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NAMES = tables.names()


def test_the_tour_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert float(capsys.readouterr().out.splitlines()[-1].split()[0]) > 0.9
    assert (tmp_path / "runs/tour/report.html").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_are_what_was_measured(name):
    results, to_markdown = tables.read(name), tables.of(name)
    assert tables.into_readme(README, name, to_markdown[0](results)) == README
    assert (tables.RESULTS / f"{name}.md").read_text() == tables.page(results, to_markdown)


def test_tables_are_written_again_from_what_was_measured(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- baselines -->\nold\n<!-- /baselines -->\n")
    monkeypatch.setattr(tables, "README", readme)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    results = json.loads((ROOT / "experiments/results/baselines.json").read_text())
    tables.show("baselines", results, tables.of("baselines"))
    table = (ROOT / "experiments/results/baselines.md").read_text()
    assert (tmp_path / "baselines.md").read_text() == table
    assert readme.read_text() == f"<!-- baselines -->\n{table}<!-- /baselines -->\n"


def test_what_readme_quotes_is_there():
    quoted = re.findall(r"^<!-- ([\w-]+) -->$", README, re.MULTILINE)
    assert {"baselines", "speed-h200"} <= set(quoted) <= set(NAMES)
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).exists(), picture


def test_every_shipped_config_has_its_figures():
    rows = {row["config"]: row["n"] for row in tables.read("baselines")}
    assert rows == {f"configs/{name}": seeds for name, seeds in baselines.CONFIGS.items()}


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
        cli.parse(shlex.split(command, comments=True))
