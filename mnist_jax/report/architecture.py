"""A picture of a net: the output shape and the parameters of each layer."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from mnist_jax.models.registry import Layer
from mnist_jax.report import plots
from mnist_jax.report.plots import PALETTE

_STEP = 1.5  # from one layer to the next, in inches
_TALL = 1.3  # the height of an image
_SHEETS = 6  # of a stack of feature maps, at most
_NAMES = {"Conv": "convolution", "Dense": "dense", "FourierFeatures": "Fourier features"}


@plots.styled
def architecture(layers: Sequence[Layer]) -> Figure:
    """Draw the net from left to right: feature maps as stacks of squares, vectors as bars.

    A square's side is proportional to the map's; the number of sheets of a stack and the height of
    a bar grow with the logarithm of the number of channels or values. Batch normalisation is named
    with the layer that it follows. Below is the number of all parameters.

    Args:
        layers: as `Model.layers()` gives them.
    """
    drawn = [Layer("image", "image", (28, 28, 1), 0, 0)]
    for layer in layers:
        last = drawn[-1]
        if layer.kind != "BatchNorm":
            drawn.append(layer)
        elif len(drawn) > 1:
            detail = ", ".join(filter(None, (last.detail, "batch norm")))
            drawn[-1] = last._replace(num_params=last.num_params + layer.num_params, detail=detail)
    figure, axes = plots.panel(_STEP * len(drawn), 2.7, aspect="equal", ylim=(-1.75, 0.95))
    axes.set_xlim(-0.5 * _STEP, (len(drawn) - 0.5) * _STEP)
    axes.axis("off")
    edge = -math.inf
    for place, layer in enumerate(drawn):
        x, shape, params = _STEP * place, layer.output_shape, layer.num_params
        half = _boxes(axes, x, shape)
        if place:
            ends = (edge + 0.04, 0), (x - half - 0.04, 0)
            arrow = FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=7, shrinkA=0, shrinkB=0)
            arrow.set_color(PALETTE["muted"])
            axes.add_patch(arrow)
        edge = x + half
        kind = _NAMES.get(layer.kind, layer.kind)
        axes.text(x, -1.02, kind, ha="center", fontweight="bold", fontsize=9)
        lines = layer.detail, "×".join(map(str, shape)), f"{params:,} parameters" if params else ""
        text = "\n".join(filter(None, lines))
        axes.text(x, -1.1, text, ha="center", va="top", fontsize=7.5, color=PALETTE["muted"])
    total = sum(layer.num_params for layer in layers)
    axes.text(-_TALL / 2, -1.75, f"{total:,} parameters in all", va="top", fontsize=9)
    return figure


def _boxes(axes: Axes, x: float, shape: Sequence[int]) -> float:
    """Draw a stack of feature maps or a bar around x, and return half its width."""
    if len(shape) == 3:
        tall, wide = (max(0.08, size * _TALL / 28) for size in shape[:2])
        sheets, shift = min(_SHEETS, 1 + round(math.log2(shape[2]))), 0.05
    else:
        tall, wide, sheets, shift = 0.25 + 0.13 * math.log2(shape[0]), 0.14, 1, 0.0
    reach = shift * (sheets - 1)
    left, bottom = x - (wide + reach) / 2, -(tall + reach) / 2
    fill, edge = PALETTE["line"], PALETTE["accent"]
    for sheet in reversed(range(sheets)):
        corner = left + shift * sheet, bottom + shift * sheet
        axes.add_patch(Rectangle(corner, wide, tall, fc=fill, ec=edge, lw=1.1))
    return (wide + reach) / 2
