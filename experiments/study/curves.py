"""Curves that only the study draws: against the threshold, and ROC curves side by side."""

import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mnist_jax.analysis.thresholds import Curve, Point
from mnist_jax.report.plots import DASHED, PALETTE, SERIES, STYLE, TOOLTIP


def rocs(curves: Mapping[str, Curve]) -> Figure:
    """Draw the ROC curves of several systems in one plot.

    Args:
        curves: from `thresholds.roc`, by the system's name; six at most.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6, 3.6))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.plot([0, 1], [0, 1], **DASHED)
        for (name, curve), colour in zip(curves.items(), SERIES, strict=False):
            axes.plot(curve.x, curve.y, color=PALETTE[colour], label=name)
        axes.set(xlabel="false positive rate", ylabel="recall, the true positive rate")
        axes.set(aspect="equal", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(np.linspace(0, 1, 6))
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(loc="lower right")
    return figure


def against_threshold(curve: Curve, points: Mapping[str, Point]) -> Figure:
    """Draw precision and recall against the threshold.

    Args:
        curve: from `thresholds.precision_recall`.
        points: thresholds to mark, by name.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 3.6))
        axes = figure.add_axes((0, 0, 1, 1))
        marks = [point.threshold for point in points.values()]
        for mark in marks:
            axes.axvline(mark, **DASHED)
        precisions = [point.precision for point in points.values()]
        recalls = [point.recall for point in points.values()]
        for what, values, shares, colour in (
            ("precision", curve.y, precisions, PALETTE["accent"]),
            ("recall", curve.x, recalls, PALETTE["orange"]),
        ):
            axes.plot(curve.thresholds, values, color=colour, label=what)
            for (name, point), share in zip(points.items(), shares, strict=True):
                if math.isnan(share):
                    continue
                dot = axes.scatter([point.threshold], [share], s=36, color=colour, lw=0, zorder=3)
                dot.set_gid(f"{TOOLTIP}{name}: {what} {share:.1%} from {point.threshold:.4g} on")
        # The curve's points are evenly spaced along its length: at both ends little happens.
        ends = np.quantile(curve.thresholds, (0.02, 0.98))
        low, high = min(*ends, *marks), max(*ends, *marks)
        margin = (high - low) / 30 or 0.5
        axes.set(xlabel="threshold", xlim=(low - margin, high + margin), ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    return figure
