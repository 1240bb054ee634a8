"""Pictures of several runs, each in its own colour."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mnist_jax.analysis.stats import Described
from mnist_jax.compare.comparison import Run
from mnist_jax.report import plots
from mnist_jax.report.plots import PALETTE, SERIES, TOOLTIP


def colour(place: int) -> str:
    """Return the name of a run's colour, by its place."""
    return SERIES[place % len(SERIES)]


@plots.styled
def accuracies(
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    found: Sequence[Described],
    on_new_images: Sequence[tuple[float, float] | None],
) -> Figure:
    """Draw a line of points per run, with its mean and intervals.

    Args:
      names: of the runs.
      values: the accuracy of each trial.
      found: the same described.
      on_new_images: the interval of each, drawn as a thinner line.
    """
    figure, axes = plots.panel(5.2, 0.4 + 0.42 * len(names), yticks=[])
    rows = zip(names, values, found, on_new_images, strict=True)
    for place, (name, trials, one, wider) in enumerate(rows):
        shade = PALETTE[colour(place)]
        if len(trials) > 1:
            for trial in trials:
                dot = axes.scatter([trial], [place], s=24, alpha=0.4, color=shade, lw=0)
                dot.set_gid(f"{TOOLTIP}{name}: {trial:.2%}")
        if wider:
            axes.hlines(place, *wider, color=shade, lw=1)
        if one.low is not None and one.high is not None:
            axes.hlines(place, one.low, one.high, color=shade, lw=3)
        dot = axes.scatter([one.mean], [place], s=64, color=shade, lw=0, zorder=3)
        dot.set_gid(f"{TOOLTIP}{name}: {one.mean:.2%}")
        # Above its line, so that a long name takes no width from the picture.
        axes.annotate(
            name, (0, place), (0, 7), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=8.5, parse_math=False,
        )  # fmt: skip
    axes.set_ylim(len(names) - 0.6, -0.7)
    axes.margins(x=0.06)
    plots.score_ticks(axes.xaxis, limit=5)
    return figure


@plots.styled
def learning(runs: Sequence[Run]) -> Figure | None:
    """Validation loss and error against the epoch; of several trials, their median and range.

    None if no run was validated.
    """
    histories = [
        [
            {**row, "val_error": 1 - row["val_accuracy"]}
            for row in run.history
            if row["val_loss"] is not None
        ]
        for run in runs
    ]
    if not any(histories):
        return None
    figure, panels = plots.epoch_panels({"Validation loss": 1.95, "Validation error": 1.95})
    for axes, column in zip(panels, ("val_loss", "val_error"), strict=True):
        for place, rows in enumerate(histories):
            plots.curve(axes, rows, column, PALETTE[colour(place)])
        plots.scale_to(axes, np.array([row[column] for rows in histories for row in rows]))
    panels[1].yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    return figure
