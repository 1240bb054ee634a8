"""Predictions as lines for a terminal, rows for programs and a page."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from mnist_jax.config import flatten
from mnist_jax.report import formats, pictures, templates

_BLOCKS = np.array([" ", "▄", "▀", "█"])  # by which half is light: lower 1, upper 2
_STRANGE = "looks like nothing it was trained on"
_BAR = 24  # characters of a probability of 1
_BARS = 5  # how many classes of a picture the page shows
_THUMBNAIL = 320  # pixels of its side there
_SMALL = 64  # pixels of a side: what is smaller is shown pixel by pixel


class Seen(NamedTuple):
    """A picture and its prediction."""

    name: str  # of the file
    image: UInt8[np.ndarray, "28 28 1"]  # what the net saw
    probabilities: Float32[np.ndarray, " classes"]
    strange: bool

    def top(self, count: int) -> list[int]:
        """The most probable classes, the first of equals first."""
        return np.argsort(-self.probabilities, kind="stable")[:count].tolist()


def line(seen: Seen, class_names: Sequence[str], top: int, width: int) -> str:
    """A picture in a line: its name, filled up to a width, and the most probable classes."""
    guesses = (f"{class_names[i]} {_percent(seen, i)}" for i in seen.top(top))
    warning = f"  ({_STRANGE})" if seen.strange else ""
    return f"{seen.name:<{width}}  {'   '.join(guesses)}{warning}"


def drawing(seen: Seen, class_names: Sequence[str], top: int) -> str:
    """A picture in 15 lines: its name, what the net saw, and bars of the most probable classes."""
    chosen = seen.top(top)
    width = max(len(class_names[i]) for i in chosen)
    light = seen.image[..., 0] > 127
    lines = ["".join(row) for row in _BLOCKS[2 * light[::2] + light[1::2]]]
    for place, i in enumerate(chosen[:12], 1):
        bar = "█" * round(_BAR * float(seen.probabilities[i]))
        lines[place] += f"  {class_names[i]:>{width}} {bar:<{_BAR}} {_percent(seen, i):>6}"
    if seen.strange:
        lines[-1] += f"  {_STRANGE}"
    return "\n".join([seen.name, *map(str.rstrip, lines)])


def row(seen: Seen, class_names: Sequence[str]) -> dict[str, Any]:
    """A picture for programs."""
    best = seen.top(1)[0]
    shares = [round(float(p), 6) for p in seen.probabilities]
    return {
        "file": seen.name,
        "class": class_names[best],
        "probability": shares[best],
        "strange": seen.strange,
        "probabilities": dict(zip(class_names, shares, strict=True)),
    }


def to_csv(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> str:
    """The rows as CSV with a header, a column a class after the others."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "class", "probability", "strange", *class_names])
    for *found, probabilities in (found.values() for found in rows):
        writer.writerow([*found, *probabilities.values()])
    return out.getvalue()


def page(
    seen: Sequence[Seen],
    originals: Iterable[Float[np.ndarray, "_ _ _"]],
    failed: Sequence[str],
    *,
    summary: Mapping[str, Any],
    config: Mapping[str, Any],
    command: str,
) -> str:
    """All pictures on a page, as the text of a self-contained HTML file.

    Args:
        seen: the predictions.
        originals: the pictures as `drawings.read` has them; one is held at a time.
        failed: a line on each that could not be used.
        summary: of the run.
        config: of the run, a plain dict.
        command: the shell command that makes the page again.
    """
    names = summary["class_names"]
    cards = [
        {
            "name": one.name,
            "picture": _thumbnail(original),
            "small": max(original.shape) <= _SMALL,
            "seen": one.image,
            "bars": [(names[i], float(one.probabilities[i])) for i in one.top(_BARS)],
            "strange": one.strange,
        }
        for one, original in zip(seen, originals, strict=True)
    ]
    return templates.load("predict.html.jinja").render(
        summary=summary,
        config_rows=flatten(config),
        task=formats.task_name(config),
        cards=cards,
        failed=failed,
        command=command,
    )


def _percent(seen: Seen, label: int) -> str:
    return formats.percent(float(seen.probabilities[label]), 1)


def _thumbnail(colours: Float[np.ndarray, "h w c"]) -> str:
    """A picture as a data URI: a small one as it is, another reduced, and as JPEG."""
    pixels = np.rint(255 * colours).astype(np.uint8)
    if max(pixels.shape) <= _SMALL:
        return pictures.png(pixels)
    image = Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return pictures.data_uri(image, "jpeg")
