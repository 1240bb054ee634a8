"""The report's kinds of error: which classes, which two above all, which shapes."""

import re

import numpy as np
import pytest
from pages import check_self_contained
from reports import make_run, render

from mnist_jax.analysis import error_analysis, slices
from mnist_jax.report import plots


def section(run):
    text = render(run)
    check_self_contained(text)
    return text.partition("Kinds of error</h2>")[2].partition("</section>")[0]


def test_shares_of_the_confusion_matrix_without_its_diagonal():
    run = make_run(["a", "b", "c"], 200)
    matrix = np.array(run["summary"]["confusion_matrix"])
    told = re.findall("<title>([\\d.]+)% of (.) taken for (.)</title>", section(run))
    names = "abc"
    expected = [
        (f"{100 * matrix[i, j] / matrix[i].sum():.2f}", names[i], names[j])
        for i in range(3)
        for j in range(3)
        if i != j and matrix[i, j]
    ]
    assert told == expected
    assert told


def test_the_two_most_confused_have_their_galleries():
    run = make_run(seed=4)
    matrix, names = np.array(run["summary"]["confusion_matrix"]), run["summary"]["class_names"]
    pair = error_analysis.most_confused(matrix)
    found = section(run)
    first, second = (names[k] for k in pair)
    assert f"<h3>{first} and {second}</h3>" in found
    shown = 0
    for a in pair:
        for b in pair:
            assert f">{plots.short(names[a])} as {plots.short(names[b])}: {matrix[a, b]}<" in found
            shown += min(matrix[a, b], 25)
    assert found.count("<image ") == shown


def test_errors_by_shape_are_of_the_test_images():
    run = make_run()
    correct = run["logits"].argmax(1) == run["labels"]
    groups = slices.by_shape(correct, run["images"])
    told = re.findall(r"<title>([^<]*): ([\d,]+) errors in (\d+), accuracy", section(run))
    expected = [
        (part.name, str(part.total - part.correct), str(part.total))
        for group in groups.values()
        for part in group
    ]
    assert told == expected


def test_of_many_classes_there_are_no_shares():
    found = section(make_run([f"class {i}" for i in range(16)], 300))
    assert "By class" not in found
    assert "By shape" in found
    assert "<h3>class " in found


def test_black_images_have_no_shape():
    run = make_run(["no", "yes"], 400)
    run["images"] = np.zeros_like(run["images"])
    found = section(run)
    assert "By shape" not in found
    assert "<h3>no and yes</h3>" in found


@pytest.mark.parametrize("case", ["nothing wrong", "diverged", "no test images"])
def test_no_kinds_where_there_are_no_errors_to_speak_of(case):
    run = make_run()
    if case == "nothing wrong":
        run = make_run(logits=20 * np.eye(10)[run["labels"]])
    if case == "diverged":
        run["logits"] = np.full_like(run["logits"], np.nan)
    if case == "no test images":
        run = make_run(examples=0)
    text = render(run)
    check_self_contained(text)
    assert "Kinds of error" not in text
