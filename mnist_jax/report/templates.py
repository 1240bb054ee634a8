"""The Jinja environment of the pages."""

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from mnist_jax.report import formats, pictures, plots
from mnist_jax.types import printable

_LONG = 5  # sections, from which on a page has a table of contents


def load(name: str, *folders: Path) -> jinja2.Template:
    """Load a template of the package or of `folders`; unknown names are errors, text is escaped.

    Filters are `svg` and the functions of `formats` and `pictures`.
    """
    return _environment(folders).get_template(name)


@functools.cache
def _environment(folders: tuple[Path, ...]) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent / "templates"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
    )
    for module in (formats, pictures):
        environment.filters.update(inspect.getmembers(module, inspect.isfunction))
    environment.filters |= {"svg": _svg, "contents": _contents}
    return environment


def _contents(body: str) -> Markup:
    """Give every heading of a page an id and, below the title of a long one, a list of links."""
    links: list[str] = []

    def identify(match: re.Match[str]) -> str:
        title = match["title"]
        name = match["id"] or f"section-{len(links) + 1}"
        text = escape(Markup(title).striptags())  # which has unescaped it
        links.append(f'<li><a href="#{name}">{text}</a></li>')
        return f'<h2 id="{name}">{title}</h2>'

    body = re.sub(r'<h2(?: id="(?P<id>[^"]*)")?>(?P<title>.*?)</h2>', identify, body)
    if len(links) < _LONG:
        return Markup(body)
    listed = f'<nav class="contents" aria-label="Contents"><ul>{"".join(links)}</ul></nav>'
    return Markup(body.replace("</header>", f"{listed}\n</header>", 1))


def _finalize(value: Any) -> Any:
    """Replace control characters and undecodable bytes in text that is inserted into a page."""
    return printable(value) if type(value) is str else value  # not in markup


def _svg(figure: Figure, label: str) -> Markup:
    return Markup(plots.svg(figure, label))
