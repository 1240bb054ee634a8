"""Pictures of what a threshold trades for what: precision, recall and ROC curves of two classes.

The curves of one against the other are zoomed in on the perfect corner, as far as the thresholds
that are marked let them be.
"""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mnist_jax.analysis.thresholds import Curve, Point
from mnist_jax.report import plots
from mnist_jax.report.plots import DASHED, PALETTE, TOOLTIP

_WINDOWS = (0.02, 0.05, 0.1, 0.2, 0.5)  # how much of a whole axis may be shown


@plots.styled
def precision_recall(curve: Curve, share: float, points: Mapping[str, Point]) -> Figure:
    """Precision against recall.

    Args:
        curve: from `thresholds.precision_recall`.
        share: of yes among the examples: the precision of chance.
        points: thresholds to mark, by name.
    """
    figure, axes = plots.panel(3.6, 3.6, xlabel="recall", ylabel="precision", aspect="equal")
    axes.axhline(share, **DASHED)
    # Between two thresholds precision does not go straight (Davis and Goadrich 2006).
    axes.plot(curve.x, curve.y, color=PALETTE["accent"], drawstyle="steps-pre")
    _mark(axes, {name: (point.recall, point.precision) for name, point in points.items()}, 1.0)
    return figure


@plots.styled
def roc(curve: Curve, points: Mapping[str, Point]) -> Figure:
    """Draw the receiver operating characteristic: true against false positive rate.

    Args:
        curve: from `thresholds.roc`.
        points: thresholds to mark, by name.
    """
    marks = {name: (point.false_positive_rate, point.recall) for name, point in points.items()}
    figure, axes = plots.panel(3.6, 3.6, xlabel="false positive rate", aspect="equal")
    axes.set_ylabel("recall, the true positive rate")
    axes.plot([0, 1], [0, 1], **DASHED)
    axes.plot(curve.x, curve.y, color=PALETTE["accent"])
    _mark(axes, marks, 0.0)
    return figure


def _mark(axes: Axes, marks: Mapping[str, tuple[float, float]], best_x: float) -> None:
    """Mark points with tooltips and zoom in on the perfect corner, (best_x, 1).

    The marks are a dark dot, a red square, then red rings; NaN is left out. The window is the
    narrowest one that keeps all marks well inside, or the whole plot for NaN.
    """
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
    distance = np.max([np.abs(np.subtract(mark, (best_x, 1.0))) for mark in marks.values()])
    window = next((window for window in _WINDOWS if 1.5 * distance <= window), 1.0)
    for axis, low in ((axes.xaxis, best_x * (1 - window)), (axes.yaxis, 1 - window)):
        margin = window / 50  # for lines along the edge
        axis.set_view_interval(low - margin, low + window + margin, ignore=True)
        axis.set_ticks(np.linspace(low, low + window, 6))
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0 if window > 0.04 else 1))
