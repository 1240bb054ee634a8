"""The curves of two classes: what is marked is in sight and says what it is."""

import re

import numpy as np
import pytest

from mnist_jax.analysis import thresholds
from mnist_jax.report import plots, threshold_plots


def drawn(spread):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4 // 3
    scores = spread * labels + rng.normal(size=400)
    points = {
        name: thresholds.operating_point(scores, labels, spread / 2 + shift)
        for name, shift in (("low", -0.5), ("middle", 0.0), ("high", 0.5))
    }
    curve = thresholds.precision_recall(scores, labels)
    return points, (
        threshold_plots.precision_recall(curve, 0.25, points),
        threshold_plots.roc(thresholds.roc(scores, labels), points),
    )


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0, 9.0])
def test_every_marked_point_is_inside_the_window(spread):
    _, figures = drawn(spread)
    for figure in figures:
        (axes,) = figure.axes
        assert len(axes.collections) == 3
        for dot in axes.collections:
            x, y = dot.get_offsets()[0]
            assert axes.get_xlim()[0] <= x <= axes.get_xlim()[1]
            assert axes.get_ylim()[0] <= y <= axes.get_ylim()[1]
        assert np.ptp(axes.get_xlim()) == pytest.approx(np.ptp(axes.get_ylim()))


def test_the_easier_the_task_the_closer_one_looks():
    widths = [[np.ptp(f.axes[0].get_xlim()) for f in drawn(spread)[1]] for spread in (0, 3, 9)]
    assert widths[0] > widths[1] > widths[2]


def test_points_tell_their_names_and_numbers():
    points, figures = drawn(3.0)
    for figure, label in zip(figures, ("Precision-recall", "ROC"), strict=True):
        titles = re.findall("<title>(.*?)</title>", plots.svg(figure, label))
        assert [title.partition(":")[0] for title in titles] == ["low", "middle", "high"]
        for title, point in zip(titles, points.values(), strict=True):
            assert f"{point.recall:.1%}" in title


def test_a_threshold_that_calls_nothing_a_yes_has_no_precision_to_mark():
    labels, scores = np.array([0, 1, 0, 1]), np.arange(4.0)
    points = {"never": thresholds.operating_point(scores, labels, 9.0)}
    curve = thresholds.precision_recall(scores, labels)
    for figure in (
        threshold_plots.precision_recall(curve, 0.5, points),
        threshold_plots.roc(thresholds.roc(scores, labels), points),
    ):
        assert "nan" not in plots.svg(figure, "Curves")
