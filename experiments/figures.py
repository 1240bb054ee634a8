"""Figures of results, in the style of the package."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from experiments import tables
from mnist_jax.report.plots import PALETTE, STYLE

# One for each series; ours comes first.
COLOURS = (PALETTE["accent"], "#7a5195", "#d6455d", "#ef8a3c", "#3b6fb6", "#8d97a5", "#b8a13c")


def panels(rows: int, columns: int, draw: Callable[[Sequence[Axes]], Any]) -> Figure:
    """Return panels that a function draws on their axes, row by row."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * columns, 0.6 + 2.7 * rows), layout="constrained")
        draw(list(figure.subplots(rows, columns, squeeze=False).flat))
    return figure


def legend_below(axes: Sequence[Axes]) -> None:
    """Add one legend for all panels, with each label once."""
    labelled = [ax.get_legend_handles_labels() for ax in axes]
    legend = {label: handle for pair in labelled for handle, label in zip(*pair, strict=True)}
    axes[0].figure.legend(legend.values(), legend, loc="outside lower center", ncols=4)


def plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis 0.5, 1, 2, 5."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,g}")


def save(figure: Figure, name: str) -> None:
    """Write a figure next to its results as SVG; the same figure gives the same bytes."""
    path = tables.path(name, "svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(path, facecolor="white", metadata={"Date": None})
