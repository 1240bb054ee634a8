"""Contributions of images to a score: their mean is the score, their spread its sampling error."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mnist_jax.analysis import contributions, stats

RNG = np.random.default_rng(0)


def psnr(pixels, clean):
    return -10 * np.log10(np.square(np.clip(pixels, 0, 1) - clean).mean())


def macro_f1(scores, labels):
    return f1_score(labels, scores > 0, average="macro", zero_division=0)


def restored(n):
    clean = RNG.random((n, 9)).astype(np.float32)
    noise = RNG.normal(size=(n, 9)) * RNG.gamma(2, 0.1, (n, 1))
    return (clean + noise).astype(np.float32), clean


def labelled(n):
    labels = (RNG.random((n, 3)) < (0.2, 0.5, 0.8)).astype(np.int32)
    return (labels - 0.5 + RNG.normal(0, 0.5, (n, 3))).astype(np.float32), labels


def test_accuracy_counts_images():
    scores = np.float32([[[2, 1], [2, 1], [0, 1]]])
    found = contributions.of_images("accuracy", scores, np.array([0, 1, 1]))
    assert found.tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("score", "draw", "formula"), [("psnr", restored, psnr), ("macro_f1", labelled, macro_f1)]
)
def test_the_mean_is_the_score_and_the_spread_its_error(score, draw, formula):
    """Against the formula, and against its standard deviation over many samples of images."""
    samples = [draw(400) for _ in range(300)]
    values = [contributions.of_images(score, one[None], truth)[0] for one, truth in samples]
    scores = [formula(*sample) for sample in samples]
    np.testing.assert_allclose([x.mean() for x in values], scores, rtol=1e-5)
    error = np.mean([x.std() for x in values]) / 400**0.5
    assert error == pytest.approx(np.std(scores), rel=0.15)
    limits, truth = stats.limits_of(score), np.mean(scores)
    bounds = [stats.on_new_images(x[None], limits) for x in values]
    assert 0.91 < np.mean([low < truth < high for low, high in bounds]) < 0.98


def test_a_label_that_is_never_said_nor_true_scores_0():
    scores, labels = np.float32([[[-1, 1], [-1, 1]]]), np.int32([[0, 1], [0, 0]])
    found = contributions.of_images("macro_f1", scores, labels)
    assert found.mean() == pytest.approx(macro_f1(scores[0], labels))


def test_perfect_pixels_have_no_finite_contribution():
    clean = np.ones((3, 4), np.float32)
    assert not np.isfinite(contributions.of_images("psnr", clean[None], clean)).any()
