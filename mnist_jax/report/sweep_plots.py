"""Pictures of several trials: their distribution, the sweep, ensembles."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnist_jax.report import formats, plots
from mnist_jax.report.plots import PALETTE, TOOLTIP
from mnist_jax.types import Row

_SHOWN = 12  # settings, the best ones


def name(overrides: Mapping[str, Any]) -> str:
    """Return a setting in short: the last part of each key, and the value."""
    pairs = (f"{key.rpartition('.')[2]} {_short(value)}" for key, value in overrides.items())
    return ", ".join(pairs) or "as configured"


@plots.styled
def distribution(trials: Sequence[Row], settings: Sequence[Row], score: str, split: str) -> Figure:
    """Draw the score of every trial: a line of points per setting, in the settings' order.

    Args:
        trials: rows of trials.jsonl.
        settings: of summary.json, the best one first; the mean of `val_score` and its 95% interval
            are drawn through the points.
        score: which one, such as "accuracy".
        split: "val" or "test".
    """
    best = [setting for setting in settings if setting["val_score"]][:_SHOWN]
    figure, axes = plots.panel(4.5, 0.6 + 0.42 * len(best), ylim=(len(best) - 0.5, -0.8), yticks=[])
    for place, setting in enumerate(best):
        own = [trial for trial in trials if trial["setting"] == setting["setting"]]
        for trial in own:
            if (value := trial.get(f"{split}_{score}")) is not None:
                dot = axes.scatter(
                    [value], [place], s=22, alpha=0.45, color=PALETTE["accent"], lw=0
                )
                dot.set_gid(f"{TOOLTIP}trial {trial['trial']}: {formats.score(value, score)}")
        found = setting["val_score"]
        axes.vlines(found["mean"], place - 0.25, place + 0.25, color=PALETTE["ink"])
        if found["low"] is not None:
            axes.hlines(place, found["low"], found["high"], color=PALETTE["ink"], lw=1.2)
        if len(settings) > 1:  # above its line, so that a long name takes no width
            epochs = f" (dropped after epoch {setting['epochs']})" if setting["dropped"] else ""
            axes.annotate(
                name(setting["overrides"]) + epochs, (0, place), (0, 8), fontsize=8,
                xycoords=("axes fraction", "data"), textcoords="offset points", parse_math=False,
            )  # fmt: skip
    of_folds = any(trial["fold"] is not None for trial in trials)
    label = "test" if split == "test" else "held-out" if of_folds else "validation"
    axes.set_xlabel(f"{label} {formats.score_name(score)}")
    plots.score_ticks(axes.xaxis, score, 5)
    return figure


@plots.styled
def sweep(settings: Sequence[Row], score: str) -> Figure | None:
    """Draw the mean validation score against the swept values.

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
    draw = _curve if len(keys) == 1 else _heat_map if len(keys) == 2 and grid else _parallel
    columns = len(values[keys[-1]]) if draw is _heat_map else 0
    figure, axes = plots.panel(max(4.5, 0.7 * columns), 3.0)
    draw(axes, values, evaluated, score)
    return figure


def _curve(
    axes: Axes, values: Mapping[str, list[str]], evaluated: Sequence[Row], score: str
) -> None:
    (key,) = values
    swept = [setting["overrides"][key] for setting in evaluated]
    numbers, texts = all(isinstance(value, int | float) for value in swept), _ordered(swept)
    places = [float(value) if numbers else texts.index(_short(value)) for value in swept]
    order = np.argsort(places, kind="stable")
    x = np.array(places)[order]
    found = {
        of: np.array([setting["val_score"][of] for setting in evaluated])[order]
        for of in ("mean", "min", "max")
    }
    axes.plot(x, found["mean"], marker="o", color=PALETTE["accent"])
    axes.vlines(x, found["min"], found["max"], color=PALETTE["accent"], lw=1.2, alpha=0.6)
    if not numbers:
        axes.set_xticks(range(len(texts)), texts)
    elif min(x) > 0 and max(x) > 8 * min(x):
        axes.set_xscale("log")
    axes.set(xlabel=key, ylabel=f"validation {formats.score_name(score)}")
    plots.score_ticks(axes.yaxis, score)


def _heat_map(
    axes: Axes, values: Mapping[str, list[str]], evaluated: Sequence[Row], score: str
) -> None:
    (ylabel, rows), (xlabel, columns) = values.items()
    means = np.array([setting["val_score"]["mean"] for setting in evaluated])
    for setting, height in zip(evaluated, _heights(means), strict=True):
        row = rows.index(_short(setting["overrides"][ylabel]))
        column = columns.index(_short(setting["overrides"][xlabel]))
        plots.heat_square(axes, row, column, "accent").set_alpha(0.08 + 0.6 * height)
        text = formats.score(setting["val_score"]["mean"], score)
        axes.text(column, row, text, ha="center", va="center")
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)


def _heights(means: np.ndarray) -> np.ndarray:
    """Scale means from 0 for the lowest to 1 for the highest."""
    return (means - means.min()) / (np.ptp(means) or 1.0)


def _parallel(
    axes: Axes, values: Mapping[str, list[str]], evaluated: Sequence[Row], score: str
) -> None:
    means = np.array([setting["val_score"]["mean"] for setting in evaluated])
    heights, order = _heights(means), np.argsort(means)
    for i in order:
        overrides, best = evaluated[i]["overrides"], i == order[-1]
        places = [
            options.index(_short(overrides[key])) / max(len(options) - 1, 1)
            for key, options in values.items()
        ]
        (line,) = axes.plot([*places, heights[i]], color=PALETTE["accent" if best else "train"])
        line.set(alpha=0.15 + 0.85 * float(heights[i]), lw=2.2 if best else 1.1)
        line.set_gid(f"{TOOLTIP}{name(overrides)}: {formats.score(float(means[i]), score)}")
    for end, mean in ((0, means.min()), (1, means.max())):
        text = formats.score(float(mean), score)
        axes.text(len(values), end, f" {text}", fontsize=7.5, color=PALETTE["muted"])
    labels = [*(key.rpartition(".")[2] for key in values), formats.score_name(score)]
    axes.set_xticks(range(len(labels)), labels)
    axes.set(yticks=[])
    for x, options in enumerate(values.values()):
        for end in (0, -1):
            axes.text(x, -end, f" {options[end]}", fontsize=7.5, color=PALETTE["muted"])


@plots.styled
def ensembles(by_size: Sequence[Row]) -> Figure:
    """Test accuracy of ensembles against their size: the mean, and all draws in a band."""
    drawn = {row["size"]: row["accuracies"] for row in by_size}
    figure, axes = plots.panel(4.5, 3.0, xlabel="trials", ylabel="test accuracy")
    limits = [*map(min, drawn.values())], [*map(max, drawn.values())]
    axes.fill_between([*drawn], *limits, color=PALETTE["accent"], alpha=0.2)
    axes.plot([*drawn], [*map(np.mean, drawn.values())], marker="o", color=PALETTE["accent"])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    plots.score_ticks(axes.yaxis)
    return figure


def _ordered(values: Iterable[Any]) -> list[str]:
    """Distinct values in short, numbers by size."""
    found = {_short(value): value for value in values}
    numbers = all(isinstance(value, int | float) for value in found.values())
    return sorted(found, key=lambda text: found[text]) if numbers else list(found)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else json.dumps(value).strip('"')
