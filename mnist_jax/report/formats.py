"""Numbers as a person reads them; a dash for a missing one."""

import math
from collections.abc import Mapping
from typing import Any

NOTHING = "–"  # in place of a number that is missing or not finite
Number = int | float | None


def percent(share: Number, digits: int = 2) -> str:
    """0.98761 as "98.76%". A share below 100% never reads as 100%."""
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
    """Format seconds: "0.42 s", "15.3 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def memory(size: Number) -> str:
    """Format bytes in powers of 1000: 812345678 as "812 MB"."""
    if size is None or not math.isfinite(size):
        return NOTHING
    return f"{size / 1e6:,.0f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def score_name(score: str) -> str:
    """Return the name of a selection score in a text: "macro F1" for `macro_f1`."""
    return {"macro_f1": "macro F1", "psnr": "PSNR"}.get(score, score)


def task_name(config: Mapping[str, Any]) -> str:
    """Return a run's task for a title: "one vs rest"; configs of earlier versions lack it."""
    return config.get("task", {}).get("name", "multiclass").replace("_", " ")


def score(value: Number, name: str) -> str:
    """Format a selection score in its unit: dB for `psnr`, percent for the others."""
    if name != "psnr":
        return percent(value)
    text = _number(value, ".2f")
    return text if text == NOTHING else f"{text} dB"


def difference(value: Number, name: str = "accuracy") -> str:
    """Format a signed difference of two scores: dB for `psnr`, else percentage points."""
    return _number(value if value is None or name == "psnr" else 100 * value, "+.2f")


def _number(value: Number, form: str) -> str:
    """Format a number in Python's format; a dash if it is missing or not finite."""
    return NOTHING if value is None or not math.isfinite(value) else format(value, form)
