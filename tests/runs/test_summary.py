"""The summary of a sweep: its ensemble and its outer folds."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from mnist_jax.runs import summary
from tests.analysis.test_metrics import loop_ece, probabilities

TRIALS, N, CLASSES = 4, 300, 5


@pytest.fixture(scope="module")
def overconfident():
    """Logits of overconfident trials."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, N).astype(np.int32)
    logits = 3 * np.eye(CLASSES)[labels] + 3 * rng.normal(size=(TRIALS, N, CLASSES))
    return logits.astype(np.float32), labels


def test_an_ensemble_is_evaluated_by_its_mean_probabilities(overconfident):
    logits, labels = overconfident
    found = summary.evaluate_ensemble(logits, labels, True)
    mean = np.mean([probabilities(one) for one in logits], axis=0)
    assert found["trials"] == TRIALS
    assert found["nll"] == pytest.approx(log_loss(labels, mean), rel=1e-5)
    assert found["ece"] == pytest.approx(loop_ece(np.log(mean), labels, 15), abs=1e-5)
    alone = [log_loss(labels, probabilities(one)) for one in logits]
    assert found["nll_of_trials"] == pytest.approx(np.mean(alone), rel=1e-5)
    assert found["nll"] < found["nll_of_trials"]  # by Jensen's inequality
    assert sum(row["count"] for row in found["reliability"]) == N
    right = sum(row["count"] * row["accuracy"] for row in found["reliability"])
    assert right == pytest.approx(N * found["test_accuracy"]["mean of probabilities"], rel=1e-5)


def test_scores_that_are_not_probabilities_have_no_calibration(overconfident):
    found = summary.evaluate_ensemble(*overconfident, False)
    assert (
        found["test_accuracy"] == summary.evaluate_ensemble(*overconfident, True)["test_accuracy"]
    )
    for key in ("nll", "nll_of_trials", "ece", "reliability"):
        assert found[key] is None


def test_outer_folds_are_described():
    rows = [{"fold": i, "score": value} for i, value in enumerate((0.9, 0.92, 0.94))]
    found = summary.describe_outer(rows, "accuracy")
    assert found["folds"] == rows
    assert found["score"]["mean"] == pytest.approx(0.92)
    assert found["score"]["n"] == 3


def test_an_interval_over_outer_folds_is_of_a_share_or_not():
    rows = [{"fold": i, "score": value} for i, value in enumerate((0.9, 1.0))]
    assert summary.describe_outer(rows, "accuracy")["score"]["high"] == 1.0
    assert summary.describe_outer(rows, "psnr")["score"]["high"] > 1.0
