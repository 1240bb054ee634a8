"""A picture of a net: the output shape and the parameters of each layer."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from mnist_jax.models.registry import Layer
from mnist_jax.report import plots

_STEP = 1.5  # from one layer to the next, in inches
_TALL = 1.3  # the height of an image
_SHEETS = 6  # of a stack of feature maps, at most


def architecture(layers: Sequence[Layer]) -> Figure:
    """The net from left to right: feature maps as stacks of squares, vectors as bars.

    A square's side is proportional to the map's, the sheets of a stack and the height of a bar
    grow with the logarithm of how many there are. Batch normalisation is named with the layer that
    it follows. Below is the number of all parameters.

    Args:
        layers: as `Model.layers()` gives them.
    """
    stages = [("image", "", (28, 28, 1), 0), *_stages(layers)]
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(_STEP * len(stages), 2.7))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-0.5 * _STEP, (len(stages) - 0.5) * _STEP), ylim=(-1.75, 0.95))
        axes.set_aspect("equal")
        axes.axis("off")
        edge = -math.inf
        for place, (kind, detail, shape, params) in enumerate(stages):
            x = _STEP * place
            half = _maps(axes, x, shape) if len(shape) == 3 else _vector(axes, x, shape[0])
            if place:
                arrow = (edge + 0.04, 0), (x - half - 0.04, 0)
                style: dict[str, Any] = {
                    "arrowstyle": "-|>",
                    "mutation_scale": 7,
                    "color": plots.PALETTE["muted"],
                }
                axes.add_patch(FancyArrowPatch(*arrow, shrinkA=0, shrinkB=0, **style))
            edge = x + half
            lines = [detail, "×".join(map(str, shape)), f"{params:,} parameters" if params else ""]
            axes.text(x, -1.02, kind, ha="center", fontweight="bold", fontsize=9)
            text = "\n".join(line for line in lines if line)
            axes.text(
                x, -1.1, text, ha="center", va="top", fontsize=7.5, color=plots.PALETTE["muted"]
            )
        total = sum(layer.num_params for layer in layers)
        axes.text(-_TALL / 2, -1.75, f"{total:,} parameters in all", va="top", fontsize=9)
    return figure


def _stages(layers: Sequence[Layer]) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """Kind, detail, shape and parameters of what is drawn."""
    names = {"Conv": "convolution", "Dense": "dense", "FourierFeatures": "Fourier features"}
    drawn: list[Layer] = []
    for layer in layers:
        if layer.kind != "BatchNorm":
            drawn.append(layer)
        elif drawn:
            params = drawn[-1].num_params + layer.num_params
            detail = ", ".join(filter(None, (drawn[-1].detail, "batch norm")))
            drawn[-1] = drawn[-1]._replace(num_params=params, detail=detail)
    for layer in drawn:
        yield names.get(layer.kind, layer.kind), layer.detail, layer.output_shape, layer.num_params


def _maps(axes: Axes, x: float, shape: Sequence[int]) -> float:
    """A stack of feature maps around x; returns half its width."""
    height, width, channels = shape
    sheets = min(_SHEETS, 1 + round(math.log2(channels)))
    scale = _TALL / 28
    tall, wide = max(0.08, height * scale), max(0.08, width * scale)
    shift = 0.05
    reach = shift * (sheets - 1)
    left, bottom = x - (wide + reach) / 2, -(tall + reach) / 2
    for sheet in reversed(range(sheets)):
        corner = left + shift * sheet, bottom + shift * sheet
        axes.add_patch(_box(corner, wide, tall))
    return (wide + reach) / 2


def _vector(axes: Axes, x: float, width: int) -> float:
    """A bar around x; returns half its width."""
    tall = 0.25 + 0.13 * math.log2(width)
    axes.add_patch(_box((x - 0.07, -tall / 2), 0.14, tall))
    return 0.07


def _box(corner: tuple[float, float], width: float, height: float) -> Rectangle:
    fill, edge = plots.PALETTE["line"], plots.PALETTE["accent"]
    return Rectangle(corner, width, height, facecolor=fill, edgecolor=edge, linewidth=1.1)
