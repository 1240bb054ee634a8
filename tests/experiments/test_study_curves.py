"""Curves of the study: precision and recall at every threshold, and several ROC curves."""

import numpy as np
import pytest

from experiments.study import curves
from mnist_jax.analysis import thresholds
from mnist_jax.report import plots


@pytest.mark.parametrize("spread", [0.0, 3.0, 9.0])
def test_precision_and_recall_against_the_threshold(spread):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4 // 3
    scores = spread * labels + rng.normal(size=400)
    points = {"zero": thresholds.operating_point(scores, labels, 0.0)}
    curve = thresholds.precision_recall(scores, labels)
    figure = curves.against_threshold(curve, points)
    (axes,) = figure.axes
    precision, recall = (
        line for line in axes.get_lines() if line.get_label() in ("precision", "recall")
    )
    for line, what in ((precision, "precision"), (recall, "recall")):
        for x, y in zip(*line.get_data(), strict=True):
            assert y == pytest.approx(getattr(thresholds.operating_point(scores, labels, x), what))
    marks = [dot.get_offsets()[0].tolist() for dot in axes.collections]
    assert marks == [[0.0, points["zero"].precision], [0.0, points["zero"].recall]]
    low, high = axes.get_xlim()
    assert low < 0 < high
    inside = (low <= curve.thresholds) & (curve.thresholds <= high)
    assert inside.mean() > 0.95  # of the curve, not of the scores
    drawing = plots.svg(figure, "Thresholds")
    assert f"zero: recall {points['zero'].recall:.1%} from 0 on" in drawing


def test_a_single_threshold_can_be_drawn():
    labels = np.array([0, 1])
    curve = thresholds.precision_recall(np.zeros(2), labels)
    (axes,) = curves.against_threshold(curve, {}).axes
    assert np.ptp(axes.get_xlim()) == 1


def test_undefined_precision_is_not_marked():
    labels, scores = np.array([0, 1, 0, 1]), np.arange(4.0)
    points = {"never": thresholds.operating_point(scores, labels, 9.0)}
    curve = thresholds.precision_recall(scores, labels)
    assert "nan" not in plots.svg(curves.against_threshold(curve, points), "Curves")


def test_roc_curves_of_several_systems():
    labels = np.arange(40) % 2
    found = {
        name: thresholds.roc(spread * labels + np.sin(np.arange(40)), labels)
        for name, spread in (("weak", 0.5), ("strong", 3.0))
    }
    (axes,) = curves.rocs(found).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    for name, curve in found.items():
        np.testing.assert_array_equal(lines[name].get_xdata(), curve.x)
        np.testing.assert_array_equal(lines[name].get_ydata(), curve.y)
