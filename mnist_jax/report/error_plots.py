"""Pictures of a model's errors: kinds of error as a heat map, galleries, suspects, slices."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int32, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mnist_jax.analysis import error_analysis
from mnist_jax.analysis.slices import Slice
from mnist_jax.report.plots import PALETTE, STYLE, TOOLTIP, class_grid, plain, short

_SIDE = 5  # of a gallery, in images
_SUSPECTS = 15  # are shown


def confusion_shares(shares: Float[np.ndarray, "K K"], class_names: Sequence[str]) -> Figure:
    """The heat map of `errors.confusion_shares`: in percent of the true class; hits are left out.

    Args:
        shares: of the row's class that was taken for the column's.
        class_names: K names, of any length.
    """
    names = [plain(name) for name in class_names]
    largest = shares.max(initial=0.0) or 1.0
    with mpl.rc_context(STYLE):
        figure, axes = class_grid(class_names)
        for true, predicted in zip(*np.nonzero(shares), strict=True):
            share = shares[true, predicted]
            cell = Rectangle((predicted - 0.46, true - 0.46), 0.92, 0.92, color=PALETTE["error"])
            cell.set(alpha=0.06 + 0.7 * share / largest, linewidth=0, clip_on=False)
            cell.set_gid(f"{TOOLTIP}{share:.2%} of {names[true]} taken for {names[predicted]}")
            axes.add_patch(cell)
            number = f"{100 * share:.1f}" if share >= 0.0005 else "<0.1"
            axes.text(
                predicted, true, number, fontsize=8 if len(names) <= 15 else 5.5,
                ha="center", va="center_baseline",
            )  # fmt: skip
    return figure


def galleries(
    images: UInt8[np.ndarray, "N H W 1"],
    decisions: error_analysis.Decisions,
    labels: Int32[np.ndarray, "N"],
    pair: tuple[int, int],
    class_names: Sequence[str],
) -> Figure:
    """Two classes that are confused: a as a, a as b; below b as a, b as b; up to 25 images each.

    In each panel the predictions that the model was surest of come first.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.0, 5.5))
        figure.set_layout_engine("constrained", h_pad=0.1)
        panels = figure.subplots(2, 2)
        for (row, column), axes in np.ndenumerate(panels):
            actual, predicted = pair[row], pair[column]
            chosen = error_analysis.gallery(decisions, labels, actual, predicted)
            title = f"{short(class_names[actual])} as {short(class_names[predicted])}"
            colour = PALETTE["accent" if row == column else "error"]
            axes.set_title(
                f"{title}: {len(chosen):,}", loc="left", fontsize=9.5, fontweight="bold",
                color=colour, parse_math=False,
            )  # fmt: skip
            axes.set_axis_off()
            _tiles(axes, images[chosen[: _SIDE**2]])
    return figure


def _tiles(axes: Axes, images: UInt8[np.ndarray, "n H W 1"]) -> None:
    """Images side by side from the top left; the rest of the square stays empty."""
    for place, image in enumerate(images[..., 0]):
        y, x = divmod(place, _SIDE)
        extent = (x + 0.03, x + 0.97, y + 0.97, y + 0.03)
        axes.imshow(image, "gray", vmin=0, vmax=255, extent=extent, interpolation="none")
    axes.set(xlim=(0, _SIDE), ylim=(_SIDE, 0), aspect="equal")


def suspects(
    images: UInt8[np.ndarray, "N H W 1"],
    found: error_analysis.Suspects,
    labels: Int32[np.ndarray, "N"],
    class_names: Sequence[str],
) -> Figure:
    """The most suspect labels, at most 15: what is given → what it seems to be, over each image.

    Args:
        images: all examples, not only the suspects.
        found: from `errors.suspects`; of at least one.
        labels: as given.
        class_names: one a class, of any length.
    """
    shown = found.indices[:_SUSPECTS]
    rows = -(-len(shown) // _SIDE)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.0, 1.25 * rows))
        figure.set_layout_engine("constrained")
        panels = figure.subplots(rows, _SIDE, squeeze=False).ravel()
        for axes in panels:
            axes.set_axis_off()
        for axes, index, seems in zip(panels, shown, found.suggested, strict=False):
            given, other = (short(class_names[k], 10) for k in (labels[index], seems))
            axes.set_title(f"{given} → {other}", fontsize=8.5, parse_math=False)
            axes.imshow(images[index, ..., 0], "gray", vmin=0, vmax=255, interpolation="none")
    return figure


def slice_bars(groups: Mapping[str, Sequence[Slice]]) -> Figure:
    """The error of every slice with its 95% interval, in groups, all on one scale.

    Errors, not accuracies: bars have to start at 0, and accuracies near 100% would look all the
    same.

    Args:
        groups: slices under the name of what they slice by, as from `slices.by_shape`.
    """
    heights = [len(group) for group in groups.values()]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 0.4 + sum(0.24 * n + 0.45 for n in heights)))
        figure.set_layout_engine("constrained")
        panels = figure.subplots(len(groups), 1, sharex=True, height_ratios=heights, squeeze=False)
        for axes, (title, group) in zip(panels[:, 0], groups.items(), strict=True):
            axes.set_title(title.capitalize(), loc="left", fontsize=9.5, fontweight="bold")
            for place, part in enumerate(group):
                error = 1 - part.accuracy
                (bar,) = axes.barh(place, error, height=0.7, color=PALETTE["error"], alpha=0.45)
                bar.set_gid(
                    f"{TOOLTIP}{plain(part.name)}: {part.total - part.correct:,} errors in "
                    f"{part.total:,}, accuracy {part.accuracy:.2%}"
                )
                axes.hlines(place, 1 - part.high, 1 - part.low, color=PALETTE["ink"], lw=1.1)
            names = [short(part.name, 22) for part in group]
            axes.set_yticks(range(len(group)), names, parse_math=False)
            axes.set_ylim(len(group) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
        axes.set_xlabel("error")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure
