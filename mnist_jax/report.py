"""The page that a run leaves behind: everything a person wants to know of it, in one HTML file.

`render` is pure: a run's results in, the page out. The page needs nothing else: no script, no font,
no picture from outside, and its Content-Security-Policy forbids them.
"""

import base64
import io
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8
from markupsafe import Markup
from PIL import Image

from mnist_jax import plots, stats
from mnist_jax.errors import decide, worst_mistakes

MISTAKES = 32  # how many are shown
CONFUSIONS = 8  # how many pairs of classes are named
NOTHING = "–"  # in place of a number that is missing or not finite
Number = int | float | None


def next_commands(
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    command: str,
) -> list[tuple[str, str]]:
    """Two or three commands worth running next, each with the reason: `[(reason, command), ...]`.

    An override is proposed only where the configuration has that field.
    """
    fields = dict(flatten(config))
    steps: list[tuple[str, str, Any]] = []
    last = history[-1] if history else {}
    epochs, decay = fields.get("train.epochs"), fields.get("optim.weight_decay")
    if epochs and last.get("val_accuracy") is not None and summary["best_epoch"] == last["epoch"]:
        reason = "The last epoch was the best one: it may not be done learning."
        steps.append((reason, "train.epochs", 2 * epochs))
    gap = (last.get("train_accuracy") or math.nan) - (last.get("val_accuracy") or math.nan)
    reason = f"It does {100 * gap:.1f} points better on what it was trained on"
    if gap > 0.01 and fields.get("train.augment.shift") == 0:
        steps.append((f"{reason}: show it more.", "train.augment.shift", 0.1))
    elif gap > 0.01 and decay is not None:
        # The usual first value, decoupled and as an L2 term in the gradient.
        start = 0.01 if fields.get("optim.name") == "adamw" else 0.0001
        steps.append((f"{reason}: hold it back.", "optim.weight_decay", _short(3 * decay) or start))
    if "seed" in fields:
        reason = "How much of the result is luck? Another seed tells."
        steps.append((reason, "seed", fields["seed"] + 1))
    if rate := fields.get("optim.learning_rate"):
        reason = "Does it want a gentler learning rate?"
        steps.append((reason, "optim.learning_rate", _short(rate / 2)))
    return [(reason, override(command, field, value)) for reason, field, value in steps[:3]]


def _short(value: int | float) -> float:
    """To three significant digits, so that 3 * 0.1 is 0.3 on a command line."""
    return float(f"{value:.3g}")


def override(command: str, field: str, value: object) -> str:
    """The command with `--config.field=value`, and with its `--workdir`, if any, renamed after it.

    Two runs in one directory would be taken for one that was interrupted.
    """
    flag = f"--config.{field}="
    words = [word for word in shlex.split(command) if not word.startswith(flag)]
    suffix = f"-{field.rpartition('.')[2]}-{value}"
    for place, word in enumerate(words):
        if word.startswith("--workdir=") or (place and words[place - 1] == "--workdir"):
            words[place] = word.rstrip("/") + suffix
    return shlex.join([*words, f"{flag}{value}"])


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a nested configuration, named as on the command line: `train.epochs`."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def confusions(
    matrix: Int[np.ndarray, "K K"], limit: int = CONFUSIONS
) -> list[tuple[int, int, int]]:
    """The most frequent kinds of error, `[(true, predicted, count), ...]`, at most `limit`."""
    errors = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    pairs = [(int(cell // len(matrix)), int(cell % len(matrix))) for cell in order]
    return [(*pair, int(errors[pair])) for pair in pairs if errors[pair] > 0]


def png(image_HxWx1: UInt8[np.ndarray, "H W 1"]) -> str:
    """A grey image as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image_HxWx1[..., 0]).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _number(value: Number, form: str) -> str:
    """A number in Python's format, a dash where there is none."""
    return NOTHING if value is None or not math.isfinite(value) else format(value, form)


def percent(share: Number, digits: int = 2) -> str:
    """0.98761 as "98.76%". What is short of 100% never reads as 100%."""
    text = _number(share, f".{digits}%")
    rounded_up = share is not None and share < 1 and text.startswith("100")
    return f">{100 - 10.0**-digits:.{digits}f}%" if rounded_up else text


def count(number: Number) -> str:
    """12345 as "12,345"."""
    return _number(number, ",.0f")


def loss(value: Number) -> str:
    """0.0312345 as "0.03123": four significant digits."""
    return _number(value, ".4g")


def duration(seconds: Number) -> str:
    """Seconds as a person would say them: "0.42 s", "15.3 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def memory(size: Number) -> str:
    """Bytes in the unit that fits: 812345678 as "812 MB", and in powers of 1000."""
    if size is None or not math.isfinite(size):
        return NOTHING
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def render(
    *,
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    images: UInt8[np.ndarray, "N 28 28 1"],
    logits: Float32[np.ndarray, "N K"],
    labels: Int32[np.ndarray, "N"],
    command: str,
) -> str:
    """The report of one run, as the text of a self-contained HTML file.

    Args:
        summary: what `summary.json` holds. Its `reliability`, the bins of the calibration error, is
            drawn where it is there.
        history: the rows of `metrics.jsonl`.
        config: the run's whole configuration.
        images: the test images, each shown as it was before any scaling.
        logits: the trained model's output for them.
        labels: their true classes.
        command: the shell command that does the run again.
    """
    names = [str(name) for name in summary["class_names"]]
    matrix = np.asarray(summary["confusion_matrix"], np.int64)
    decisions = decide(logits)
    total, errors = summary["num_test"], summary["test_errors"]
    class_errors = (matrix.sum(axis=1) - matrix.diagonal()).tolist()
    mistakes = [
        {
            "index": index,
            "true": names[labels[index]],
            "predicted": names[decisions.predicted[index]],
            "probability": float(decisions.confidence[index]),
            "image": png(images[index]),
        }
        for index in worst_mistakes(decisions, labels, MISTAKES).tolist()
    ]
    curves = plots.learning_curves(history, summary["best_epoch"])
    bins = summary.get("reliability")
    return template("report.html.jinja").render(
        summary=summary,
        history=history,
        command=command,
        next_commands=next_commands(summary, history, config, command),
        interval=stats.wilson(total - errors, total) if total and errors is not None else None,
        config_rows=list(flatten(config)),
        names=names,
        class_errors=class_errors,
        confusions=confusions(matrix),
        mistakes=mistakes,
        learning_curves=Markup(plots.svg(curves, "Learning curves")),
        confusion=Markup(plots.svg(plots.confusion(matrix, names), "Confusion matrix")),
        reliability=Markup(plots.svg(plots.reliability(bins), "Reliability diagram"))
        if bins
        else "",
    )


def template(name: str) -> jinja2.Template:
    """One of the package's pages; a name that does not exist is an error, and text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        percent=percent, count=count, loss=loss, duration=duration, memory=memory
    )
    return environment.get_template(name)
