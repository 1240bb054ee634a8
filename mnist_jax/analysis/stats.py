"""Confidence intervals and tests of results, with SciPy's distributions.

The folds of a cross-validation are not independent samples: any two trainings share examples, so
their accuracies vary less than on new data. Statistics of folds use one value per fold (the mean
over its seeds, which share its examples), and sd^2 (1 / k + 1 / (k - 1)) as the variance of the
mean of k folds, where 1 / (k - 1) is the ratio of held-out to training examples (Nadeau and Bengio
2003, Inference for the Generalization Error).

An interval answers one question. `describe` over seeds: what is the mean over new seeds, on these
test images? `on_new_images`: what is it on new images as well? The second one is wider.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

LEVEL = 0.95  # of every interval

Limits = tuple[float, float]  # the smallest and the largest possible value
UNLIMITED: Limits = (-np.inf, np.inf)
SHARE: Limits = (0.0, 1.0)
_POSITIVE: Limits = (0.0, np.inf)
_LIMITS = {
    **dict.fromkeys(("accuracy", "top2_accuracy", "macro_f1", "ece"), SHARE),
    **dict.fromkeys(("loss", "errors", "pixel_error"), _POSITIVE),
    "ssim": (-1.0, 1.0),
}


def limits_of(metric: str) -> Limits:
    """Return the limits of a metric of a report, such as "accuracy"; PSNR has none."""
    return _LIMITS.get(metric, UNLIMITED)


class Described(NamedTuple):
    """Distribution of values of trials, and the interval of their mean."""

    n: int
    mean: float
    sd: float | None  # of the values (n - 1 in the denominator); None for a single one
    low: float | None  # of the mean's 95% interval, by Student's t; None for a single value or fold
    high: float | None
    min: float
    max: float


class Comparison(NamedTuple):
    """Difference between paired values a and b."""

    n: int
    difference: float  # mean of b - a
    low: float | None  # of its 95% interval; None for a single pair or fold
    high: float | None
    p_value: float | None  # of no difference; None if all differences are equal, or like low


class McNemar(NamedTuple):
    """Comparison of two predictions of the same examples."""

    only_a: int  # examples that only a predicts correctly
    only_b: int
    p_value: float  # of equal accuracy


def describe(
    values: Sequence[float], folds: Sequence[int] | None = None, limits: Limits = UNLIMITED
) -> Described:
    """Return mean, spread and the interval of the mean of at least one value.

    Args:
      values: of trials.
      folds: the held-out fold of each in a cross-validation; None: they are independent.
      limits: of the values; the interval ends there.
    """
    from scipy.special import stdtrit

    x = np.asarray(values, np.float64)
    mean, error, freedom = float(x.mean()), *_error_of_mean(x, folds)
    low = high = None
    if error is not None:
        half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
        low, high = _clip(mean - half, mean + half, limits)
    sd = float(x.std(ddof=1)) if len(x) > 1 else None
    return Described(len(x), mean, sd, low, high, float(x.min()), float(x.max()))


def _error_of_mean(
    x: Float[np.ndarray, " n"], folds: Sequence[int] | None
) -> tuple[float | None, int]:
    """Return the standard error of the mean (None for one value or fold), degrees of freedom."""
    if folds is not None:
        x = np.array([x[np.equal(folds, fold)].mean() for fold in np.unique(folds)])
    k = len(x)
    if k == 1:
        return None, 0
    shared = 0.0 if folds is None else 1 / (k - 1)
    return float(x.std(ddof=1)) * (1 / k + shared) ** 0.5, k - 1


def _clip(low: float, high: float, limits: Limits) -> tuple[float, float]:
    return max(low, limits[0]), min(high, limits[1])


def on_new_images(
    values: Shaped[np.ndarray, "trials images"], limits: Limits = UNLIMITED
) -> tuple[float, float]:
    """Return the interval of a mean for new images and, of several trials, for new seeds.

    Trials and images are crossed random effects, whose variances add up (Searle, Casella and
    McCulloch 1992, Variance Components, chapter 4); degrees of freedom by Satterthwaite (1946). A
    share has Wilson's interval with the number of examples that would have this variance (Korn and
    Graubard 1998), which for one trial is `wilson`. The result contains the interval over seeds
    alone, whose degrees of freedom are fewer.

    Args:
      values: of each image by each trial, such as 1 for a correct prediction and 0 for an error.
      limits: of the mean. `SHARE` if values are shares.
    """
    from scipy.special import ndtri, stdtrit

    x = np.asarray(values, np.float64)
    mean, (variance, freedom) = float(x.mean()), _crossed(x)
    tail = (1 + LEVEL) / 2
    z, t = float(ndtri(tail)), float(stdtrit(freedom, tail))
    seeds = describe(x.mean(axis=1).tolist())
    if limits != SHARE:
        half = t * variance**0.5
        return _around(seeds, mean - half, mean + half, limits)
    spread = max(mean * (1 - mean), 0.0)
    # Without any variance, trials tell nothing about images that they do not share.
    n = spread / variance * (z / t) ** 2 if spread and variance else x.shape[1]
    return _around(seeds, *_wilson(mean, float(n)), limits)


def _around(found: Described, low: float, high: float, limits: Limits) -> tuple[float, float]:
    """Clip an interval, widened to contain the mean's if there is one."""
    if found.low is not None and found.high is not None:
        low, high = min(low, found.low), max(high, found.high)
    return _clip(low, high, limits)


def _crossed(x: Float[np.ndarray, "trials images"]) -> tuple[float, float]:
    """Return the variance of the mean over both axes, and its degrees of freedom."""
    trials, images = x.shape
    if trials == 1:
        return float(x.var()) / images, np.inf
    by_trial, by_image = x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True)
    # Mean squares of the analysis of variance; a smaller one than the rest's is luck.
    rest = np.square(x - by_trial - by_image + x.mean()).sum() / max((trials - 1) * (images - 1), 1)
    of_trials = max(images * float(by_trial.var(ddof=1)), rest)
    of_images = max(trials * float(by_image.var(ddof=1)), rest) if images > 1 else rest
    total = of_trials + of_images - rest
    if not total:
        return 0.0, np.inf
    uncertain = of_trials**2 / (trials - 1) + of_images**2 / max(images - 1, 1)
    return float(total / x.size), float(total**2 / uncertain)


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return Wilson's interval of a share (Wilson 1927).

    Unlike the mean ± 1.96 standard errors it is valid close to 100%, where these models are.
    """
    return _wilson(float(correct / total), float(total))


def _wilson(share: float, n: float) -> tuple[float, float]:
    from scipy.special import ndtri  # scipy.stats takes longer to import than a small net to train

    z = float(ndtri((1 + LEVEL) / 2))
    centre = share + z**2 / (2 * n)
    half = z * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


def paired(
    a: Sequence[float],
    b: Sequence[float],
    folds: Sequence[int] | None = None,
    limits: Limits = UNLIMITED,
) -> Comparison:
    """Compare b with a by Student's paired t-test; pairs have the same seed and fold.

    Args:
      a: values.
      b: values, in the same order.
      folds: the held-out fold of each pair in a cross-validation; None: pairs are independent.
      limits: of the values, which limit the difference.

    Raises:
      ValueError: a and b differ in length.
    """
    from scipy.special import stdtr

    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired")
    differences = np.subtract(b, a, dtype=np.float64)
    found = describe(differences.tolist(), folds, limits_of_difference(limits))
    error, freedom = _error_of_mean(differences, folds)
    p_value = None
    if error is not None and error > 1e-12:  # less is rounding: accuracies are counts over a total
        p_value = 2 * float(stdtr(freedom, -abs(found.mean) / error))
    return Comparison(found.n, found.mean, found.low, found.high, p_value)


def limits_of_difference(limits: Limits) -> Limits:
    """Return the limits of the difference of two values within limits."""
    return limits[0] - limits[1], limits[1] - limits[0]


def mcnemar(a_correct: Bool[np.ndarray, " n"], b_correct: Bool[np.ndarray, " n"]) -> McNemar:
    """Compare predictions of the same examples by McNemar's exact test (McNemar 1947).

    Among examples that exactly one predicts correctly, each gets half if both are equally good.
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a_correct & ~b_correct).sum()), int((b_correct & ~a_correct).sum())
    disagree = only_a + only_b
    p_value = float(binomtest(only_a, disagree).pvalue) if disagree else 1.0
    return McNemar(only_a, only_b, p_value)
