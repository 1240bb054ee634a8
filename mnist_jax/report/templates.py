"""The Jinja environment of the pages."""

import inspect
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from mnist_jax.report import formats, pictures, plots
from mnist_jax.types import printable


def load(name: str, *folders: Path) -> jinja2.Template:
    """Load a template of the package or of `folders`; unknown names are errors, text is escaped.

    Filters are `svg` and the functions of `formats` and `pictures`.
    """
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
    environment.filters["svg"] = _svg
    return environment.get_template(name)


def _finalize(value: Any) -> Any:
    """Replace control characters and undecodable bytes in text that is inserted into a page."""
    return printable(value) if type(value) is str else value  # not in markup


def _svg(figure: Figure, label: str) -> Markup:
    return Markup(plots.svg(figure, label))
