"""Results: kept as JSON, shown as tables, the first of which README quotes between two marks."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"

ToMarkdown = Callable[[Any], str]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """A Markdown table with a line below that says what its figures are."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}\n"


def into_readme(readme: str, name: str, table: str) -> str:
    """README with a table between its marks `<!-- name -->` and `<!-- /name -->`, if any."""
    head, start, rest = readme.partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition(f"<!-- /{name} -->\n")
    return head + start + table + end + tail if end else readme


def publish(name: str, results: Any, to_markdown: Sequence[ToMarkdown]) -> None:
    """Writes results/name.json, its tables to results/name.md and the first into README.

    README is left alone where it has no marks for the table.
    """
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / f"{name}.md").write_text(page(results, to_markdown))
    README.write_text(into_readme(README.read_text(), name, to_markdown[0](results)))
    print(page(results, to_markdown))


def page(results: Any, to_markdown: Sequence[ToMarkdown]) -> str:
    """All tables of some results, one below the other."""
    return "\n".join(table(results) for table in to_markdown)


def read(name: str) -> Any:
    """The results that `publish` wrote."""
    return json.loads((RESULTS / f"{name}.json").read_text())
