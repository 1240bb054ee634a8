"""Quotes of the source in Markdown: `<!-- FILE NAME -->`, followed by a block of Python.

`python -m experiments.tables` writes the quotes of `docs/tour.md` again.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
_QUOTE = re.compile(r"(<!-- (\S+\.py) (\w+) -->\n)(?:```python\n.*?```\n)?", re.DOTALL)


def definition(file: str, name: str) -> str:
    """Return the source of a function, class or variable at the top level of a file.

    Args:
      file: relative to the root of the project.
      name: of the definition.

    Raises:
      KeyError: the file does not define the name.
    """
    text = (ROOT / file).read_text()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(line.lineno for line in node.decorator_list)])
            found = node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first, found = node.lineno, node.target.id
        else:
            continue
        if found == name:
            return "".join(text.splitlines(keepends=True)[first - 1 : node.end_lineno])
    raise KeyError(f"{file} does not define {name}")


def update(page: str) -> str:
    """Return a page with its quotes as the source has them now."""
    return _QUOTE.sub(lambda m: f"{m[1]}```python\n{definition(m[2], m[3])}```\n", page)
