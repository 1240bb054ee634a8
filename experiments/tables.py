"""Results: kept as JSON, shown as tables, the first of which README quotes between two marks.

    python -m experiments.tables    # all tables again from their JSON; or: make tables

results/NAME.json and results/NAME-ANYTHING.json are of experiments/NAME.py, whose `TABLES` are the
functions that write their tables.
"""

import importlib
import json
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mnist_jax.runtime import provenance

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"

LIBRARIES = ("jax", "flax", "torch", "keras", "tensorflow", "tensorflow-cpu")

ToMarkdown = Callable[[Any], str]


def origin(module: str) -> dict[str, Any]:
    """Where a module's results come from: the command typed, machine, libraries and revision."""
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
    """The end of a note: what `origin` found. Earlier records know less of it."""
    versions = record.get("versions") or {"jax": record["jax"]}
    names = ", ".join(f"{library} {number}" for library, number in versions.items())
    revision = record.get("git_revision")
    at = f", revision {short(revision)}" if revision else ""
    return f"{record['device']}, {names}{at}; `{record['command']}`."


def short(revision: str | None) -> str:
    """A commit in seven digits, with what follows it; of none "-"."""
    return revision.replace(revision[7:40], "") if revision else "-"


def devices(rows: Iterable[Mapping[str, Any]]) -> str:
    """The machines on which rows were measured."""
    return " and ".join(sorted({row["device"] for row in rows}))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation; of one value that value, of none "-"."""
    if not values:
        return "-"
    sd = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{sd}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """A Markdown table with a line below that says what its figures are."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}\n"


def into_readme(readme: str, name: str, table: str) -> str:
    """README with a table between its marks `<!-- name -->` and `<!-- /name -->`, if any."""
    head, start, rest = readme.partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition(f"<!-- /{name} -->\n")
    return head + start + table + end + tail if end else readme


def publish(
    name: str, results: Any, to_markdown: Sequence[ToMarkdown], *, quick: bool = False
) -> None:
    """Writes results/name.json, its tables to results/name.md and the first into README.

    README is left alone where it has no marks for the table. What was quick is only printed.
    """
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
        show(name, results, to_markdown)
    print(page(results, to_markdown))


def show(name: str, results: Any, to_markdown: Sequence[ToMarkdown]) -> None:
    """Writes the tables of some results, as `publish` does."""
    (RESULTS / f"{name}.md").write_text(page(results, to_markdown))
    README.write_text(into_readme(README.read_text(), name, to_markdown[0](results)))


def page(results: Any, to_markdown: Sequence[ToMarkdown]) -> str:
    """All tables of some results, one below the other."""
    return "\n".join(table(results) for table in to_markdown)


def of(name: str) -> Sequence[ToMarkdown]:
    """The tables of the experiment that some results are of."""
    return importlib.import_module(f"experiments.{name.partition('-')[0]}").TABLES


def names() -> list[str]:
    """Of all results."""
    return sorted(path.stem for path in RESULTS.glob("*.json"))


def read(name: str) -> Any:
    """The results that `publish` wrote; empty where it wrote none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    for found in names():
        show(found, read(found), of(found))
