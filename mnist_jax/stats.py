"""How sure a result is; the tests themselves are SciPy's."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

LEVEL = 0.95  # of every interval


class Described(NamedTuple):
    """Values of members: their distribution, and the interval of their mean."""

    n: int
    mean: float
    sd: float | None  # of the values (n - 1 in the denominator); None of a single one
    low: float | None  # of the 95% interval of the mean, by Student's t; None of a single value
    high: float | None
    min: float
    max: float


class Comparison(NamedTuple):
    """How much more b is than a."""

    n: int
    difference: float  # mean of b - a
    low: float | None  # of its 95% interval; None of a single pair
    high: float | None
    p_value: float | None  # that it is 0; None if all differences are equal, or of a single pair


class McNemar(NamedTuple):
    """Two predictions of the same examples."""

    only_a: int  # examples that a alone gets right
    only_b: int
    p_value: float  # that both are right equally often


def describe(values: Sequence[float]) -> Described:
    """Mean, spread and the interval of the mean of at least one value."""
    from scipy import stats

    x = np.asarray(values, np.float64)
    n, mean = len(x), float(x.mean())
    sd = low = high = None
    if n > 1:
        sd = float(x.std(ddof=1))
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / n**0.5
        low, high = mean - half, mean + half
    return Described(n, mean, sd, low, high, float(x.min()), float(x.max()))


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Wilson's interval of a share (Wilson 1927).

    Unlike the mean ± 1.96 standard errors it is honest close to 100%, where these models live.
    """
    from scipy.stats import binomtest

    bounds = binomtest(correct, total).proportion_ci(LEVEL, method="wilson")
    return float(bounds.low), float(bounds.high)


def paired(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Student's paired t-test of b against a, pair by pair (the same seed, the same fold).

    Raises:
      ValueError: they are not equally many.
    """
    from scipy import stats

    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values make no pairs")
    differences = np.subtract(b, a, dtype=np.float64)
    found = describe(differences.tolist())
    spread = np.ptp(differences) > 1e-12  # less is rounding: accuracies are counts over a total
    p_value = float(stats.ttest_1samp(differences, 0.0).pvalue) if spread else None
    return Comparison(found.n, found.mean, found.low, found.high, p_value)


def mcnemar(a_correct: Bool[np.ndarray, " n"], b_correct: Bool[np.ndarray, " n"]) -> McNemar:
    """McNemar's exact test (McNemar 1947) of who is right on the same examples.

    Of those that exactly one gets right, each would get half if both were equally good.
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a_correct & ~b_correct).sum()), int((b_correct & ~a_correct).sum())
    disagree = only_a + only_b
    p_value = float(binomtest(only_a, disagree).pvalue) if disagree else 1.0
    return McNemar(only_a, only_b, p_value)
