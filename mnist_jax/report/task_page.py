"""The pages of runs whose task is not to tell classes apart: several labels, or clean images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from markupsafe import Markup

from mnist_jax.config import flatten
from mnist_jax.report import pictures, plots, run_page

SHOWN = 16  # how many test images are


def labels(
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    command: str,
) -> str:
    """The page of a multilabel run; the arguments are those of `report.render`."""
    return _render(summary, history, config, command, [])


def pixels(
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    command: str,
    clean: UInt8[np.ndarray, "shown 28 28 1"],
    noisy: Float32[np.ndarray, "shown 28 28 1"],
    restored: Float32[np.ndarray, "shown 784"],
) -> str:
    """The page of a denoising run.

    Args:
      summary: as for `report.render`.
      history: likewise.
      config: likewise.
      command: likewise.
      clean: the first test images.
      noisy: what the net saw of them; 1 is white, what is above is shown white.
      restored: what it made of that.
    """
    columns = {
        "What the net saw": pictures.grey(noisy),
        "What it made of it": pictures.grey(restored.reshape(noisy.shape)),
        "The image": clean,
    }
    triples = [
        [(title, pictures.png(images[i])) for title, images in columns.items()]
        for i in range(len(clean))
    ]
    return _render(summary, history, config, command, triples)


def _render(
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    command: str,
    triples: Sequence[Sequence[tuple[str, str]]],
) -> str:
    curves = plots.learning_curves(history, summary["best_epoch"])
    return run_page.template("task.html.jinja").render(
        summary=summary,
        command=command,
        config_rows=list(flatten(config)),
        learning_curves=Markup(plots.svg(curves, "Learning curves")),
        triples=triples,
    )
