"""Thresholds against scikit-learn, and against trying every one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit, softmax
from sklearn.metrics import confusion_matrix, precision_recall_curve, precision_score, roc_curve

from mnist_jax.analysis import thresholds
from mnist_jax.types import UserError


@st.composite
def examples(draw):
    """Scores with many ties, and labels of both kinds."""
    scores = draw(st.lists(st.integers(-5, 5), min_size=2, max_size=30))
    labels = draw(st.lists(st.integers(0, 1), min_size=len(scores), max_size=len(scores)))
    return np.array(scores, np.float64), np.array([*labels[:-2], 0, 1])


def every_threshold(scores, labels):
    return [thresholds.operating_point(scores, labels, t) for t in np.unique(scores).tolist()]


@given(examples(), st.sampled_from([0.1, 0.5, 2 / 3, 0.9, 1.0]))
@settings(max_examples=60)
def test_goals_are_met_by_the_threshold_that_gives_most_of_the_rest(data, goal):
    points = every_threshold(*data)
    precise = [point.threshold for point in points if point.precision >= goal]
    if precise:
        assert thresholds.at_precision(*data, goal) == min(precise)
    else:
        with pytest.raises(UserError, match=f"precision of {goal:.4g}; the best is"):
            thresholds.at_precision(*data, goal)
    found = [point.threshold for point in points if point.recall >= goal]
    assert thresholds.at_recall(*data, goal) == max(found)


@given(examples())
@settings(max_examples=60)
def test_the_areas_are_what_they_mean(data):
    scores, labels = data
    yes, no = scores[labels == 1], scores[labels == 0]
    ranking = thresholds.ranking(scores, labels)
    above = (yes[:, None] > no) + 0.5 * (yes[:, None] == no)
    assert ranking.auc == pytest.approx(above.mean())
    steps = every_threshold(scores, labels)[::-1]  # falling thresholds: rising recall
    gained = np.diff([0.0, *(point.recall for point in steps)])
    area = sum(gain * point.precision for gain, point in zip(gained, steps, strict=True))
    assert ranking.average_precision == pytest.approx(area)


@given(examples(), st.integers(-6, 6))
@settings(max_examples=60)
def test_an_operating_point_counts_as_scikit_learn_does(data, threshold):
    scores, labels = data
    point = thresholds.operating_point(scores, labels, threshold + 0.0)
    (tn, fp), (fn, tp) = confusion_matrix(labels, scores >= threshold, labels=[0, 1]).tolist()
    assert point == (threshold, tp, fp, fn, tn)
    assert point.false_positive_rate == fp / (fp + tn)
    assert point.recall == tp / (tp + fn)
    if tp + fp:
        assert point.precision == precision_score(labels, scores >= threshold)
    else:
        assert math.isnan(point.precision)


def test_curves_are_thinned_but_keep_their_course():
    rng = np.random.default_rng(0)
    labels = (rng.random(20_000) < 0.2).astype(np.int32)
    scores = rng.normal(size=20_000) + 2.0 * labels
    precision, recall, _ = precision_recall_curve(labels, scores)
    whole = {
        thresholds.roc: roc_curve(labels, scores, drop_intermediate=False)[:2],
        thresholds.precision_recall: (recall[-2::-1], precision[-2::-1]),
    }
    for curve, (x, y) in whole.items():
        thin = curve(scores, labels, 100)
        assert 50 < len(thin.x) <= 100
        assert {*zip(thin.x, thin.y, strict=True)} <= {*zip(x, y, strict=True)}
        assert (thin.x[-1], thin.y[-1]) == (x[-1], y[-1])
        assert thin.x[0] == x[0]
        assert (np.diff(thin.thresholds) < 0).all()
        settled = x > 0.05  # precision over the first few examples is all noise
        np.testing.assert_allclose(np.interp(x, thin.x, thin.y)[settled], y[settled], atol=0.02)


def test_a_short_curve_is_kept_whole():
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    curve = thresholds.precision_recall(scores, labels)
    assert curve.thresholds.tolist() == [0.8, 0.4, 0.35, 0.1]
    np.testing.assert_allclose(curve.x, [0.5, 0.5, 1, 1])
    np.testing.assert_allclose(curve.y, [1, 1 / 2, 2 / 3, 1 / 2])


def test_what_has_no_sense():
    scores = np.array([0.0, 1.0])
    for bad in ((scores, np.array([1, 1])), (scores * math.nan, np.array([0, 1]))):
        assert all(map(math.isnan, thresholds.ranking(*bad)))
    with pytest.raises(UserError, match="no example is positive"):
        thresholds.at_recall(scores, np.array([0, 0]), 0.5)
    with pytest.raises(UserError, match=r"recall of 1\.1; the largest possible recall is 1"):
        thresholds.at_recall(scores, np.array([0, 1]), 1.1)
    with pytest.raises(UserError, match=r"best is 0\.5, at a threshold of 0$"):
        thresholds.at_precision(scores, np.array([1, 0]), 0.9)


@pytest.mark.parametrize("classes", [2, 10])
def test_log_odds_are_those_of_the_softmax(classes):
    logits = np.random.default_rng(0).normal(scale=3, size=(200, classes)).astype(np.float32)
    odds = thresholds.log_odds(logits)
    probabilities = softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(odds, logit(probabilities), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(thresholds.probability(odds), probabilities, rtol=1e-9)


def test_log_odds_tell_apart_what_probabilities_do_not():
    odds = thresholds.log_odds(np.array([[0, 900], [0, 2000], [np.nan, 0]], np.float32))
    np.testing.assert_array_equal(odds[:2], [[-900, 900], [-2000, 2000]])
    assert np.isnan(odds[2]).all()
