"""The pictures of errors say what the numbers say, and fit into a page."""

import re

import numpy as np
import pytest
from pages import Page

from mnist_jax.analysis import error_analysis, slices
from mnist_jax.report import error_plots, plots


def titles(drawing):
    return re.findall("<title>(.*?)</title>", drawing)


def test_the_heat_map_tells_shares_of_errors_alone():
    matrix = np.array([[50, 40, 10], [0, 99999, 1], [0, 0, 0]])
    figure = error_plots.confusion_shares(
        error_analysis.confusion_shares(matrix), ["a", "$b$", "c"]
    )
    drawing = plots.svg(figure, "Shares")
    Page(drawing)
    assert titles(drawing) == [
        "40.00% of a taken for $b$", "10.00% of a taken for c", "0.00% of $b$ taken for c",
    ]  # fmt: skip
    assert re.findall(">([^<]*)</text>", drawing)[-3:] == ["40.0", "10.0", "&lt;0.1"]


@pytest.mark.parametrize("classes", [2, 62])
def test_a_heat_map_without_errors(classes):
    names = [f"class {i}" for i in range(classes)]
    drawing = plots.svg(error_plots.confusion_shares(np.zeros((classes, classes)), names), "None")
    assert titles(drawing) == []


def test_galleries_show_each_pair_in_its_corner():
    labels = np.repeat(np.array([3, 5], np.int32), [40, 12])
    predicted = np.concatenate([np.repeat([3, 5], [38, 2]), np.repeat([5, 3], [12, 0])])
    images = np.zeros((52, 28, 28, 1), np.uint8)
    decisions = error_analysis.decide(np.eye(10, dtype=np.float32)[predicted])
    names = [str(i) for i in range(10)]
    figure = error_plots.galleries(images, decisions, labels, (3, 5), names)
    corners = [(axes.get_title("left"), len(axes.images)) for axes in figure.axes]
    assert corners == [("3 as 3: 38", 25), ("3 as 5: 2", 2), ("5 as 3: 0", 0), ("5 as 5: 12", 12)]
    drawing = plots.svg(figure, "Galleries")
    assert all(image["href"].startswith("data:image/png") for image in Page(drawing).all("image"))


def test_bars_are_errors_from_zero_with_their_intervals():
    part = slices.by_value(np.arange(100) >= 20, np.arange(100.0), 2, "px")
    figure = error_plots.slice_bars({"size": part, "class": part})
    top, _ = figure.axes
    assert [bar.get_width() for bar in top.patches] == [0.4, 0.0]
    (first, _) = [lines.get_segments()[0][:, 0] for lines in top.collections]
    np.testing.assert_allclose(first, [1 - part[0].high, 1 - part[0].low])
    assert top.get_xlim()[0] == 0
    assert "0 to 49 px: 20 errors in 50, accuracy 60.00%" in titles(plots.svg(figure, "Slices"))


def test_suspects_are_shown_under_both_their_classes():
    labels = np.arange(20, dtype=np.int32) % 2
    for count, panels in ((1, 5), (20, 15)):
        found = error_analysis.Suspects(np.arange(count), 1 - labels[:count], np.zeros(count))
        images = np.zeros((20, 28, 28, 1), np.uint8)
        figure = error_plots.suspects(images, found, labels, ["$a$", "a dress with stripes"])
        assert len(figure.axes) == panels
        shown = [axes for axes in figure.axes if axes.images]
        assert len(shown) == min(count, 15)
        assert shown[0].get_title() == "$a$ → a dress w…"
        Page(plots.svg(figure, "Suspects"))
