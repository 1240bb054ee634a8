"""Pictures of a model's errors: kinds of error as a heat map, galleries, suspects, slices."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int32, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_jax.analysis import error_analysis
from mnist_jax.analysis.slices import Slice
from mnist_jax.report import plots
from mnist_jax.report.plots import PALETTE, TITLE, TOOLTIP, plain, short

_SIDE = 5  # of a gallery, in images
_SUSPECTS = 15  # are shown


@plots.styled
def confusion_shares(shares: Float[np.ndarray, "K K"], class_names: Sequence[str]) -> Figure:
    """Draw the heat map of `error_analysis.confusion_shares`, in percent of the true class.

    Args:
        shares: of the row's class that was taken for the column's; the diagonal is 0.
        class_names: K names, of any length.
    """
    names = [plain(name) for name in class_names]
    largest = shares.max(initial=0.0) or 1.0
    figure, axes = plots.class_grid(class_names)
    for true, predicted in np.argwhere(shares).tolist():
        share = shares[true, predicted]
        square = plots.heat_square(axes, true, predicted, "error")
        square.set_alpha(0.06 + 0.7 * share / largest)
        square.set_gid(f"{TOOLTIP}{share:.2%} of {names[true]} taken for {names[predicted]}")
        axes.text(
            predicted, true, f"{100 * share:.1f}" if share >= 0.0005 else "<0.1", ha="center",
            va="center_baseline", fontsize=8 if len(names) <= 15 else 5.5, in_layout=False,
        )  # fmt: skip
    return figure


@plots.styled
def galleries(
    images: UInt8[np.ndarray, "N H W 1"],
    decisions: error_analysis.Decisions,
    labels: Int32[np.ndarray, "N"],
    pair: tuple[int, int],
    class_names: Sequence[str],
) -> Figure:
    """Two classes that are confused: a as a, a as b; below b as a, b as b; up to 25 images each.

    In each panel the most confident predictions come first.
    """
    figure = Figure(figsize=(4.9, 5.4))
    places = {"left": 0, "right": 1, "bottom": 0, "top": 0.95, "wspace": 0.05, "hspace": 0.15}
    for (row, column), axes in np.ndenumerate(figure.subplots(2, 2, gridspec_kw=places)):
        actual, predicted = pair[row], pair[column]
        chosen = error_analysis.gallery(decisions, labels, actual, predicted)
        title = f"{short(class_names[actual])} as {short(class_names[predicted])}: {len(chosen):,}"
        colour = PALETTE["accent" if row == column else "error"]
        axes.set_title(title, **TITLE, color=colour, parse_math=False)
        axes.set_axis_off()
        for place, image in enumerate(images[chosen[: _SIDE**2]]):
            y, x = divmod(place, _SIDE)
            _show(axes, image, (x + 0.03, x + 0.97, y + 0.97, y + 0.03))
        axes.set(xlim=(0, _SIDE), ylim=(_SIDE, 0), aspect="equal")
    return figure


def _show(
    axes: Axes,
    image: UInt8[np.ndarray, "H W 1"],
    extent: tuple[float, float, float, float] | None = None,
) -> None:
    axes.imshow(image, "gray", vmin=0, vmax=255, extent=extent, interpolation="none")


@plots.styled
def suspects(
    images: UInt8[np.ndarray, "N H W 1"],
    found: error_analysis.Suspects,
    labels: Int32[np.ndarray, "N"],
    class_names: Sequence[str],
) -> Figure:
    """Draw at most 15 of the most suspect labels: given → suggested class above each image.

    Args:
        images: all examples, not only the suspects.
        found: from `error_analysis.suspects`; of at least one.
        labels: as given.
        class_names: one a class, of any length.
    """
    shown = found.indices[:_SUSPECTS]
    rows = -(-len(shown) // _SIDE)
    figure = Figure(figsize=(5.0, 1.25 * rows), layout="constrained")
    panels = figure.subplots(rows, _SIDE, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, index, suggested in zip(panels, shown, found.suggested, strict=False):
        given, other = (short(class_names[k], 10) for k in (labels[index], suggested))
        axes.set_title(f"{given} → {other}", fontsize=8.5, parse_math=False)
        _show(axes, images[index])
    return figure


@plots.styled
def slice_bars(groups: Mapping[str, Sequence[Slice]]) -> Figure:
    """Draw the error of every slice with its 95% interval, in groups, all on one scale.

    Errors, not accuracies: bars have to start at 0, and accuracies near 100% would look all the
    same.

    Args:
        groups: slices by the name of the property, as from `slices.by_shape`.
    """
    heights = {title.capitalize(): 0.28 * len(group) for title, group in groups.items()}
    figure, panels = plots.stack(3.15, heights)
    for axes, group in zip(panels, groups.values(), strict=True):
        for place, part in enumerate(group):
            error, wrong = 1 - part.accuracy, part.total - part.correct
            (bar,) = axes.barh(place, error, height=0.7, color=PALETTE["error"], alpha=0.45)
            text = f"{wrong:,} errors in {part.total:,}, accuracy {part.accuracy:.2%}"
            bar.set_gid(f"{TOOLTIP}{plain(part.name)}: {text}")
            axes.hlines(place, 1 - part.high, 1 - part.low, color=PALETTE["ink"], lw=1.1)
        names = [short(part.name, 22) for part in group]
        axes.set_yticks(range(len(group)), names, parse_math=False)
        axes.set_ylim(len(group) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
    axes.set(xlabel="error", xlim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    plots.score_ticks(axes.xaxis)
    return figure
