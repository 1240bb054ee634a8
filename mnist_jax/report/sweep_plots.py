"""Pictures of many members: distributions, bands of learning curves, sweeps, committees."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mnist_jax.report.plots import PALETTE, STYLE, TOOLTIP, Row, band

_SHOWN = 12  # settings, the best ones


def name(overrides: Mapping[str, Any]) -> str:
    """A setting in short: the last part of each key, and the value."""
    pairs = (f"{key.rpartition('.')[2]} {_short(value)}" for key, value in overrides.items())
    return ", ".join(pairs) or "as configured"


def distribution(rows: Sequence[Row], settings: Sequence[Row]) -> Figure:
    """The validation accuracy of every member: a line of points a setting, the best above.

    Args:
      rows: of members.jsonl.
      settings: of summary.json; the mean and its 95% interval are drawn through the points.
    """
    judged = [setting for setting in settings if setting["val_accuracy"]]
    best = sorted(judged, key=lambda setting: -setting["val_accuracy"]["mean"])[:_SHOWN]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 0.6 + 0.3 * len(best)))
        axes = figure.add_axes((0, 0, 1, 1))
        for place, setting in enumerate(best):
            own = [row for row in rows if row["setting"] == setting["setting"]]
            for row in own:
                if row["val_accuracy"] is not None:
                    dot = axes.scatter(
                        [row["val_accuracy"]],
                        [place],
                        s=22,
                        alpha=0.45,
                        color=PALETTE["accent"],
                        linewidths=0,
                    )
                    dot.set_gid(f"{TOOLTIP}member {row['member']}: {row['val_accuracy']:.2%}")
            found = setting["val_accuracy"]
            axes.vlines(found["mean"], place - 0.25, place + 0.25, color=PALETTE["ink"])
            if found["low"] is not None:
                axes.hlines(place, found["low"], found["high"], color=PALETTE["ink"], lw=1.2)
        names = [name(setting["overrides"]) for setting in best]
        axes.set_yticks(range(len(best)), names if len(settings) > 1 else [""])
        axes.set(xlabel="validation accuracy", ylim=(len(best) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def learning_bands(history: Sequence[Row], members: Sequence[int], validated: bool) -> Figure:
    """Loss and accuracy against the epoch: the median of some members, and all in a band."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 4.2), layout="constrained")
        panels = figure.subplots(2, 1, sharex=True)
        for axes, what in zip(panels, ("loss", "accuracy"), strict=True):
            axes.set_title(what.capitalize(), loc="left", fontsize=9.5, fontweight="bold")
            axes.grid(visible=False, axis="x")
            _band(axes, history, members, f"train_{what}", "train", PALETTE["train"])
            if validated:
                _band(axes, history, members, f"val_{what}", "validation", PALETTE["accent"])
        panels[1].yaxis.set_major_formatter(PercentFormatter(1.0))
        panels[1].xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        panels[1].set_xlabel("epoch")
        panels[1].legend(loc="lower right")
    return figure


def _band(
    axes: Axes, history: Sequence[Row], members: Sequence[int], key: str, label: str, colour: str
) -> None:
    by_epoch: dict[int, list[float]] = {}
    for row in history:
        if row["member"] in members and row[key] is not None:
            by_epoch.setdefault(row["epoch"], []).append(row[key])
    band(axes, by_epoch, colour, label)


def sweep(settings: Sequence[Row]) -> Figure | None:
    """How the mean validation accuracy depends on what is swept.

    One key: the accuracies against its values; two that make a grid: a heat map, empty where all
    members of a setting diverged; else parallel coordinates.
    None where nothing is swept or judged, or settings differ in what they override.
    """
    judged = [setting for setting in settings if setting["val_accuracy"]]
    keys = list(settings[0]["overrides"])
    alike = all(setting["overrides"].keys() == set(keys) for setting in settings)
    if not keys or not alike or len(judged) < 2:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 3.4))
        axes = figure.add_axes((0, 0, 1, 1))
        values = {key: _ordered(setting["overrides"][key] for setting in settings) for key in keys}
        grid = len(settings) == math.prod(map(len, values.values()))
        if len(keys) == 1:
            _curve(axes, keys[0], judged)
        elif len(keys) == 2 and grid:
            _heat_map(axes, keys, values, judged)
        else:
            _parallel(axes, keys, values, judged)
    return figure


def _curve(axes: Axes, key: str, judged: Sequence[Row]) -> None:
    places = {text: i for i, text in enumerate(_ordered(s["overrides"][key] for s in judged))}
    numbers = all(isinstance(setting["overrides"][key], int | float) for setting in judged)

    def place(setting: Row) -> float:
        value = setting["overrides"][key]
        return float(value if numbers else places[_short(value)])

    ordered = sorted(judged, key=place)
    x = [place(setting) for setting in ordered]
    found = [setting["val_accuracy"] for setting in ordered]
    axes.plot(x, [row["mean"] for row in found], marker="o", color=PALETTE["accent"])
    for left, row in zip(x, found, strict=True):
        axes.vlines(left, row["min"], row["max"], color=PALETTE["accent"], lw=1.2, alpha=0.6)
    if numbers and min(x) > 0 and max(x) > 8 * min(x):
        axes.set_xscale("log")
    if not numbers:
        axes.set_xticks(range(len(places)), list(places))
    axes.set(xlabel=key, ylabel="validation accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _heat_map(
    axes: Axes, keys: Sequence[str], values: Mapping[str, list[str]], judged: Sequence[Row]
) -> None:
    rows, columns = (values[key] for key in keys)
    means = np.full((len(rows), len(columns)), np.nan)
    for setting in judged:
        row, column = (_short(setting["overrides"][key]) for key in keys)
        means[rows.index(row), columns.index(column)] = setting["val_accuracy"]["mean"]
    low, high = np.nanmin(means), np.nanmax(means)
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            depth = 0.08 + 0.6 * (mean - low) / ((high - low) or 1.0)
            corner = (column - 0.47, row - 0.47)
            cell = mpl.patches.Rectangle(corner, 0.94, 0.94, color=PALETTE["accent"], alpha=depth)
            cell.set_linewidth(0)
            axes.add_patch(cell)
            axes.text(column, row, f"{mean:.2%}", ha="center", va="center")
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set(xlabel=keys[1], ylabel=keys[0])
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)


def _parallel(
    axes: Axes, keys: Sequence[str], values: Mapping[str, list[str]], judged: Sequence[Row]
) -> None:
    means = np.array([setting["val_accuracy"]["mean"] for setting in judged])
    order = np.argsort(means)
    heights = (means - means.min()) / ((means.max() - means.min()) or 1.0)
    for i in order:
        overrides = judged[i]["overrides"]
        places = [
            values[key].index(_short(overrides[key])) / max(len(values[key]) - 1, 1) for key in keys
        ]
        best = i == order[-1]
        colour = PALETTE["accent" if best else "train"]
        line = axes.plot(
            range(len(keys) + 1),
            [*places, heights[i]],
            color=colour,
            alpha=0.15 + 0.85 * float(heights[i]),
            lw=2.2 if best else 1.1,
        )[0]
        line.set_gid(f"{TOOLTIP}{name(overrides)}: {means[i]:.2%}")
    axes.set_xticks(range(len(keys) + 1), [*(k.rpartition(".")[2] for k in keys), "accuracy"])
    axes.set(yticks=[])
    for x, key in enumerate(keys):
        for end in (0, -1):
            axes.text(x, -end, f" {values[key][end]}", fontsize=7.5, color=PALETTE["muted"])


def committees(by_size: Sequence[Row]) -> Figure:
    """Test accuracy of committees against their size: the mean, and all draws in a band."""
    sizes = [row["size"] for row in by_size]
    drawn = [row["accuracies"] for row in by_size]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 3.0))
        axes = figure.add_axes((0, 0, 1, 1))
        band = [*map(min, drawn)], [*map(max, drawn)]
        axes.fill_between(sizes, *band, color=PALETTE["accent"], alpha=0.2)
        axes.plot(sizes, [*map(np.mean, drawn)], marker="o", color=PALETTE["accent"])
        axes.set(xlabel="members", ylabel="test accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def _ordered(values: Any) -> list[str]:
    """Different values in short, numbers by size."""
    found = {_short(value): value for value in values}
    numbers = all(isinstance(value, int | float) for value in found.values())
    return sorted(found, key=lambda text: found[text]) if numbers else list(found)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"')
