"""Pictures of a data set: counts, intensities and principal components, class by class."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from mnist_jax.explore import statistics
from mnist_jax.report.plots import PALETTE, STYLE, TOOLTIP, plain, short

# Observable's ten categories (2023): told apart on white and on black.
_COLOURS = (
    "#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951",
    "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0",
)  # fmt: skip


def colour(label: int) -> str:
    """A class's colour; an eleventh class has that of the first."""
    return _COLOURS[label % len(_COLOURS)]


def class_counts(
    train: Int[np.ndarray, " K"], test: Int[np.ndarray, " K"], class_names: Sequence[str]
) -> Figure:
    """How many examples each class has in the training and in the test split."""
    with mpl.rc_context(STYLE):
        figure, axes = _class_rows(class_names)
        for counts, name, side in ((train, "train", -0.2), (test, "test", 0.2)):
            fill = PALETTE["accent" if name == "train" else "train"]
            bars = axes.barh(np.arange(len(counts)) + side, counts, 0.36, color=fill, label=name)
            for bar, count, row in zip(bars, counts, class_names, strict=True):
                bar.set_gid(f"{TOOLTIP}{plain(row)}: {count:,} to {name}")
            labels = [f"{count:,}" for count in counts]
            axes.bar_label(bars, labels, padding=3, fontsize=7.5, color=PALETTE["muted"])
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel("images")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)
    return figure


def densities(
    values: Float[np.ndarray, " n"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
    xlabel: str,
) -> Figure:
    """The density of one value within each class, all classes on one scale, one above the other."""
    at = np.linspace(0, values.max(initial=0.0), 200)
    curves = [statistics.density(values[labels == k], at) for k in range(len(class_names))]
    largest = max(curve.max() for curve in curves) or 1.0
    ridges = [k + 0.4 - 1.5 * curve / largest for k, curve in enumerate(curves)]  # they overlap
    with mpl.rc_context(STYLE):
        figure, axes = _class_rows(class_names)
        for k, ridge in enumerate(ridges):
            axes.fill_between(at, k + 0.4, ridge, color=PALETTE["accent"], alpha=0.25, lw=0)
            axes.plot(at, ridge, color=PALETTE["accent"], lw=1.2)
        axes.set_ylim(top=min(ridge.min() for ridge in ridges) - 0.1)
        axes.set(xlabel=xlabel, xlim=(0, at[-1] or 1.0))
    return figure


def boxes(
    values: Float[np.ndarray, " n"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
    xlabel: str,
) -> Figure:
    """Quartiles of one value within each class; whiskers from the 1st to the 99th percentile."""
    present = np.unique(labels)
    line = {"color": PALETTE["accent"], "linewidth": 1.2}
    with mpl.rc_context(STYLE):
        figure, axes = _class_rows(class_names)
        drawn = axes.boxplot(
            [values[labels == k] for k in present], positions=present, orientation="horizontal",
            whis=(1, 99), showfliers=False, widths=0.55, manage_ticks=False, patch_artist=True,
            whiskerprops=line, capprops=line, medianprops={"color": PALETTE["ink"]},
        )  # fmt: skip
        for box, k in zip(drawn["boxes"], present, strict=True):
            box.set(facecolor=PALETTE["accent"], alpha=0.35, linewidth=0)
            low, median, high = np.quantile(values[labels == k], (0.25, 0.5, 0.75))
            name = plain(class_names[k])
            box.set_gid(
                f"{TOOLTIP}{name}: median {median:.3g}, half within {low:.3g} to {high:.3g}"
            )
        axes.set(xlabel=xlabel, xlim=(0, None))
    return figure


def scatter(
    scores: Float32[np.ndarray, "n 2"],
    share: Float32[np.ndarray, "2"],
    labels: Int32[np.ndarray, " n"],
    class_names: Sequence[str],
) -> Figure:
    """Images by their first two principal components; each class named at its median.

    Args:
        scores: of both components.
        share: of the variance that each explains.
        labels: true classes.
        class_names: one a class, of any length.
    """
    x, y = scores.T
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 4.2))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.scatter(x, y, 4, [*map(colour, labels.tolist())], alpha=0.7, lw=0, clip_on=False)
        for label in np.unique(labels):
            own = labels == label
            axes.text(
                np.median(x[own]), np.median(y[own]), short(class_names[label]),
                ha="center", va="center", fontweight="bold", parse_math=False,
            )  # fmt: skip
        for axis, number in ((axes.xaxis, 0), (axes.yaxis, 1)):
            axis.set_label_text(f"component {number + 1}: {share[number]:.1%} of the variance")
            axis.set_major_locator(MaxNLocator(6))
    return figure


def _class_rows(class_names: Sequence[str]) -> tuple[Figure, Axes]:
    """An empty figure with a row for each class, the first one at the top."""
    classes = len(class_names)
    figure = Figure(figsize=(4.5, 0.6 + 0.36 * classes))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_yticks(range(classes), [short(name) for name in class_names], parse_math=False)
    axes.set_ylim(classes - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return figure, axes
