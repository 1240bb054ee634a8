"""Figures of a run as matplotlib `Figure`s, and `svg`, which turns a figure into part of a page.

Figures are made without pyplot, so they have no global state. Their colours are a small palette;
`svg` replaces each by the CSS variable of the same name, so that a figure follows the page from
light to dark.
"""

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from mnist_jax.report import formats
from mnist_jax.types import Row

PALETTE = {
    "ink": "#22262b",
    "muted": "#69707a",
    "line": "#e4e3de",
    "train": "#8d97a5",
    "accent": "#0f7a6e",
    "error": "#d6455d",
    "orange": "#c8641b",
    "blue": "#3b6fb6",
    "violet": "#7a5195",
}
# Colours of several runs in one picture: the first is the baseline.
SERIES = ("train", "accent", "orange", "blue", "violet", "error")
TOOLTIP = "tooltip:"  # an artist shows the rest of a gid with this prefix when hovered
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: one layout everywhere
    "font.size": 9,
    "text.color": PALETTE["ink"],
    "axes.edgecolor": PALETTE["line"],
    "axes.labelcolor": PALETTE["muted"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.titley": 1.0,
    "axes.axisbelow": True,
    "grid.color": PALETTE["line"],
    "grid.linewidth": 0.8,
    "xtick.color": PALETTE["muted"],
    "ytick.color": PALETTE["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "legend.frameon": False,
}

TITLE: dict[str, Any] = {"loc": "left", "fontsize": 9.5, "fontweight": "bold"}  # of a panel
DASHED: dict[str, Any] = {"color": PALETTE["train"], "linewidth": 0.9, "linestyle": (0, (3, 3))}


styled = mpl.rc_context(STYLE)  # decorates functions that draw


def panel(width: float, height: float, **settings: Any) -> tuple[Figure, Axes]:
    """Make a figure of a size in inches that is filled by one `Axes` with these properties."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(**settings)
    return figure, axes


def stack(width: float, heights: Mapping[str, float]) -> tuple[Figure, list[Axes]]:
    """Make panels of one width below each other that share their x axis.

    Args:
        width: of every panel, in inches.
        heights: of the panels, in inches, by their titles.
    """
    room = 0.27  # for a title, above each panel; matplotlib drops lines outside of the figure
    total, count = sum(heights.values()), len(heights)
    figure = Figure(figsize=(width, total + room * count))
    places = {"left": 0, "right": 1, "bottom": 0, "top": 1 - room / figure.get_figheight()}
    grid = figure.subplots(
        count, 1, sharex=True, height_ratios=[*heights.values()], squeeze=False,
        gridspec_kw={**places, "hspace": room * count / total},
    )  # fmt: skip
    panels: list[Axes] = grid[:, 0].tolist()
    for axes, title in zip(panels, heights, strict=True):
        axes.set_title(title, **TITLE)
    return figure, panels


def epoch_panels(heights: Mapping[str, float]) -> tuple[Figure, list[Axes]]:
    """Make panels above each other that share an axis of epochs, from titles and heights."""
    figure, panels = stack(3.95, heights)
    for axes in panels:
        axes.grid(visible=False, axis="x")
    panels[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    panels[-1].set_xlabel("epoch")
    return figure, panels


@styled
def learning_curves(history: Sequence[Row], best_epoch: int | None = None) -> Figure:
    """Loss, scores and learning rate against the epoch, on one shared axis.

    Several trials are drawn as their median and a band from the smallest value to the largest.

    Args:
        history: rows of `metrics.jsonl`. None and non-finite values leave gaps.
        best_epoch: the epoch to mark: the one whose parameters were evaluated. Without validation
            it is just the last one, and not marked.
    """
    columns = (history or [{}])[0].keys() - {"val_loss"}
    scores = sorted(key.removeprefix("val_") for key in columns if key.startswith("val_"))
    scores = [score for score in scores if _values(history, f"train_{score}", f"val_{score}")]
    names = [formats.score_name(column) for column in ("loss", *scores)]
    heights = {name[0].upper() + name[1:]: 1.64 for name in names}
    has_rate = bool(_values(history, "learning_rate"))
    figure, panels = epoch_panels(heights | ({"Learning rate": 0.55} if has_rate else {}))
    for axes, column in zip(panels, ("loss", *scores), strict=False):
        curve(axes, history, f"train_{column}", PALETTE["train"], "train")
        curve(axes, history, f"val_{column}", PALETTE["accent"], "validation")
        if column != "loss":
            score_ticks(axes.yaxis, column)
    loss, last = panels[0], panels[-1]
    scale_to(loss, np.array(_values(history, "train_loss", "val_loss")))
    if has_rate:
        curve(last, history, "learning_rate", PALETTE["muted"])
        last.set_ylim(bottom=0)
        last.yaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
        last.yaxis.set_major_formatter("{x:g}")
    if best_epoch is not None and _values(history, "val_loss"):
        for axes in panels:
            axes.axvline(best_epoch, label=f"best epoch ({best_epoch})", **DASHED)
    if len({row["epoch"] for row in history}) == 1:  # one point has no extent to scale by
        last.set_xlim(history[0]["epoch"] - 1, history[0]["epoch"] + 1)
    if loss.get_legend_handles_labels()[0]:
        loss.legend(
            loc="lower right", bbox_to_anchor=(1.01, 0.98), ncols=3, columnspacing=1.2,
            handlelength=1.4, handletextpad=0.5, borderaxespad=0,
        )  # fmt: skip
    return figure


def _values(rows: Sequence[Row], *columns: str) -> list[float]:
    """Return all finite values of some columns; a row may lack a column."""
    values = [row.get(column) for column in columns for row in rows]
    return [value for value in values if value is not None and math.isfinite(value)]


def curve(
    axes: Axes, history: Sequence[Row], column: str, colour: str, label: str | None = None
) -> None:
    """Draw a column of the history: the median of each epoch and, of several values, their range.

    Without finite values, draw neither a curve nor a legend entry.
    """
    by_epoch: dict[int, list[float]] = {}
    for row in history:
        by_epoch.setdefault(row["epoch"], []).extend(_values([row], column))
    if not any(by_epoch.values()):
        return
    epochs = sorted(by_epoch)
    values = [by_epoch[epoch] or [math.nan] for epoch in epochs]
    if max(map(len, values)) > 1:
        limits = [*map(min, values)], [*map(max, values)]
        axes.fill_between(epochs, *limits, color=colour, alpha=0.22)
    marker = "o" if len(epochs) <= 25 else None  # a line of one point would be invisible
    axes.plot(epochs, [*map(np.median, values)], color=colour, label=label, marker=marker)


def score_ticks(axis: Axis, score: str = "accuracy", limit: int | None = None) -> None:
    """Format the ticks of an axis of scores, at most `limit` + 1: PSNR in dB, others in percent."""
    axis.set_major_formatter("{x:g} dB" if score == "psnr" else PercentFormatter(1.0))
    if limit:
        axis.set_major_locator(MaxNLocator(limit))


def scale_to(axes: Axes, values: Float[np.ndarray, "_"]) -> None:
    """Make the y axis logarithmic if the values cover a wide range.

    A linear one would show little but the first epoch.
    """
    if values.size and 0 < 8 * values.min() < values.max():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")


@styled
def confusion(matrix: Int[np.ndarray, "K K"], class_names: Sequence[str]) -> Figure:
    """Draw the confusion matrix for its errors: the diagonal has one pale colour throughout.

    The colour of an error shows its share of the true class, on a square-root scale up to the
    largest share, so that a few errors are visible next to a hundred. Tooltips name the cells.

    Args:
        matrix: counts; rows: true class, columns: predicted.
        class_names: K names, of any length.
    """
    names = [plain(name) for name in class_names]
    support = matrix.sum(axis=1, keepdims=True)
    share = np.sqrt(matrix / np.maximum(support, 1))
    largest = np.where(np.eye(len(names), dtype=bool), 0.0, share).max(initial=0.0) or 1.0
    figure, axes = class_grid(class_names)
    few = len(names) <= 15
    for true, predicted in np.argwhere(matrix).tolist():
        count, hit = matrix[true, predicted], true == predicted
        square = heat_square(axes, true, predicted, "accent" if hit else "error")
        square.set_alpha(0.16 if hit else 0.08 + 0.62 * share[true, predicted] / largest)
        images = f"{count:,} {'image' if count == 1 else 'images'}"
        square.set_gid(f"{TOOLTIP}true {names[true]}, predicted {names[predicted]}: {images}")
        axes.text(
            predicted, true, str(count), fontsize=9 if few else 6.5, ha="center",
            va="center_baseline", fontweight="bold" if hit and few else "normal",
            in_layout=predicted == len(names) - 1,  # no other could stick out
        )  # fmt: skip
    return figure


def heat_square(axes: Axes, row: int, column: int, colour: str) -> Rectangle:
    """Draw the square of a heat map's cell in a colour of the palette."""
    square = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, color=PALETTE[colour], linewidth=0)
    square.set_clip_on(False)  # thousands of clip paths would only enlarge the page
    square.set_in_layout(False)  # it lies within the axes
    axes.add_artist(square)  # not add_patch, which measures it for limits that are set anyway
    return square


def class_grid(class_names: Sequence[str]) -> tuple[Figure, Axes]:
    """Make an empty figure with a cell per pair of classes: rows are true, columns predicted."""
    classes = len(class_names)
    labels = [short(name) for name in class_names]
    side = max(2.6, classes * (0.4 if classes <= 15 else 0.29))
    figure, axes = panel(side, side, xlabel="predicted", ylabel="true", aspect="equal")
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    lines: dict[str, Any] = {"color": PALETTE["line"], "linewidth": 0.8, "zorder": 0.5}
    edges, ends = np.arange(-0.5, classes), (-0.5, classes - 0.5)
    axes.vlines(edges, *ends, **lines)  # minor ticks would take longer to draw than all else
    axes.hlines(edges, *ends, **lines)
    # Without parse_math=False a class called "$" would be typeset as a formula.
    axes.set_xticks(range(classes), labels, parse_math=False)
    axes.set_yticks(range(classes), labels, parse_math=False)
    if max(map(len, labels)) > 3:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    return figure, axes


@styled
def reliability(bins: Sequence[Row], pale: Sequence[Row] = ()) -> Figure:
    """Draw the reliability diagram: accuracy against confidence (DeGroot and Fienberg, 1983).

    Args:
        bins: each with the `count` of its predictions, their mean `confidence` and their
            `accuracy`. Empty bins are not drawn, and neither are bins of a diverged run, whose
            confidence is None or NaN.
        pale: bins for comparison, drawn in a pale colour.
    """
    figure, axes = panel(3.6, 3.6, xlabel="confidence", ylabel="share right", aspect="equal")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.plot([0, 1], [0, 1], **DASHED)
    for rows, colour, line in ((pale, "train", "train"), (bins, "accent", "error")):
        drawn = [row for row in rows if row["count"] and (row["confidence"] or 0) > 0]
        total = sum(row["count"] for row in drawn)
        for row in drawn:
            size, x, y = row["count"], row["confidence"], row["accuracy"]
            axes.vlines(x, x, y, color=PALETTE[line], lw=1.4)
            area = 16 + 100 * (size / total) ** 0.5
            dot = axes.scatter([x], [y], s=area, color=PALETTE[colour], lw=0, zorder=3)
            dot.set_gid(f"{TOOLTIP}{size:,} at confidence {x:.1%}: {y:.1%} right")
    for axis in (axes.xaxis, axes.yaxis):
        score_ticks(axis, limit=5)
    return figure


def plain(name: str) -> str:
    """Return a name on one line, without the control characters that XML cannot hold."""
    return "".join(letter if letter.isprintable() else " " for letter in name)


def short(name: str, limit: int = 13) -> str:
    """Return a plain name of at most `limit` letters, to fit along an axis."""
    name = plain(name)
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def svg(figure: Figure, label: str) -> str:
    """Return the figure as an `<svg>` element for an HTML page: same figure, same bytes.

    Args:
        figure: its colours of `PALETTE` become `var(--name)`.
        label: its text for screen readers; unique on a page, to keep the ids unique.
    """
    buffer = io.StringIO()
    # Text stays text, in the font that the page chooses. The salt fixes otherwise random ids.
    style = STYLE | {"svg.fonttype": "none", "svg.hashsalt": label}
    undated = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context(style), warnings.catch_warnings():
        # The browser draws the text, so matplotlib's own font need not have the glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_visible(False)
        dpi = figure.dpi
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata=undated)  # not savefig, which draws everything twice
        box = figure.get_tightbbox().padded(0.04)  # in inches, from the lower left corner
        figure.dpi = dpi  # which print_svg has changed
    root = ElementTree.fromstring(buffer.getvalue())
    left, top = box.x0, figure.get_figheight() - box.y1
    edges = [f"{72 * inches:.3f}" for inches in (left, top, box.width, box.height)]
    root.attrib.update(viewBox=" ".join(edges), width=f"{edges[2]}pt", height=f"{edges[3]}pt")
    _make_inline(root, used=set(re.findall(r'(?:url\(#|href="#)(\w+)', buffer.getvalue())))
    root.attrib.update({"role": "img", "aria-label": label})
    return ElementTree.tostring(root, encoding="unicode")


def _make_inline(root: ElementTree.Element, used: set[str]) -> None:
    """Turn a document, in place, into an element that does not interfere with its page."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]  # HTML needs no namespaces
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            element.set(key.rpartition("}")[2], value)
        if "style" in element.attrib:
            for name, colour in PALETTE.items():  # keep the colour for where there is no variable
                style = element.attrib["style"]
                element.set("style", style.replace(colour, f"var(--{name}, {colour})"))
        name = element.get("id", "")
        if name not in used:  # it would only clash with the next figure's
            element.attrib.pop("id", None)
        if name.startswith(TOOLTIP):
            title = ElementTree.Element("title")
            title.text = name.removeprefix(TOOLTIP)
            element.insert(0, title)
    for parent in list(root.iter()):
        for sheet in parent.findall("style"):  # its one rule would hold for the whole page
            parent.remove(sheet)
