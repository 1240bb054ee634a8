"""Predictions as lines for a terminal, rows for programs and a page."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from mnist_jax.config import flatten
from mnist_jax.report import formats, pictures, templates

_BLOCKS = np.array([" ", "▄", "▀", "█"])  # by which half is light: lower 1, upper 2
UNSURE = "unsure"  # the answer if no class is probable enough
_STRANGE = "looks like nothing it was trained on"
_BAR = 24  # characters of a probability of 1
_BARS = 5  # how many classes of a picture the page shows
_THUMBNAIL = 320  # pixels of its side there
_SMALL = 64  # pixels of a side: what is smaller is shown pixel by pixel


class Figure(NamedTuple):
    """A figure in a picture."""

    name: str  # of the file, page and figure; printable
    image: UInt8[np.ndarray, "28 28 1"]  # what the net saw
    thumbnail: str  # of the picture, a data URI; empty if there is no page


class Seen(NamedTuple):
    """A figure and its prediction."""

    name: str
    image: UInt8[np.ndarray, "28 28 1"]
    thumbnail: str
    probabilities: Float32[np.ndarray, " classes"]
    strange: bool
    unsure: bool = False

    def top(self, count: int) -> list[int]:
        """Return the most probable classes, the first of equals first."""
        return np.argsort(-self.probabilities, kind="stable")[:count].tolist()

    def answer(self, class_names: Sequence[str]) -> str:
        """Return the most probable class, or that the net is not sure enough."""
        return UNSURE if self.unsure else class_names[self.top(1)[0]]


def line(seen: Seen, class_names: Sequence[str], top: int, width: int) -> str:
    """Format a figure in a line: its name, padded to a width, and the most probable classes."""
    guesses = (f"{class_names[i]} {_percent(seen, i)}" for i in seen.top(top))
    unsure = f"{UNSURE}: " if seen.unsure else ""
    warning = f"  ({_STRANGE})" if seen.strange else ""
    return f"{seen.name:<{width}}  {unsure}{'   '.join(guesses)}{warning}"


def drawing(seen: Seen, class_names: Sequence[str], top: int) -> str:
    """Draw a figure in 15 lines of text: its name, the net's input, bars of probable classes."""
    chosen = seen.top(top)
    width = max(len(class_names[i]) for i in chosen)
    light = seen.image[..., 0] > 127
    lines = ["".join(row) for row in _BLOCKS[2 * light[::2] + light[1::2]]]
    if seen.unsure:
        lines[0] += f"  {UNSURE}"
    for place, i in enumerate(chosen[:12], 1):
        bar = "█" * round(_BAR * float(seen.probabilities[i]))
        lines[place] += f"  {class_names[i]:>{width}} {bar:<{_BAR}} {_percent(seen, i):>6}"
    if seen.strange:
        lines[-1] += f"  {_STRANGE}"
    return "\n".join([seen.name, *map(str.rstrip, lines)])


def row(seen: Seen, class_names: Sequence[str]) -> dict[str, Any]:
    """Return a figure as a row for CSV and JSON."""
    shares = [round(float(p), 6) for p in seen.probabilities]
    return {
        "file": seen.name,
        "class": seen.answer(class_names),
        "probability": max(shares),
        "strange": seen.strange,
        "probabilities": dict(zip(class_names, shares, strict=True)),
    }


def to_csv(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> str:
    """Format the rows as CSV with a header; the last columns are the classes."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "class", "probability", "strange", *class_names])
    for *found, probabilities in (found.values() for found in rows):
        writer.writerow([*found, *probabilities.values()])
    return out.getvalue()


def page(
    seen: Sequence[Seen],
    failed: Sequence[str],
    *,
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
    command: str,
) -> str:
    """Return a page of all figures, as the text of a self-contained HTML file.

    Args:
        seen: the predictions.
        failed: a line on each picture that could not be used.
        summary: of the run.
        config: of the run, a plain dict.
        command: the shell command that makes the page again.
    """
    names = summary["class_names"]
    cards = [
        {
            "name": one.name,
            "picture": one.thumbnail,
            "small": one.thumbnail.startswith("data:image/png"),
            "seen": one.image,
            "answer": one.answer(names),
            "unsure": one.unsure,
            "bars": [(names[i], float(one.probabilities[i])) for i in one.top(_BARS)],
            "strange": one.strange,
        }
        for one in seen
    ]
    return templates.load("predict.html.jinja").render(
        summary=summary,
        config_rows=flatten(config),
        task=formats.task_name(config),
        cards=cards,
        failed=failed,
        command=command,
    )


def thumbnail(colours: Float[np.ndarray, "h w c"]) -> str:
    """Return a picture as a data URI: a small one as a PNG, another reduced and as a JPEG."""
    pixels = np.rint(255 * colours).astype(np.uint8)
    if max(pixels.shape) <= _SMALL:
        return pictures.png(pixels)
    image = Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return pictures.data_uri(image, "jpeg")


def _percent(seen: Seen, label: int) -> str:
    return formats.percent(float(seen.probabilities[label]), 1)
