"""Pictures of what a threshold trades for what: precision, recall and ROC curves of two classes.

The curves of one against the other are zoomed in on the perfect corner, as far as the thresholds
that are marked let them be.
"""

import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mnist_jax.analysis.thresholds import Curve, Point
from mnist_jax.report.plots import DASHED, PALETTE, STYLE, TOOLTIP

_WINDOWS = (0.02, 0.05, 0.1, 0.2, 0.5)  # how much of a whole axis may be shown


def precision_recall(curve: Curve, share: float, points: Mapping[str, Point]) -> Figure:
    """Precision against recall.

    Args:
        curve: from `thresholds.precision_recall`.
        share: of yes among the examples: the precision of chance.
        points: thresholds to mark, by name.
    """
    marks = {name: (point.recall, point.precision) for name, point in points.items()}
    window = _window([1 - min(mark) for mark in marks.values()])
    with mpl.rc_context(STYLE):
        figure, axes = _square("recall", "precision")
        axes.axhline(share, **DASHED)
        # Between two thresholds precision does not go straight (Davis and Goadrich 2006).
        axes.plot(curve.x, curve.y, color=PALETTE["accent"], drawstyle="steps-pre")
        _mark(axes, marks)
        _zoom(axes, (1 - window, 1.0), (1 - window, 1.0))
    return figure


def roc(curve: Curve, points: Mapping[str, Point]) -> Figure:
    """The receiver operating characteristic: true against false positive rate.

    Args:
        curve: from `thresholds.roc`.
        points: thresholds to mark, by name.
    """
    marks = {name: (point.false_positive_rate, point.recall) for name, point in points.items()}
    window = _window([max(x, 1 - y) for x, y in marks.values()])
    with mpl.rc_context(STYLE):
        figure, axes = _square("false positive rate", "recall, the true positive rate")
        axes.plot([0, 1], [0, 1], **DASHED)
        axes.plot(curve.x, curve.y, color=PALETTE["accent"])
        _mark(axes, marks)
        _zoom(axes, (0.0, window), (1 - window, 1.0))
    return figure


def _window(distances: list[float]) -> float:
    """The narrowest window that keeps points so far from the corner well inside; 1 for NaN."""
    return next((window for window in _WINDOWS if 1.5 * max(distances) <= window), 1.0)


def _square(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.6, 3.6))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlabel=xlabel, ylabel=ylabel, aspect="equal")
    return figure, axes


def _mark(axes: Axes, marks: Mapping[str, tuple[float, float]]) -> None:
    """Mark points with tooltips: a dark dot, a red square, then red rings; NaN is left out."""
    for number, (name, (x, y)) in enumerate(marks.items()):
        if math.isnan(x + y):
            continue
        colour = PALETTE["error" if number else "ink"]
        face = colour if number < 2 else "none"
        shape = "s" if number == 1 else "o"
        dot = axes.scatter(
            [x], [y], s=36, marker=shape, fc=face, ec=colour, lw=1.8, zorder=3, clip_on=False
        )
        dot.set_gid(f"{TOOLTIP}{name}: {axes.get_xlabel()} {x:.1%}, {axes.get_ylabel()} {y:.1%}")


def _zoom(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Show these ranges of both axes, with a margin for lines along the edge."""
    for axis, (low, high) in ((axes.xaxis, x), (axes.yaxis, y)):
        margin = (high - low) / 50
        axis.set_view_interval(low - margin, high + margin, ignore=True)
        axis.set_ticks(np.linspace(low, high, 6))
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0 if high - low > 0.04 else 1))
