"""Results that README quotes: kept as JSON, shown as a table between two marks."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """A Markdown table with a line below that says what its figures are."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}\n"


def into_readme(readme: str, name: str, table: str) -> str:
    """README with a table between its marks `<!-- name -->` and `<!-- /name -->`."""
    head, start, rest = readme.partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition(f"<!-- /{name} -->\n")
    return head + start + table + end + tail


def publish(name: str, results: Any, to_markdown: Callable[[Any], str]) -> None:
    """Writes results/name.json, and the table where README has the marks for it."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    table = to_markdown(results)
    README.write_text(into_readme(README.read_text(), name, table))
    print(table)


def read(name: str) -> Any:
    """The results that `publish` wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())
