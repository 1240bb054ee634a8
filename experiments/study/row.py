"""What a row of the study is, and what comes of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int


class Settings(NamedTuple):
    """How the study is run."""

    folder: Path  # where runs are kept
    seeds: int  # of each system that has one
    quick: bool  # on digits, an epoch: to see that all of it works

    def dataset(self, name: str) -> str:
        """The data set to take for one of the studies'."""
        return "digits" if self.quick else name


class Outcome(NamedTuple):
    """What a system reaches."""

    values: Sequence[float]  # the row's metric, one a seed or fold
    seconds: float | None  # of training one of them; of kNN's search
    facts: Mapping[str, float] = MappingProxyType({})  # other figures, by name
    # For the page, whichever there are: "classes" and their "confusion" matrix, "history" as in
    # metrics.jsonl, a "note" on which of several these are of, "layers" of a net, "images" as rows
    # of data URIs, other "figures" by caption, as SVG.
    shown: Mapping[str, Any] = MappingProxyType({})
    # What each example adds to the mean of the values, to pair with another system's.
    examples: Sequence[float] | None = None
    of_folds: bool = False  # whether each value is of a held-out fold


# What `note` says of a cross-validation.
OUT_OF_FOLD = (
    "The confusion matrix is of the training images, each by the fold that did not learn from it."
)


def of_seed(seed: int, seeds: int) -> str:
    """What `note` says where one of some seeds is shown."""
    return f"Shown is what seed {seed} came to, alone of {seeds}." if seeds > 1 else ""


def confusion(
    true: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], classes: Sequence[str]
) -> dict[str, Any]:
    """What is shown of decisions."""
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
    metric: str  # what is compared, in words
    theirs: float | None  # their figure; None where they showed none
    reproduced: System | None
    best: System | None
    their_seconds: float | None = None  # of training
    note: str = ""
