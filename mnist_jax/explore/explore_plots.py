"""Pictures of a data set: counts, intensities and principal components, class by class."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_jax.explore import statistics
from mnist_jax.report import plots
from mnist_jax.report.plots import PALETTE, TOOLTIP, plain, short

Values = Float[np.ndarray, "_"]

# Observable's ten categories (2023): distinct on white and on black.
_COLOURS = (
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951",
    "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0",
)  # fmt: skip


def colour(label: int) -> str:
    """Return the colour of a class; colours repeat after ten classes."""
    return _COLOURS[label % len(_COLOURS)]


@plots.styled
def class_counts(counts: Mapping[str, Int[np.ndarray, " K"]], class_names: Sequence[str]) -> Figure:
    """Draw the number of examples of each class in the "train" and in the "test" split."""
    figure, axes = _class_rows(class_names, "images")
    for name, fill, side in (("train", "accent", -0.2), ("test", "train", 0.2)):
        numbers = counts[name]
        places = np.arange(len(numbers)) + side
        bars = axes.barh(places, numbers, 0.36, color=PALETTE[fill], label=name)
        for bar, count, row in zip(bars, numbers, class_names, strict=True):
            bar.set_gid(f"{TOOLTIP}{plain(row)}: {count:,} to {name}")
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=7.5, color=PALETTE["muted"])
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


@plots.styled
def densities(totals: Sequence[Values], class_names: Sequence[str]) -> Figure:
    """Draw the density of the total intensity of each class, below each other on one scale."""
    at = np.linspace(0, max(values.max(initial=0.0) for values in totals), 200)
    curves = [statistics.density(values, at) for values in totals]
    largest = max(curve.max() for curve in curves) or 1.0
    ridges = [k + 0.4 - 1.5 * curve / largest for k, curve in enumerate(curves)]  # they overlap
    figure, axes = _class_rows(class_names, "white pixels' worth of light")
    for k, ridge in enumerate(ridges):
        axes.fill_between(at, k + 0.4, ridge, color=PALETTE["accent"], alpha=0.25, lw=0)
        axes.plot(at, ridge, color=PALETTE["accent"], lw=1.2)
    axes.set_ylim(top=min(ridge.min() for ridge in ridges) - 0.1)
    axes.set_xlim(0, at[-1] or 1.0)
    return figure


@plots.styled
def boxes(means: Sequence[Values], class_names: Sequence[str]) -> Figure:
    """Draw the quartiles of the mean pixel by class; whiskers are the 1st and 99th percentiles."""
    present = [k for k, values in enumerate(means) if values.size]
    line = {"color": PALETTE["accent"], "linewidth": 1.2}
    figure, axes = _class_rows(class_names, "mean pixel, from black 0 to white 1")
    drawn = axes.boxplot(
        [means[k] for k in present], positions=present, orientation="horizontal",
        whis=(1, 99), showfliers=False, widths=0.55, manage_ticks=False, patch_artist=True,
        whiskerprops=line, capprops=line, medianprops={"color": PALETTE["ink"]},
    )  # fmt: skip
    for box, k in zip(drawn["boxes"], present, strict=True):
        box.set(facecolor=PALETTE["accent"], alpha=0.35, linewidth=0)
        low, median, high = np.quantile(means[k], (0.25, 0.5, 0.75))
        text = f"median {median:.3g}, half within {low:.3g} to {high:.3g}"
        box.set_gid(f"{TOOLTIP}{plain(class_names[k])}: {text}")
    axes.set_xlim(0, None)
    return figure


@plots.styled
def scatter(
    scores: Float32[np.ndarray, "n 2"],
    share: Float32[np.ndarray, "2"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
) -> Figure:
    """Draw the images by their first two principal components, each class named at its median.

    Args:
        scores: of the two components.
        share: of the variance that each explains.
        labels: true classes.
        class_names: one a class, of any length.
    """
    figure, axes = plots.panel(4.5, 4.2)
    x, y = scores.T
    axes.scatter(x, y, 4, [*map(colour, labels.tolist())], alpha=0.7, lw=0, clip_on=False)
    for label in np.unique(labels):
        left, top = np.median(scores[labels == label], axis=0)
        text = axes.text(left, top, short(class_names[label]), ha="center", va="center")
        text.set(fontweight="bold", parse_math=False)
    for number, axis in enumerate((axes.xaxis, axes.yaxis)):
        axis.set_label_text(f"component {number + 1}: {share[number]:.1%} of the variance")
        axis.set_major_locator(MaxNLocator(6))
    return figure


def _class_rows(class_names: Sequence[str], xlabel: str) -> tuple[Figure, Axes]:
    """Make an empty figure with a row for each class, the first one at the top."""
    classes = len(class_names)
    figure, axes = plots.panel(4.5, 0.6 + 0.36 * classes, xlabel=xlabel)
    axes.set_yticks(range(classes), [short(name) for name in class_names], parse_math=False)
    axes.set_ylim(classes - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return figure, axes
