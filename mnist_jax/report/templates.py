"""The Jinja environment of the pages."""

from pathlib import Path

import jinja2

from mnist_jax.report import formats

_FILTERS = (
    formats.percent,
    formats.count,
    formats.loss,
    formats.duration,
    formats.memory,
    formats.score,
    formats.difference,
)


def load(name: str, *folders: Path) -> jinja2.Template:
    """Load a template of the package or of `folders`; unknown names are errors, text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent / "templates"]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update({function.__name__: function for function in _FILTERS})
    return environment.get_template(name)
