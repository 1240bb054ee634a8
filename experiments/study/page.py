"""The page of the study: every system with its net, learning curves and confusion matrix."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int
from markupsafe import Markup

from experiments.study import report
from experiments.study.row import PARTS
from mnist_jax.analysis import metrics
from mnist_jax.models.registry import Layer
from mnist_jax.report import architecture, plots, templates


def render(record: Mapping[str, Any], shown: Mapping[str, Mapping[str, Any]]) -> str:
    """Render a self-contained HTML page.

    Args:
        record: the study's results.
        shown: by row and part, the `shown` of an outcome or None; other rows are left out.
    """
    rows = [
        {
            **row,
            "parts": [
                (title, row[part], _figures(f"{row['name']} {part}", shown[row["name"]][part]))
                for part, title in PARTS.items()
                if row[part]
            ],
        }
        for row in record["rows"]
        if row["name"] in shown
    ]
    return templates.load("study.html.jinja", Path(__file__).parent).render(
        rows=rows,
        command=record["command"],
        device=record["device"],
        quick=record.get("quick"),
        seen=report.seen(rows),
        summary={**record, "dataset": "", "requested_dataset": ""},
    )


def _figures(name: str, shown: Mapping[str, Any]) -> dict[str, Any]:
    """Draw the figures of an outcome; `name` is unique on the page."""
    drawn = {}
    scores: list[dict[str, Any]] = []
    if "layers" in shown:
        drawn["net"] = architecture.architecture([Layer(**row) for row in shown["layers"]])
    if history := shown.get("history"):
        drawn["learning"] = plots.learning_curves(history)
    if "confusion" in shown:
        matrix = np.asarray(shown["confusion"])
        drawn["confusion"] = plots.confusion(matrix, shown["classes"])
        scores = _scores(matrix, shown["classes"])
    figures = {key: Markup(plots.svg(figure, f"{name} {key}")) for key, figure in drawn.items()}
    return {
        **figures,
        "scores": scores,
        "note": shown.get("note", ""),
        "images": shown.get("images", []),
        "more": {key: _distinct(svg, name) for key, svg in shown.get("figures", {}).items()},
    }


def _distinct(svg: str, name: str) -> Markup:
    """Make the ids of a figure unique, since several rows may show it."""
    return Markup(re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name.replace(' ', '-')}-", svg))


def _scores(matrix: Int[np.ndarray, "K K"], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and support of every class, and their two means."""
    found = metrics.of_confusion(matrix)
    per_class, macro, weighted = jax.tree.map(lambda x: x.tolist(), found)
    support = matrix.sum(axis=1).tolist()
    named = [
        *zip(classes, zip(*per_class, strict=True), support, strict=True),
        ("macro mean", macro, sum(support)),
        ("weighted mean", weighted, sum(support)),
    ]
    return [
        {"name": name, **dict(zip(metrics.Scores._fields, values, strict=True)), "support": count}
        for name, values, count in named
    ]
