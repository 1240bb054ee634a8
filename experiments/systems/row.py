"""What a row of the study is, and what comes of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple


class Settings(NamedTuple):
    """How the study is run."""

    folder: Path  # where runs are kept
    seeds: int  # of each system that has one
    quick: bool  # on digits, a few epochs: to see that all of it works

    def dataset(self, name: str) -> str:
        """The data set to take for one of the studies'."""
        return "digits" if self.quick else name


class Outcome(NamedTuple):
    """What a system reaches."""

    values: Sequence[float]  # the row's metric, one a seed or fold
    seconds: float | None  # of training, of one of them
    facts: Mapping[str, float] = MappingProxyType({})  # other figures, by name


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
