"""Results as JSON and as Markdown tables; docs/results.md shows the first table of each.

    python -m experiments.tables    # write all tables again from their JSON; or: make tables

NAME.json and NAME-ANYTHING.json are results of `experiments.NAME`, in the folder `results` next to
its code: `experiments/results` for a module, `experiments/NAME/results` for a package. The `TABLES`
of the module, or of the package's `report`, are the functions that write their tables. A page shows
a table between the marks `<!-- NAME -->` and `<!-- /NAME -->`.
"""

import argparse
import importlib
import json
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiments import quotes
from mnist_jax.runtime import provenance

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
RESULTS = FOLDER.parent / "docs" / "results.md"
TOUR = FOLDER.parent / "docs" / "tour.md"

LIBRARIES = ("jax", "flax", "torch", "keras", "tensorflow", "tensorflow-cpu")

ToMarkdown = Callable[[Any], str]


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """Return a parser for `experiments.name`, described by the first line of its docstring."""
    return argparse.ArgumentParser(f"python -m experiments.{name}", description=doc.splitlines()[0])


def origin(module: str) -> dict[str, Any]:
    """Return the origin of a module's results: command, machine, libraries and revision."""
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "device": provenance.device(),
        "versions": versions,
        "git_revision": provenance.git_revision(),
    }


def source(record: Mapping[str, Any]) -> str:
    """Return the end of a note, from `origin`; earlier records have less."""
    versions = record.get("versions") or {"jax": record["jax"]}
    names = ", ".join(f"{library} {number}" for library, number in versions.items())
    revision = record.get("git_revision")
    at = f", revision {short(revision)}" if revision else ""
    return f"{record['device']}, {names}{at}; `{record['command']}`."


def short(revision: str | None) -> str:
    """Return a commit in seven digits, with its suffix; "-" for None."""
    return revision.replace(revision[7:40], "") if revision else "-"


def devices(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the machines on which rows were measured."""
    return " and ".join(sorted({row["device"] for row in rows}))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return mean ± standard deviation; a single value alone, "-" for none."""
    if not values:
        return "-"
    sd = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{sd}"


def interval(gain: Mapping[str, Any]) -> str:
    """Return a difference with its 95% interval, as `stats.paired` computes them."""
    return f"{gain['difference']:+.2f} ({gain['low']:+.2f} to {gain['high']:+.2f})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """Return a Markdown table with a note below."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}\n"


def into_page(text: str, name: str, table: str) -> str:
    """Return a page with a table between its marks `<!-- name -->` and `<!-- /name -->`, if any."""
    head, start, rest = text.partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition(f"<!-- /{name} -->\n")
    return head + start + table + end + tail if end else text


def path(name: str, suffix: str) -> Path:
    """Return the file of some results: their JSON, their tables or their figure."""
    package = FOLDER / name.partition("-")[0]
    return (package if package.is_dir() else FOLDER) / "results" / f"{name}.{suffix}"


def publish(
    name: str, results: Any, to_markdown: Sequence[ToMarkdown], *, quick: bool = False
) -> None:
    """Write results as JSON and as tables, and the first table into docs/results.md.

    The page is unchanged if it has no marks for the table. Quick results are only printed.
    """
    if not quick:
        path(name, "json").parent.mkdir(parents=True, exist_ok=True)
        path(name, "json").write_text(json.dumps(results, indent=2) + "\n")
        show(name, results, to_markdown)
    print(page(results, to_markdown))


def show(name: str, results: Any, to_markdown: Sequence[ToMarkdown]) -> None:
    """Write the tables of some results, as `publish` does."""
    path(name, "md").write_text(page(results, to_markdown))
    RESULTS.write_text(into_page(RESULTS.read_text(), name, to_markdown[0](results)))
    if name == "baselines":
        README.write_text(into_page(README.read_text(), "headline", headline(results)))


def page(results: Any, to_markdown: Sequence[ToMarkdown]) -> str:
    """Return all tables of some results, one below the other."""
    return "\n".join(table(results) for table in to_markdown)


def headline(results: Any) -> str:
    """Return README's table, a short form of the baselines."""
    return importlib.import_module("experiments.baselines").short(results)


def of(name: str) -> Sequence[ToMarkdown]:
    """Return the functions that write the tables of some results."""
    experiment = name.partition("-")[0]
    module = f"{experiment}.report" if (FOLDER / experiment).is_dir() else experiment
    return importlib.import_module(f"experiments.{module}").TABLES


def names() -> list[str]:
    """Return the names of all results."""
    return sorted(path.stem for path in FOLDER.glob("**/results/*.json"))


def read(name: str) -> Any:
    """Read the results that `publish` wrote; empty if it wrote none."""
    file = path(name, "json")
    return json.loads(file.read_text()) if file.exists() else {}


if __name__ == "__main__":
    for found in names():
        show(found, read(found), of(found))
    TOUR.write_text(quotes.update(TOUR.read_text()))
