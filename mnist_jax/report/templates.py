"""The Jinja environment of the pages."""

import inspect
from pathlib import Path

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from mnist_jax.report import formats, pictures, plots


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
    )
    for module in (formats, pictures):
        environment.filters.update(inspect.getmembers(module, inspect.isfunction))
    environment.filters["svg"] = _svg
    return environment.get_template(name)


def _svg(figure: Figure, label: str) -> Markup:
    return Markup(plots.svg(figure, label))
