"""The types of the study: a row, its settings and its outcome."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

PARTS = {"reproduced": "Reproduced", "best": "Ours at its best"}  # of a row, with their titles


class Settings(NamedTuple):
    """Settings of a run of the study."""

    folder: Path  # where runs are kept
    seeds: int  # of each system that has one
    quick: bool  # on digits, one epoch: to check that everything works

    def dataset(self, name: str) -> str:
        """Return the data set to use for one of the studies."""
        return "digits" if self.quick else name


class Outcome(NamedTuple):
    """Results of a system."""

    values: Sequence[float]  # the row's metric, one a seed or fold
    seconds: float | None  # of one training, or of the search of kNN
    facts: Mapping[str, float] = MappingProxyType({})  # other figures, by name
    # For the page, each optional: "classes" and their "confusion" matrix, "history" as in
    # metrics.jsonl, a "note" on the seed that is shown, "layers" of a net, "images" as rows of data
    # URIs, other "figures" by caption, as SVG.
    shown: Mapping[str, Any] = MappingProxyType({})
    # The contribution of each example to the mean, to be paired with another system.
    examples: Sequence[float] | None = None
    of_folds: bool = False  # each value is of a held-out fold


# The note of a cross-validation.
OUT_OF_FOLD = (
    "The confusion matrix is of the training images, each by the fold that did not learn from it."
)


def of_seed(seed: int, seeds: int) -> str:
    """Return the note of an outcome that shows one of several seeds."""
    return f"Shown is what seed {seed} came to, alone of {seeds}." if seeds > 1 else ""


def confusion(
    true: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], classes: Sequence[str]
) -> dict[str, Any]:
    """Return the classes and the confusion matrix, to be shown."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(true, predicted, labels=range(len(classes)))
    return {"classes": list(classes), "confusion": matrix.tolist()}


System = Callable[[Settings], Outcome]


class Row(NamedTuple):
    """A system of one of the studies, and our answer."""

    name: str
    study: str  # A to E
    data: str
    system: str
    metric: str  # the figure that is compared, in words
    theirs: float | None  # their figure, if they report one
    reproduced: System | None
    best: System | None
    their_seconds: float | None = None  # of training
    note: str = ""
    seen: str = ""  # choices that have seen the images that score the row
    revision: int = 1  # of the data: results of an earlier one do not count as finished


def on_digits(row: Row) -> Row:
    """Return a row for a quick run, whose figures cannot be compared with the study's."""
    return row._replace(data="digits", theirs=None, their_seconds=None, note="", seen="")
