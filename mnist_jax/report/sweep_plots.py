"""Pictures of several trials: their distribution, the sweep, ensembles."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_jax.report import formats
from mnist_jax.report.plots import PALETTE, STYLE, TOOLTIP, score_ticks
from mnist_jax.types import Row

_SHOWN = 12  # settings, the best ones


def name(overrides: Mapping[str, Any]) -> str:
    """A setting in short: the last part of each key, and the value."""
    pairs = (f"{key.rpartition('.')[2]} {_short(value)}" for key, value in overrides.items())
    return ", ".join(pairs) or "as configured"


def distribution(trials: Sequence[Row], settings: Sequence[Row], score: str, split: str) -> Figure:
    """The score of every trial: a line of points per setting, the best setting at the top.

    Args:
        trials: rows of trials.jsonl.
        settings: of summary.json; the mean of `val_score` and its 95% interval are drawn through
            the points.
        score: which one, such as "accuracy".
        split: "val" or "test".
    """
    evaluated = [setting for setting in settings if setting["val_score"]]
    best = sorted(evaluated, key=lambda setting: -setting["val_score"]["mean"])[:_SHOWN]
    column = f"{split}_{score}"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 0.6 + 0.3 * len(best)))
        axes = figure.add_axes((0, 0, 1, 1))
        for place, setting in enumerate(best):
            for trial in trials:
                if trial["setting"] == setting["setting"] and trial.get(column) is not None:
                    value = trial[column]
                    dot = axes.scatter(
                        [value], [place], s=22, alpha=0.45, color=PALETTE["accent"], linewidths=0
                    )
                    text = formats.score(value, score)
                    dot.set_gid(f"{TOOLTIP}trial {trial['trial']}: {text}")
            found = setting["val_score"]
            axes.vlines(found["mean"], place - 0.25, place + 0.25, color=PALETTE["ink"])
            if found["low"] is not None:
                axes.hlines(place, found["low"], found["high"], color=PALETTE["ink"], lw=1.2)
        names = [name(setting["overrides"]) for setting in best]
        axes.set_yticks(range(len(best)), names if len(settings) > 1 else [""])
        label = {"val": "validation", "test": "test"}[split]
        axes.set(xlabel=f"{label} {formats.score_name(score)}", ylim=(len(best) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        score_ticks(axes.xaxis, score)
    return figure


def sweep(settings: Sequence[Row], score: str) -> Figure | None:
    """The mean validation score against the swept values.

    A curve for one key; a heat map for two keys that make a grid, with empty cells for settings
    that diverged; else parallel coordinates. None if nothing is swept or evaluated, or if settings
    override different keys.
    """
    evaluated = [setting for setting in settings if setting["val_score"]]
    keys = list(settings[0]["overrides"])
    alike = all(setting["overrides"].keys() == set(keys) for setting in settings)
    if not keys or not alike or len(evaluated) < 2:
        return None
    values = {key: _ordered(setting["overrides"][key] for setting in settings) for key in keys}
    grid = len(settings) == math.prod(map(len, values.values()))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 3.4))
        axes = figure.add_axes((0, 0, 1, 1))
        if len(keys) == 1:
            _curve(axes, keys[0], evaluated, score)
        elif len(keys) == 2 and grid:
            _heat_map(axes, values, evaluated, score)
        else:
            _parallel(axes, values, evaluated, score)
    return figure


def _curve(axes: Axes, key: str, evaluated: Sequence[Row], score: str) -> None:
    places = {text: i for i, text in enumerate(_ordered(s["overrides"][key] for s in evaluated))}
    numbers = all(isinstance(setting["overrides"][key], int | float) for setting in evaluated)

    def place(setting: Row) -> float:
        value = setting["overrides"][key]
        return float(value if numbers else places[_short(value)])

    ordered = sorted(evaluated, key=place)
    x = [place(setting) for setting in ordered]
    found = [setting["val_score"] for setting in ordered]
    axes.plot(x, [row["mean"] for row in found], marker="o", color=PALETTE["accent"])
    for left, row in zip(x, found, strict=True):
        axes.vlines(left, row["min"], row["max"], color=PALETTE["accent"], lw=1.2, alpha=0.6)
    if numbers and min(x) > 0 and max(x) > 8 * min(x):
        axes.set_xscale("log")
    if not numbers:
        axes.set_xticks(range(len(places)), list(places))
    axes.set(xlabel=key, ylabel=f"validation {formats.score_name(score)}")
    score_ticks(axes.yaxis, score)


def _heat_map(
    axes: Axes, values: Mapping[str, list[str]], evaluated: Sequence[Row], score: str
) -> None:
    rows, columns = values.values()
    means = np.full((len(rows), len(columns)), np.nan)
    for setting in evaluated:
        row, column = (_short(setting["overrides"][key]) for key in values)
        means[rows.index(row), columns.index(column)] = setting["val_score"]["mean"]
    low, high = np.nanmin(means), np.nanmax(means)
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            depth = 0.08 + 0.6 * (mean - low) / ((high - low) or 1.0)
            corner = (column - 0.47, row - 0.47)
            cell = mpl.patches.Rectangle(corner, 0.94, 0.94, color=PALETTE["accent"], alpha=depth)
            cell.set_linewidth(0)
            axes.add_patch(cell)
            text = formats.score(float(mean), score)
            axes.text(column, row, text, ha="center", va="center")
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    ylabel, xlabel = values
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)


def _parallel(
    axes: Axes, values: Mapping[str, list[str]], evaluated: Sequence[Row], score: str
) -> None:
    means = np.array([setting["val_score"]["mean"] for setting in evaluated])
    order = np.argsort(means)
    heights = (means - means.min()) / ((means.max() - means.min()) or 1.0)
    for i in order:
        overrides = evaluated[i]["overrides"]
        places = [
            options.index(_short(overrides[key])) / max(len(options) - 1, 1)
            for key, options in values.items()
        ]
        best = i == order[-1]
        line = axes.plot(
            range(len(values) + 1),
            [*places, heights[i]],
            color=PALETTE["accent" if best else "train"],
            alpha=0.15 + 0.85 * float(heights[i]),
            lw=2.2 if best else 1.1,
        )[0]
        text = formats.score(float(means[i]), score)
        line.set_gid(f"{TOOLTIP}{name(overrides)}: {text}")
    labels = [*(key.rpartition(".")[2] for key in values), formats.score_name(score)]
    axes.set_xticks(range(len(labels)), labels)
    axes.set(yticks=[])
    for x, options in enumerate(values.values()):
        for end in (0, -1):
            axes.text(x, -end, f" {options[end]}", fontsize=7.5, color=PALETTE["muted"])


def ensembles(by_size: Sequence[Row]) -> Figure:
    """Test accuracy of ensembles against their size: the mean, and all draws in a band."""
    sizes = [row["size"] for row in by_size]
    drawn = [row["accuracies"] for row in by_size]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5, 3.0))
        axes = figure.add_axes((0, 0, 1, 1))
        limits = [*map(min, drawn)], [*map(max, drawn)]
        axes.fill_between(sizes, *limits, color=PALETTE["accent"], alpha=0.2)
        axes.plot(sizes, [*map(np.mean, drawn)], marker="o", color=PALETTE["accent"])
        axes.set(xlabel="trials", ylabel="test accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        score_ticks(axes.yaxis, "accuracy")
    return figure


def _ordered(values: Iterable[Any]) -> list[str]:
    """Distinct values in short, numbers by size."""
    found = {_short(value): value for value in values}
    numbers = all(isinstance(value, int | float) for value in found.values())
    return sorted(found, key=lambda text: found[text]) if numbers else list(found)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"')
