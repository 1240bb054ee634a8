"""Pictures of several runs side by side, each in its own colour."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from mnist_jax.analysis.stats import Described
from mnist_jax.compare.comparison import Run
from mnist_jax.report.plots import PALETTE, SERIES, STYLE, TOOLTIP, band, scale_to


def colour(place: int) -> str:
    """The name of a run's colour, by its place."""
    return SERIES[place % len(SERIES)]


def accuracies(
    names: Sequence[str], values: Sequence[Sequence[float]], found: Sequence[Described]
) -> Figure:
    """A line of points a run, with its mean and interval.

    Args:
      names: of the runs.
      values: the accuracy of each trial.
      found: the same described.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 0.4 + 0.42 * len(names)))
        axes = figure.add_axes((0, 0, 1, 1))
        for place, (name, trials, one) in enumerate(zip(names, values, found, strict=True)):
            shade = PALETTE[colour(place)]
            if len(trials) > 1:
                for trial in trials:
                    dot = axes.scatter([trial], [place], s=24, alpha=0.4, color=shade, lw=0)
                    dot.set_gid(f"{TOOLTIP}{name}: {trial:.2%}")
            if one.low is not None and one.high is not None:
                axes.hlines(place, one.low, one.high, color=shade, lw=2)
            dot = axes.scatter([one.mean], [place], s=64, color=shade, lw=0, zorder=3)
            dot.set_gid(f"{TOOLTIP}{name}: {one.mean:.2%}")
            # Above its line, so that a long name takes no width from the picture.
            axes.annotate(
                name, (0, place), (0, 7), xycoords=("axes fraction", "data"),
                textcoords="offset points", fontsize=8.5, parse_math=False,
            )  # fmt: skip
        axes.set(ylim=(len(names) - 0.6, -0.7), yticks=[])
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def learning(runs: Sequence[Run]) -> Figure | None:
    """Validation loss and error against the epoch: of many trials the median, and all in a band.

    None where no run was validated.
    """
    histories = [[row for row in run.history if row["val_loss"] is not None] for run in runs]
    if not any(histories):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 5.0), layout="constrained")
        panels = figure.subplots(2, 1, sharex=True)
        for axes, title, of in (
            (panels[0], "Validation loss", lambda row: row["val_loss"]),
            (panels[1], "Validation error", lambda row: 1 - row["val_accuracy"]),
        ):
            axes.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
            axes.grid(visible=False, axis="x")
            for place, rows in enumerate(histories):
                by_epoch: dict[int, list[float]] = {}
                for row in rows:
                    by_epoch.setdefault(row["epoch"], []).append(of(row))
                band(axes, by_epoch, PALETTE[colour(place)])
            scale_to(axes, np.array([of(row) for rows in histories for row in rows]))
        panels[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        panels[1].xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        panels[1].set_xlabel("epoch")
    return figure
