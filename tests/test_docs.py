"""README and docs: code and commands run, tables and quotes are up to date."""

import json
import os
import re
import shlex
import statistics
from pathlib import Path

import forks
import pytest
from PIL import Image
from tiny_runs import with_pages

from experiments import baselines, quotes, tables
from mnist_jax.__main__ import COMMANDS
from mnist_jax.data import datasets
from tests.test_contributing import RUN

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
NAMES = tables.names()


@pytest.mark.parametrize(
    "page", [p for p in DOCS if "import mnist_jax" in p.read_text()], ids=lambda p: p.stem
)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(code, page.name, "exec"), {})


@with_pages()
def test_the_readme_trains_a_net(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    accuracy = re.search(r"^(\S+) \[\[", capsys.readouterr().out, re.MULTILINE)[1]
    assert float(accuracy) > 0.9
    assert (tmp_path / "runs/tour/report.html").exists()


def test_quotes_are_up_to_date():
    """Else run `make tables`."""
    tour = (ROOT / "docs/tour.md").read_text()
    assert quotes.update(tour) == tour
    assert len(re.findall(r"<!-- \S+\.py \w+ -->\n```python\n", tour)) > 10


def test_a_quote_of_what_does_not_exist_is_an_error():
    with pytest.raises(KeyError, match="does not define nothing"):
        quotes.update("<!-- mnist_jax/types.py nothing -->\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)]*)\)", page.read_text()):
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if heading else []
        anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
        assert not heading or heading in anchors, target


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_are_what_was_measured(name):
    results, to_markdown = tables.read(name), tables.of(name)
    page = tables.RESULTS.read_text()
    assert f"<!-- {name} -->" in page
    assert tables.into_page(page, name, to_markdown[0](results)) == page
    assert tables.path(name, "md").read_text() == tables.page(results, to_markdown)


def test_the_table_of_the_readme_is_what_was_measured():
    table = tables.headline(tables.read("baselines"))
    assert table in README
    assert tables.into_page(README, "headline", table) == README


def test_tables_are_written_again_from_what_was_measured(tmp_path, monkeypatch):
    readme, page = tmp_path / "README.md", tmp_path / "results.md"
    readme.write_text("<!-- headline -->\nold\n<!-- /headline -->\n")
    page.write_text("<!-- baselines -->\nold\n<!-- /baselines -->\n")
    monkeypatch.setattr(tables, "README", readme)
    monkeypatch.setattr(tables, "RESULTS", page)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    results = json.loads((ROOT / "experiments/results/baselines.json").read_text())
    tables.show("baselines", results, tables.of("baselines"))
    table = (ROOT / "experiments/results/baselines.md").read_text()
    assert (tmp_path / "results/baselines.md").read_text() == table
    assert page.read_text() == f"<!-- baselines -->\n{table}<!-- /baselines -->\n"
    short = tables.headline(results)
    assert readme.read_text() == f"<!-- headline -->\n{short}<!-- /headline -->\n"


def test_the_headline_is_what_was_measured():
    headline = README.partition("**")[2].partition("**")[0].replace("\n", " ")
    (fast,) = (row for row in tables.read("baselines") if row["config"] == "configs/fast.py:mnist")
    assert f"{fast['test_accuracy_percent']:.2f} ± {fast['test_accuracy_sd']:.2f} %" in headline
    assert f"(n = {fast['n']}) in {fast['train_seconds']:.1f} s of training" in headline
    recipes = {row["recipe"]: row for row in tables.read("time_to_accuracy-mnist")["recipes"]}
    ours, theirs = (
        statistics.mean(recipes[name]["targets"]["99"]["train_seconds"])
        for name in ("configs/fast.py", "pytorch_mnist")
    )
    assert (
        f"validation accuracy after {ours:.1f} s; PyTorch's own example takes {theirs:.1f} s"
        in headline
    )


def test_every_shipped_config_has_its_figures():
    rows = {row["config"]: row["n"] for row in tables.read("baselines")}
    assert rows == {f"configs/{name}": seeds for name, seeds in baselines.CONFIGS.items()}


def test_every_part_of_the_package_is_in_the_layout():
    parts = [p for p in (ROOT / "mnist_jax").iterdir() if p.name[0] != "_" and p.suffix != ".typed"]
    for part in parts:
        assert f"`{part.name}{'/' if part.is_dir() else ''}`" in README, part


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


# What the shipped configs become, for commands to be over soon.
SMALL = """
import runpy

def get_config(dataset="mnist"):
    config = runpy.run_path({path!r})["get_config"]({argument!r})
    config.train.epochs = min(config.train.epochs, 2)
    if config.model.name != "linear" and config.model.widths != ():
        config.model.widths = (8,)
        if config.model.name == "cnn":
            config.model.channels = (4, 8)
    return config
"""


def small(command):
    """Return a command for digits, which need no download."""
    words = shlex.split(command, comments=True)
    if words[0] == "mnist-jax":
        module, *first = COMMANDS[words[1]]
        words = ["python", "-m", module.removesuffix(".__main__"), *first, *words[2:]]
    python, m, module, *argv = words
    assert (python, m) == ("python", "-m")
    argv = [arg.replace("mnist-s0", "digits-s0") for arg in argv]
    argv = [arg.replace("halving=2,5", "halving=1") for arg in argv]
    argv = [arg.replace("--dataset=fashion_mnist", "--dataset=digits") for arg in argv]
    return shlex.join([python, m, module, *argv])


@with_pages()
def test_every_command_runs(tmp_path):
    """Commands for several machines are in tests/runtime/test_multihost.py."""
    text = "".join(page.read_text() for page in PAGES)
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    elsewhere = ("--coordinator", "--distributed", "make ", "activate")
    commands = [line for line in commands if not any(word in line for word in elsewhere)]
    commands = list(dict.fromkeys(map(small, commands)))
    assert len(commands) > 15
    images = datasets.load("digits").test_images
    (tmp_path / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.py"):
        argument = "cnn_2x2_32,digits" if path.stem == "study" else "digits"
        small_config = SMALL.format(path=str(path), argument=argument)
        (tmp_path / "configs" / path.name).write_text(small_config)
    (tmp_path / "scans").mkdir()
    for name, image in {"three.jpg": images[0], "scans/a.png": images[1]}.items():
        Image.fromarray(image[..., 0]).resize((200, 200)).save(tmp_path / name)
    done = forks.run(["-W", "error", "-c", RUN, *commands], tmp_path, os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("runs/compare.html", "runs/explore-digits.html", "seen.html"):
        assert (tmp_path / page).exists(), page
