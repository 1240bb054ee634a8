"""The page of a plain run on classes: valid, self-contained, and true to the run's numbers."""

import base64
import io
import re

import matplotlib as mpl
import numpy as np
import pytest
from pages import Page, check_self_contained
from PIL import Image
from reports import FASHION, drawing, make_run, render
from scipy.special import softmax
from sklearn.metrics import (
    average_precision_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from mnist_jax.analysis import error_analysis, slices, thresholds
from mnist_jax.report import formats, pictures, plots, run_page, templates


@pytest.fixture(scope="module")
def usual():
    """A run for all tests that do not change it."""
    return make_run()


@pytest.fixture(scope="module")
def text(usual):
    """Its page."""
    return render(usual)


def test_page_is_sound_and_accessible(text):
    check_self_contained(text)
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("title")
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert page.all("img")
    assert all(image.get("alt") for image in page.all("img"))
    assert [plot["role"] for plot in page.all("svg")] == ["img"] * 7
    assert len({plot["aria-label"] for plot in page.all("svg")}) == 7
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    assert len(page.all("h1")) == 1


def test_largest_case_stays_below_three_megabytes():
    names = [f"letter number {i}" for i in range(62)]
    logits = np.random.default_rng(1).normal(size=(10_000, 62))  # errors in nearly every cell
    text = render(make_run(names, 10_000, logits=logits, epochs=200))
    check_self_contained(text)
    assert len(text.encode()) < 3e6


def test_same_input_same_bytes(text):
    assert render(make_run()) == text


def test_text_from_outside_is_escaped():
    evil = "<b>'\"&amp;</b>$x_$ {{ 7 * 7 }}"
    run = make_run([evil + "\x00", "<script>alert(1)</script>", "お"])
    run["command"] = "python '<b>'"
    run["config"]["<b>field"] = "</code><b>"
    fields = dict.fromkeys(("dataset", "model", "device", "backend", "data_fingerprint"), evil)
    text = render(
        run, **fields, requested_dataset="<i>", git_revision="<b>", versions={"<b>": "</p>"}
    )
    check_self_contained(text)
    page = Page(text)
    assert not page.all("script")
    wrong = run["summary"]["test_errors"]
    assert len(page.all("b")) == wrong + min(wrong, 8) > 0  # only the template's own
    assert len(page.all("i")) == 3  # one bar a class
    assert page.text.count(evil) > 10
    for words in ("<script>alert(1)</script>", "</code><b>", "did not use <i>.", "python '<b>'"):
        assert words in page.text
    assert f"true {evil} , predicted お: " in page.text


def test_banner_only_if_the_data_is_not_what_was_asked_for(usual, text):
    assert 'role="alert"' not in text
    with drawing(()):
        other = render(usual, dataset="digits")
    banner = other.partition('role="alert"')[2].partition("</p>")[0]
    assert "did not use fashion_mnist" in banner
    assert "digits took its place" in banner


def test_most_confident_mistakes_are_the_most_confident(usual, text):
    logits, labels = usual["logits"].astype(np.float64), usual["labels"]
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = [i for i in range(len(labels)) if logits[i].argmax() != labels[i]]
    wrong.sort(key=lambda i: -probability[i].max())
    assert len(wrong) > run_page.MISTAKES
    section = text.partition("Most confident</h3>")[2].partition("<h3>")[0]
    figures = re.findall(r"<figure>.*?</figure>", section)
    assert len(figures) == run_page.MISTAKES
    for index, figure in zip(wrong, figures, strict=False):
        names = FASHION[labels[index]], FASHION[logits[index].argmax()]
        assert f"{names[0]} → <b>{names[1]}</b>" in figure
        assert f"Test image {index}: {names[0]}, taken for {names[1]}" in figure
        assert f"{probability[index].max():.1%}" in figure
        png = base64.b64decode(re.findall(r'base64,([^"]*)"', figure)[0])
        np.testing.assert_array_equal(Image.open(io.BytesIO(png)), usual["images"][index, ..., 0])


def test_no_mistakes():
    run = make_run(logits=20 * np.eye(10)[make_run()["labels"]])
    text = render(run)
    assert "every test image was recognised" in text
    assert "0 errors in 400 images" in Page(text).text
    assert "Most confident" not in text
    assert "What they rest on" not in text


@pytest.mark.parametrize("classes", [2, 3, 16, 62])
def test_every_class_has_its_row_and_its_errors(classes):
    run = make_run([f"class <{i}>" for i in range(classes)], 300)
    text = render(run)
    table = text.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(
        r'<th scope="row">(.*?)</th><td>7</td><td class="bar"><i.*?</i>(\d+)</td>', table
    )
    matrix = np.array(run["summary"]["confusion_matrix"])
    errors = [int(matrix[i].sum() - matrix[i, i]) for i in range(classes)]
    assert rows == [(f"class &lt;{i}&gt;", str(errors[i])) for i in range(classes)]
    assert "Macro mean" in text
    assert "Weighted mean" in text


def test_confusion_cells_tell_their_counts():
    matrix = np.array([[90, 0, 1], [12, 80, 0], [0, 0, 0]])
    drawing = plots.svg(plots.confusion(matrix, ["3", "5", "7"]), "Confusion")
    assert re.findall("<title>(.*?)</title>", drawing) == [
        "true 3, predicted 3: 90 images",
        "true 3, predicted 7: 1 image",
        "true 5, predicted 3: 12 images",
        "true 5, predicted 5: 80 images",
    ]
    assert run_page.confusions(matrix) == [(1, 0, 12), (0, 2, 1)]


def test_class_names_are_never_formulas():
    drawing = plots.svg(plots.confusion(np.eye(2, dtype=int), ["$x^2$", "$"]), "Confusion")
    assert drawing.count(">$x^2$</text>") == 2


def test_every_class_is_ranked_against_the_rest(usual, text):
    labels, odds = usual["labels"], thresholds.log_odds(usual["logits"])
    truth = np.eye(10)[labels]
    expected = {
        "auc": roc_auc_score(truth, odds, average=None),
        "average precision": average_precision_score(truth, odds, average=None),
    }
    table = text.partition("Images</th>")[2].partition("</table>")[0]
    cells = np.array(re.findall(r'<td class="extra">(.*?)%</td>', table), float).reshape(-1, 2)
    for column, found in zip(expected.values(), cells.T, strict=True):
        np.testing.assert_allclose(found[:10], 100 * column, atol=0.006)
        weighted = np.average(column, weights=np.bincount(labels))
        np.testing.assert_allclose(found[10:], [100 * column.mean(), 100 * weighted], atol=0.006)


def test_a_constant_answer_is_what_to_beat():
    run = make_run(["cat", "dog", "owl"], 200)
    support = np.bincount(run["labels"])
    most, share = ("cat", "dog", "owl")[support.argmax()], support.max() / 200
    with drawing(()):
        words = Page(render(run)).text
    assert f"Always answering “{most}” would score {share:.2%}" in words


def test_closest_calls_are_the_closest_and_name_the_truth(usual, text):
    probability = softmax(usual["logits"].astype(np.float64), axis=1)
    first_two = np.sort(probability, axis=1)[:, -2:]
    order = np.argsort(first_two[:, 1] - first_two[:, 0])
    section = text.partition("Closest calls</h2>")[2].partition("</section>")[0]
    figures = re.findall(r"<figure>.*?</figure>", section)
    assert len(figures) == run_page.AMBIGUOUS
    unguessed = 0
    for index, figure in zip(order.tolist(), figures, strict=False):
        guesses = np.argsort(-probability[index])[:2].tolist()
        truth = int(usual["labels"][index])
        lines = [(FASHION[k], f"{probability[index, k]:.1%}", k == truth) for k in guesses]
        found = re.findall(r"<p( class=\"truth\")?><span>(.*?)</span> <span>(.*?)</span>", figure)
        assert [(name, share, bool(true)) for true, name, share in found] == lines
        assert (f'<p class="truth">{FASHION[truth]}</p>' in figure) == (truth not in guesses)
        unguessed += truth not in guesses
    assert unguessed


def test_mistakes_are_explained_in_their_order(usual, text):
    section = text.partition("What they rest on</h3>")[2].partition("</section>")[0]
    worst = error_analysis.worst_mistakes(
        error_analysis.decide(usual["logits"]), usual["labels"], 8
    ).tolist()
    assert re.findall(r'title="test image (\d+)"', section) == [str(index) for index in worst]
    for index, relevance, uri in zip(
        worst, usual["explanation"].relevance, re.findall(r'src="(.*?)"', section), strict=True
    ):
        assert uri == pictures.png(pictures.overlay(usual["images"][index], relevance))


def test_the_first_layer_is_shown_by_name(usual, text):
    section = text.partition("The first layer</h3>")[2].partition("</section>")[0]
    weights = usual["explanation"].weights
    assert re.findall("<figcaption>(.*?)</figcaption>", section) == [*weights]
    without = {**usual, "explanation": usual["explanation"]._replace(weights={})}
    with drawing(()):
        assert "The first layer" not in render(without)


def test_the_interval_says_what_it_is_of(usual):
    with drawing(()):
        text = Page(render(usual, test_interval={"low": 0.871, "high": 0.93})).text
    assert "95% interval for new images, of this training: 87.10% to 93.00%" in text


def test_the_title_names_the_task(usual, text):
    assert "<title>cnn on fashion_mnist, multiclass: " in text
    with drawing(()):
        other = render({**usual, "config": usual["config"] | {"task": {"name": "one_vs_rest"}}})
    assert "<title>cnn on fashion_mnist, one vs rest: " in other
    assert "cnn on fashion_mnist · one vs rest · seed 0" in Page(other).text


def test_name_date_and_directory_are_shown_where_a_run_has_them(usual):
    with drawing(()):
        text = render(usual, name="wide", date="2026-11-30 21:00", directory="/runs/a")
        dated = render(usual, date="2026-11-30")
    assert "<title>wide: cnn on fashion_mnist" in text
    assert "seed 0 wide · 2026-11-30 21:00 · /runs/a" in Page(text).text
    assert "seed 0 2026-11-30" in Page(dated).text
    check_self_contained(text)


def test_a_long_page_has_a_table_of_contents(text):
    listed = re.findall(r'<li><a href="#(.*?)">(.*?)</a></li>', text)
    headings = re.findall(r'<h2 id="(.*?)">(.*?)</h2>', text)
    assert listed == headings
    assert [title for _, title in listed][:3] == ["Test accuracy", "Reproduce", "Learning"]
    assert text.index("</h1>") < text.index('<nav class="contents"') < text.index("</header>")


def test_headings_stay_escaped_in_the_table_of_contents():
    body = "</header>" + 5 * "<h2><b>&lt;i&gt;</b> &amp; more</h2>"
    assert templates._contents(body).count(">&lt;i&gt; &amp; more</a>") == 5


def test_a_short_page_has_none(tmp_path):
    body = '{% extends "page.html.jinja" %}{% block content %}<h2>A</h2>{% endblock %}'
    (tmp_path / "short.jinja").write_text(body)
    page = templates.load("short.jinja", tmp_path)
    summary = {"dataset": "d", "requested_dataset": "d", "versions": {}, "git_revision": None}
    text = page.render(summary=summary, config_rows=[])
    assert '<h2 id="section-1">A</h2>' in text
    assert "<nav" not in text


def test_tables_scroll_by_keyboard_and_show_it(text):
    """Each in a region that takes the focus and has a name."""
    regions = re.findall(r'<div class="scroll"(.*?)>\s*<table', text)
    assert len(regions) == text.count("<table") > 1
    assert all('tabindex="0" role="region" aria-label="' in region for region in regions)


def test_images_have_their_numbers_on_phones(text):
    for heading in ("Most confident</h3>", "What they rest on</h3>", "Closest calls</h2>"):
        part = text.partition(heading)[2].partition("</div>")[0]
        numbers = re.findall(r'title="test image (\d+)"', part)
        assert numbers == re.findall(r'<small class="index">image (\d+)</small>', part) != []


@pytest.mark.parametrize("epochs", [0, 1, 120])
@pytest.mark.parametrize("val", [True, False])
def test_any_number_of_epochs_with_and_without_validation(epochs, val):
    with drawing(["Learning curves"]):
        text = render(make_run(epochs=epochs, val=val))
    check_self_contained(text)
    assert (">validation</text>" in text) == (val and epochs > 0)
    assert ("no validation images" in text) != val


def test_without_a_command_nothing_is_said_of_it(usual):
    """A run that was started in a notebook."""
    with drawing(()):
        text = render({**usual, "command": ""})
    check_self_contained(text)
    assert "Reproduce" not in text
    assert "What to try next" not in text


def test_where_nothing_chose_an_epoch_none_is_the_best(text):
    assert "best epoch (4)" in text
    with drawing(["Learning curves"]):
        assert "best epoch (4)" not in render(make_run(val=False))


def test_a_class_without_images_has_no_part_in_the_means_over_classes(text):
    run = make_run(["a", "b", "c"])
    run["labels"] = run["labels"] % 2
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (run["labels"], run["logits"].argmax(1)), 1)
    other = render(run, confusion_matrix=matrix.tolist())
    found = [
        thresholds.ranking(thresholds.log_odds(run["logits"])[:, k], run["labels"] == k).auc
        for k in (0, 1)
    ]
    for name, weights in (("Macro", None), ("Weighted", np.bincount(run["labels"]))):
        row = other.partition(f"{name} mean</th>")[2].partition("</tr>")[0]
        assert f"{100 * np.average(found, weights=weights):.2f}%" in row
    assert "Classes without test images count as 0" in other
    assert "Classes without test images" not in text


def test_the_curves_are_those_of_the_history():
    history = make_run(epochs=3)["history"]
    loss, accuracy, rate = plots.learning_curves(history, best_epoch=2).axes
    for axes, columns in (
        (loss, {"train": "train_loss", "validation": "val_loss"}),
        (accuracy, {"train": "train_accuracy", "validation": "val_accuracy"}),
        (rate, {"learning rate": "learning_rate"}),
    ):
        drawn = [line for line in axes.get_lines() if not line.get_label().startswith("best")]
        assert len(drawn) == len(columns)
        for line, (label, column) in zip(drawn, columns.items(), strict=True):
            assert len(columns) == 1 or line.get_label() == label
            assert [*line.get_xdata()] == [1, 2, 3]
            assert [*line.get_ydata()] == [row[column] for row in history]


def test_diverged_run():
    run = make_run(logits=np.full((400, 10), np.nan))
    run["history"] = [row | {"train_loss": np.nan, "val_loss": None} for row in run["history"]]
    missing = ("accuracy", "loss", "errors", "interval")
    nothing = dict.fromkeys(["ece", "best_epoch", *(f"test_{key}" for key in missing)])
    bins = [{"low": 0.0, "high": 1.0, "count": 400, "confidence": None, "accuracy": 0.1}]
    text = render(run, **nothing, reliability=bins, seconds_per_epoch=np.nan, macro=dict.fromkeys(
        ("precision", "recall", "f1"), np.nan))  # fmt: skip
    check_self_contained(text)
    words = Page(text).text
    assert "nan" not in words.lower()
    assert "None" not in words
    assert formats.NOTHING in words
    assert "95% interval" not in words


def test_scores_that_are_no_probabilities_are_not_shown_as_such():
    run = make_run(["no", "yes"])
    empty = [{"low": 0.0, "high": 1.0, "count": 0, "confidence": 0.0, "accuracy": 0.0}]
    with drawing(()):
        assert "with its probability" in render(run)
    text = render(run, reliability=empty, ece=None)
    assert "Calibration" not in text
    assert "with its probability" not in text
    galleries = text.partition("Mistakes</h2>")[2].partition("The net</h2>")[0]
    assert "%" not in galleries
    assert "at a lower score finds more" in text
    threshold = re.findall("90% precision on validation</th><td>(.*?)</td>", text)
    scores = np.diff(run["logits"].astype(np.float64))[:, 0]
    chosen = thresholds.at_precision(scores, run["labels"], 0.9)
    assert threshold == [formats.loss(chosen)]


def test_command_and_configuration_are_there(usual, text):
    page = Page(text)
    assert usual["command"] in page.text
    for field, value in (("train.augment.shift", "2.0"), ("optim.learning_rate", "0.01")):
        assert f"{field} {value}" in page.text


def test_drawing_leaves_no_global_state():
    with mpl.rc_context({"svg.hashsalt": "mine", "font.size": 7}):
        before = dict(mpl.rcParams)
        render(make_run())
        assert dict(mpl.rcParams) == before


def test_thresholds_are_chosen_on_validation_and_evaluated_on_the_test_split():
    run = make_run(["no", "yes"], 500, seed=1)
    rng = np.random.default_rng(5)
    val_labels = rng.integers(0, 2, 300).astype(np.int32)
    val_logits = (rng.normal(size=(300, 2)) + 2 * np.eye(2)[val_labels]).astype(np.float32)
    run["held_out"] = val_logits[None], val_labels
    section = render(run).partition("Thresholds</h2>")[2].partition("</section>")[0]
    scores, val_scores = (np.diff(logits)[:, 0] for logits in (run["logits"], val_logits))
    expected = [0.0]
    for choose in (thresholds.at_precision, thresholds.at_recall):
        expected.append(choose(val_scores.astype(np.float64), val_labels, 0.9))
    rows = re.findall(r'<tr.*?><th scope="row">(.*?)</th>(.*?)</tr>', section)
    assert len(rows) == 3
    for (_, cells), threshold in zip(rows, expected, strict=True):
        called = scores >= threshold
        assert [cell.removesuffix("%") for cell in re.findall(">([^<]+)</td>", cells)] == [
            f"{100 / (1 + np.exp(-threshold)):.2f}",
            f"{100 * precision_score(run['labels'], called):.2f}",
            f"{100 * recall_score(run['labels'], called):.2f}",
            f"{(called & (run['labels'] == 0)).sum()} of {(run['labels'] == 0).sum()}",
        ]
    assert f"{roc_auc_score(run['labels'], scores):.2%}" in section


def test_a_goal_out_of_reach_is_said_to_be():
    run = make_run(["no", "yes"], 100)
    run["held_out"] = np.array([[[0, 1], [0, 2]]], np.float32), np.array([1, 0], np.int32)
    text = Page(render(run)).text
    assert "90% precision on validation no threshold reaches it" in text
    assert "90% recall on validation" in text


@pytest.mark.parametrize("case", ["three classes", "one class in the test split", "diverged"])
def test_no_thresholds_where_there_is_nothing_to_choose(case):
    run = make_run(["a", "b", "c"] if case == "three classes" else ["a", "b"], 50)
    if case == "diverged":
        run["logits"] = np.full_like(run["logits"], np.nan)
    if case == "one class in the test split":
        run["labels"] = np.zeros_like(run["labels"])
    assert "Thresholds</h2>" not in render(run)


def kinds_of_error(text):
    check_self_contained(text)
    return text.partition("Kinds of error</h2>")[2].partition("</section>")[0]


def test_shares_of_the_confusion_matrix_without_its_diagonal():
    run = make_run(["a", "b", "c"], 200)
    matrix = np.array(run["summary"]["confusion_matrix"])
    found = kinds_of_error(render(run))
    shown = re.findall("<title>([\\d.]+)% of (.) taken for (.)</title>", found)
    names = "abc"
    expected = [
        (f"{100 * matrix[i, j] / matrix[i].sum():.2f}", names[i], names[j])
        for i in range(3)
        for j in range(3)
        if i != j and matrix[i, j]
    ]
    assert shown == expected
    assert shown


def test_the_two_most_confused_have_their_galleries(usual, text):
    matrix, names = (np.array(usual["summary"][key]) for key in ("confusion_matrix", "class_names"))
    pair = error_analysis.most_confused(matrix)
    found = kinds_of_error(text)
    first, second = (names[k] for k in pair)
    assert f"<h3>{first} and {second}</h3>" in found
    shown = 0
    for a in pair:
        for b in pair:
            assert f">{plots.short(names[a])} as {plots.short(names[b])}: {matrix[a, b]}<" in found
            shown += min(matrix[a, b], 25)
    assert found.count("<image ") == shown


def test_errors_by_shape_are_of_the_test_images(usual, text):
    correct = usual["logits"].argmax(1) == usual["labels"]
    groups = slices.by_shape(correct, usual["images"])
    shown = re.findall(r"<title>([^<]*): ([\d,]+) errors in (\d+), accuracy", kinds_of_error(text))
    expected = [
        (part.name, str(part.total - part.correct), str(part.total))
        for group in groups.values()
        for part in group
    ]
    assert shown == expected


def test_of_many_classes_there_are_no_shares():
    found = kinds_of_error(render(make_run([f"class {i}" for i in range(16)], 300)))
    assert "By class" not in found
    assert "By shape" in found
    assert "<h3>class " in found


def test_black_images_have_no_shape():
    run = make_run(["no", "yes"], 400)
    run["images"] = np.zeros_like(run["images"])
    found = kinds_of_error(render(run))
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


def test_next_commands_change_one_field_and_the_directory():
    run = make_run()
    steps = run_page.next_commands(run["summary"], run["history"], run["config"], run["command"])
    start = "python -m mnist_jax.main --config=configs/cnn.py --workdir=runs/a"
    assert [line for _, line in steps] == [
        f"{start}-epochs-8 --config.train.epochs=8",
        f"{start}-weight_decay-0.3 --config.optim.weight_decay=0.3",
        f"{start}-seed-1 --config.seed=1",
    ]
    assert run_page.next_commands(run["summary"], run["history"], {}, run["command"]) == []


@pytest.mark.parametrize(
    ("shift", "decay", "name", "expected"),
    [
        (0.0, 0.0, "adam", "train.augment.shift=0.1"),
        (0.1, 0.0, "adam", "optim.weight_decay=0.0001"),
        (0.1, 0.0, "adamw", "optim.weight_decay=0.01"),
        (0.1, 0.1, "adam", "optim.weight_decay=0.3"),
    ],
)
def test_overfitting_is_met_by_augmentation_then_by_weight_decay(shift, decay, name, expected):
    run = make_run()
    config = {
        "train": {"augment": {"shift": shift}},
        "optim": {"weight_decay": decay, "name": name},
    }
    (step,) = run_page.next_commands(run["summary"], run["history"], config, run["command"])
    assert step[0].startswith("It does 5.0 points better")
    assert step[1].endswith(f" --config.{expected}")
    run["history"][-1]["train_accuracy"] = 0.855
    assert not run_page.next_commands(run["summary"], run["history"], config, run["command"])


def test_override_replaces_an_earlier_one_and_keeps_quotes():
    command = "python main.py --config.seed=3 --workdir 'my runs/' --config.data.name='csv:a b.csv'"
    expected = "python main.py --workdir 'my runs-seed-4' '--config.data.name=csv:a b.csv'"
    assert run_page.override(command, "seed", 4) == f"{expected} --config.seed=4"
