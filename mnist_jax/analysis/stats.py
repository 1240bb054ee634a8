"""How sure a result is; the distributions are SciPy's.

Held-out folds of a cross-validation are no independent samples: any two of their trainings share
examples, so that their accuracies differ less than those of fresh data would. What is said here of
folds counts one value a fold (the mean over its seeds, which share its examples), and takes the
variance of the mean of k folds for sd^2 (1 / k + 1 / (k - 1)), where 1 / (k - 1) is the ratio of
held-out to training examples (Nadeau and Bengio 2003, Inference for the Generalization Error).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

LEVEL = 0.95  # of every interval


class Described(NamedTuple):
    """Values of members: their distribution, and the interval of their mean."""

    n: int
    mean: float
    sd: float | None  # of the values (n - 1 in the denominator); None of a single one
    low: float | None  # of the mean's 95% interval, by Student's t; None of a single value or fold
    high: float | None
    min: float
    max: float


class Comparison(NamedTuple):
    """How much more b is than a."""

    n: int
    difference: float  # mean of b - a
    low: float | None  # of its 95% interval; None of a single pair or fold
    high: float | None
    p_value: float | None  # that it is 0; None if all differences are equal, or where low is


class McNemar(NamedTuple):
    """Two predictions of the same examples."""

    only_a: int  # examples that a alone gets right
    only_b: int
    p_value: float  # that both are right equally often


def describe(values: Sequence[float], folds: Sequence[int] | None = None) -> Described:
    """Mean, spread and the interval of the mean of at least one value.

    Args:
      values: of members.
      folds: which held-out fold each is of, in a cross-validation; None: they are independent.
    """
    from scipy import stats

    x = np.asarray(values, np.float64)
    mean, error, freedom = float(x.mean()), *_error_of_mean(x, folds)
    low = high = None
    if error is not None:
        half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
        low, high = mean - half, mean + half
    sd = float(x.std(ddof=1)) if len(x) > 1 else None
    return Described(len(x), mean, sd, low, high, float(x.min()), float(x.max()))


def _error_of_mean(
    x: Float[np.ndarray, " n"], folds: Sequence[int] | None
) -> tuple[float | None, int]:
    """The standard error of the mean, None of a single value or fold, and degrees of freedom."""
    if folds is not None:
        x = np.array([x[np.equal(folds, fold)].mean() for fold in np.unique(folds)])
    k = len(x)
    if k == 1:
        return None, 0
    shared = 0.0 if folds is None else 1 / (k - 1)
    return float(x.std(ddof=1)) * (1 / k + shared) ** 0.5, k - 1


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Wilson's interval of a share (Wilson 1927).

    Unlike the mean ± 1.96 standard errors it is honest close to 100%, where these models live.
    """
    from scipy.stats import binomtest

    bounds = binomtest(correct, total).proportion_ci(LEVEL, method="wilson")
    return float(bounds.low), float(bounds.high)


def paired(
    a: Sequence[float], b: Sequence[float], folds: Sequence[int] | None = None
) -> Comparison:
    """Student's paired t-test of b against a, pair by pair (the same seed, the same fold).

    Args:
      a: values.
      b: as many.
      folds: which held-out fold each pair is of, in a cross-validation; None: all are independent.

    Raises:
      ValueError: they are not equally many.
    """
    from scipy import stats

    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values make no pairs")
    differences = np.subtract(b, a, dtype=np.float64)
    found = describe(differences.tolist(), folds)
    error, freedom = _error_of_mean(differences, folds)
    p_value = None
    if error is not None and error > 1e-12:  # less is rounding: accuracies are counts over a total
        p_value = 2 * float(stats.t.sf(abs(found.mean) / error, freedom))
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
