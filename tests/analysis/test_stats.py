"""How sure a result is, against formulas written out and against simulations."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mnist_jax.analysis import stats


def test_describe_is_what_the_textbook_says():
    values = [0.91, 0.93, 0.92, 0.96]
    found = stats.describe(values)
    mean = sum(values) / 4
    sd = math.sqrt(sum((x - mean) ** 2 for x in values) / 3)
    half = 3.182446305284263 * sd / 2  # Student's t, 3 degrees of freedom, 97.5%
    expected = (4, mean, sd, mean - half, mean + half, 0.91, 0.96)
    np.testing.assert_allclose(np.array(found, float), expected)


def test_a_single_value_has_no_spread():
    assert stats.describe([0.5]) == (1, 0.5, None, None, None, 0.5, 0.5)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [(f := stats.describe(list(rng.normal(3, 2, 5)))).low < 3 < f.high for _ in range(1000)]
    assert 0.93 < np.mean(hits) < 0.97


def test_folds_share_examples_and_each_counts_once():
    """Nadeau and Bengio's variance, sd^2 (1 / k + held out / trained on), of the folds' means."""
    values, folds = [0.90, 0.94, 0.91, 0.95, 0.98, 0.96], [0, 0, 1, 1, 2, 2]
    found = stats.describe(values, folds)
    sd = math.sqrt(sum((x - 0.94) ** 2 for x in (0.92, 0.93, 0.97)) / 2)
    half = 4.302652729749464 * sd * math.sqrt(1 / 3 + 20 / 40)  # Student's t, 2 degrees of freedom
    np.testing.assert_allclose((found.low, found.high), (0.94 - half, 0.94 + half))
    plain = stats.describe(values)
    assert found._replace(low=plain.low, high=plain.high) == plain
    alone = stats.describe([0.9, 0.92], [1, 1])
    assert alone.low is None is alone.high
    assert alone.sd == pytest.approx(0.02 / math.sqrt(2))


def test_wilson_is_wilsons():
    z = 1.959963984540054
    centre, spread = (0.9 + z**2 / 800) / (1 + z**2 / 400), z / (1 + z**2 / 400)
    half = spread * (0.9 * 0.1 / 400 + z**2 / 640_000) ** 0.5
    np.testing.assert_allclose(stats.wilson(360, 400), (centre - half, centre + half))


def test_paired_looks_at_pairs():
    """What differs from seed to seed alike is no noise."""
    a = [0.90, 0.94, 0.91, 0.97, 0.93]
    b = [0.913, 0.949, 0.922, 0.979, 0.942]
    found = stats.paired(a, b)
    assert found.difference == pytest.approx(0.011, abs=1e-9)
    assert 0 < found.low < 0.011 < found.high
    assert found.p_value < 0.001
    back = stats.paired(b, a)
    assert back.difference == pytest.approx(-found.difference)
    assert back.p_value == pytest.approx(found.p_value)


def test_the_test_of_pairs_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7)).tolist()
    found, theirs = stats.paired(a, b), scipy.stats.ttest_rel(b, a)
    assert found.p_value == pytest.approx(theirs.pvalue)
    np.testing.assert_allclose((found.low, found.high), theirs.confidence_interval())


def test_pairs_of_folds_are_less_sure():
    a, b = [0.90, 0.94, 0.91, 0.97, 0.93], [0.905, 0.952, 0.915, 0.985, 0.931]
    plain, found = stats.paired(a, b), stats.paired(a, b, range(5))
    assert found.difference == plain.difference
    wider = math.sqrt((1 / 5 + 1 / 4) / (1 / 5))
    assert found.high - found.low == pytest.approx(wider * (plain.high - plain.low))
    statistic = scipy.stats.ttest_rel(b, a).statistic / wider
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(statistic, 4))
    assert stats.paired(a, b, [0] * 5)[2:] == (None, None, None)


def test_pairs_need_partners():
    with pytest.raises(ValueError, match="2 and 3"):
        stats.paired([1.0, 2.0], [1.0, 2.0, 3.0])
    assert stats.paired([1.0], [3.0]) == (1, 2, None, None, None)


def test_differences_equal_but_for_rounding_are_no_sample():
    """What is 0.02 each time comes out with a spread of 1e-17."""
    found = stats.paired([0.91, 0.93, 0.97], [0.93, 0.95, 0.99])
    assert found.difference == pytest.approx(0.02)
    assert found.p_value is None


def test_mcnemar_is_the_binomial_test_of_the_disagreements():
    a = np.array([True] * 50 + [True] * 9 + [False] * 1 + [False] * 10)
    b = np.array([True] * 50 + [False] * 9 + [True] * 1 + [False] * 10)
    found = stats.mcnemar(a, b)
    p = 2 * sum(math.comb(10, k) for k in (0, 1)) / 2**10
    assert (found.only_a, found.only_b) == (9, 1)
    assert found.p_value == pytest.approx(p)
    assert stats.mcnemar(a, a) == (0, 0, 1.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_mcnemar_does_not_care_who_is_first(pairs):
    a, b = np.array(pairs).T
    assert stats.mcnemar(a, b).p_value == pytest.approx(stats.mcnemar(b, a).p_value)


def test_an_interval_of_a_share_stays_within_its_limits():
    """Two values of 95.1% and 99.9% have the interval 67% to 128% by Student's t."""
    free, found = stats.describe([0.951, 0.999]), stats.describe([0.951, 0.999], None, stats.SHARE)
    assert free.high > 1
    assert (found.low, found.high) == (free.low, 1.0)
    low = stats.describe([0.001, 0.06], [0, 1], stats.SHARE)
    assert (low.low, low.mean) == (0.0, pytest.approx(0.0305))
    gain = stats.paired([0.0, 0.1], [0.99, 0.8], None, stats.SHARE)
    assert gain.high == 1.0
    assert stats.describe([25.0, 40.0], None, stats.limits_of("psnr")).low < 0
    assert stats.limits_of("accuracy") == stats.limits_of("macro_f1") == (0, 1)
    assert stats.limits_of("loss") == (0, math.inf)


def test_one_trial_on_new_images_has_wilsons_interval():
    correct = np.arange(400) < 360
    np.testing.assert_allclose(
        stats.on_new_images(correct[None], stats.SHARE), stats.wilson(360, 400)
    )
    flawless = stats.on_new_images(np.ones((1, 400), bool), stats.SHARE)
    np.testing.assert_allclose(flawless, stats.wilson(400, 400))
    # Three trials without an error are as sure as one, since they share the images.
    three = stats.on_new_images(np.ones((3, 400), bool), stats.SHARE)
    np.testing.assert_allclose(three, flawless)


@pytest.mark.parametrize("spread", [0.0, 9.0])
def test_variances_of_trials_and_images_add_up(spread):
    """The analysis of variance of a table of 2 x 3, by hand; `spread` is of images."""
    table = np.array([[1.0 - spread, 2.0, 6.0 + spread], [3.0 - spread, 4.0, 14.0 + spread]])
    means, columns = (3, 7), (2 - spread, 3, 10 + spread)
    of_trials = 3 * sum((x - 5) ** 2 for x in means)
    of_images = 2 * sum((x - 5) ** 2 for x in columns) / 2
    rest = sum((table[i, j] - means[i] - columns[j] + 5) ** 2 for i in (0, 1) for j in (0, 1, 2))
    rest /= 2
    total = of_trials + of_images - rest
    freedom = total**2 / (of_trials**2 / 1 + of_images**2 / 2)
    half = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(total / 6)
    over_seeds = scipy.stats.t.ppf(0.975, 1) * 2  # of the two means alone
    assert (half > over_seeds) == (spread > 0)
    half = max(half, over_seeds)
    np.testing.assert_allclose(stats.on_new_images(table), (5 - half, 5 + half))
    assert stats.on_new_images(table, (0.0, 7.0)) == (0.0, 7.0)


@pytest.mark.parametrize(
    ("trials", "of_seeds", "of_images"), [(3, 0.3, 3.0), (5, 0.05, 3.0), (10, 0.6, 2.0)]
)
def test_on_new_seeds_and_images_the_interval_covers_as_often_as_it_says(
    trials, of_seeds, of_images
):
    """Simulated accuracies of which seeds and images, both random, change the chances."""
    from scipy.special import expit

    rng = np.random.default_rng(0)
    base = 5 + rng.normal(0, of_seeds, 100_000) + rng.normal(0, of_images, 100_000)
    truth = expit(base).mean()

    def covered():
        by_seed, by_image = rng.normal(0, of_seeds, (trials, 1)), rng.normal(0, of_images, 500)
        correct = rng.random((trials, 500)) < expit(5 + by_seed + by_image)
        low, high = stats.on_new_images(correct, stats.SHARE)
        assert 0 <= low < correct.mean() < high <= 1
        seeds = stats.describe(correct.mean(axis=1).tolist(), None, stats.SHARE)
        assert low <= seeds.low < seeds.high <= high
        return low < truth < high, seeds.low < truth < seeds.high

    both, seeds = np.mean([covered() for _ in range(400)], axis=0)
    assert 0.925 < both < 0.99
    assert seeds < both  # an interval over seeds alone answers another question
