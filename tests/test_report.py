"""The report: one sound, self-contained page, whatever the run was like, true to its numbers."""

import base64
import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from pages import Page, check_self_contained
from PIL import Image
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from mnist_jax import errors, formats, pictures, plots, report, thresholds
from mnist_jax.types import Layer

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
FASHION += ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def make_run(names=FASHION, examples=400, epochs=4, seed=0, logits=None, val=True) -> dict:
    """Arguments for `render`: a run whose summary is worked out from its logits."""
    rng = np.random.default_rng(seed)
    classes = len(names)
    labels = rng.integers(0, classes, examples).astype(np.int32)
    if logits is None:
        logits = rng.normal(size=(examples, classes)) + 3 * np.eye(classes)[labels]
    logits = np.asarray(logits, np.float32)
    predicted = logits.argmax(1)
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (labels, predicted), 1)
    scores = {"precision": 0.5, "recall": 0.25, "f1": 0.125}
    errors = int((predicted != labels).sum())
    history = [
        {
            "epoch": epoch, "step": 10 * epoch, "train_loss": 1 / epoch, "train_accuracy": 0.9,
            "val_loss": 1.1 / epoch if val else None, "val_accuracy": 0.85 if val else None,
            "learning_rate": 0.01 / epoch, "seconds": 1.5, "examples_per_second": 1000.0,
        }
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    summary = {
        "dataset": "fashion_mnist", "requested_dataset": "fashion_mnist", "model": "cnn", "seed": 0,
        "num_params": 421642, "num_train": 55000, "num_val": 5000 if val else 0,
        "num_test": examples, "best_epoch": epochs, "val_accuracy": 0.85 if val else None,
        "test_accuracy": 1 - errors / examples, "test_loss": 0.3, "test_errors": errors,
        "test_top2_accuracy": 0.99, "ece": 0.01, "confusion_matrix": matrix.tolist(),
        "per_class": [{"name": name, "support": 7, **scores} for name in names],
        "macro": scores, "weighted": scores, "train_seconds": 93.2, "compile_seconds": 2.1,
        "seconds_per_epoch": 6.2, "peak_rss_bytes": 812_345_678, "device": "cpu", "backend": "cpu",
        "versions": {"jax": "0.10.2"}, "git_revision": None, "data_fingerprint": "crc32:1",
        "class_names": list(names),
        "reliability": [{"low": 0.0, "high": 1.0, "count": 7, "confidence": 0.8, "accuracy": 0.9}],
    }  # fmt: skip
    config = {
        "seed": 0,
        "train": {"epochs": epochs, "augment": {"shift": 2.0}},
        "optim": {"learning_rate": 0.01, "weight_decay": 0.1},
    }
    inside = report.Inside(
        layers=[Layer("Dense_0", "Dense", (len(names),), 7850, 0)],
        weights={f"unit {i}": rng.normal(size=(5, 5)).astype(np.float32) for i in range(3)},
        relevance=rng.normal(size=(min(errors, 8), 28, 28)),
        validation=(logits, labels) if val and classes == 2 else None,
    )
    return {
        "summary": summary, "history": history, "config": config, "labels": labels,
        "images": rng.integers(0, 256, (examples, 28, 28, 1)).astype(np.uint8), "logits": logits,
        "inside": inside,
        "command": "python -m mnist_jax.main --config=configs/cnn.py --workdir=runs/a",
    }  # fmt: skip


def render(run: dict, **summary: Any) -> str:
    return report.render(**{**run, "summary": run["summary"] | summary})


def test_page_is_sound_and_accessible():
    text = render(make_run())
    check_self_contained(text)
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("title")
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert page.all("img")
    assert all(image.get("alt") for image in page.all("img"))
    assert [plot["role"] for plot in page.all("svg")] == ["img"] * 4
    assert len({plot["aria-label"] for plot in page.all("svg")}) == 4
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    assert len(page.all("h1")) == 1


def test_largest_case_stays_below_three_megabytes():
    names = [f"letter number {i}" for i in range(62)]
    logits = np.random.default_rng(1).normal(size=(10_000, 62))  # errors in nearly every cell
    text = render(make_run(names, 10_000, logits=logits, epochs=200))
    check_self_contained(text)
    assert len(text.encode()) < 3e6


def test_same_input_same_bytes():
    assert render(make_run()) == render(make_run())


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


def test_banner_only_if_the_data_is_not_what_was_asked_for():
    run = make_run()
    assert 'role="alert"' not in render(run)
    banner = render(run, dataset="digits").partition('role="alert"')[2].partition("</p>")[0]
    assert "did not use fashion_mnist" in banner
    assert "digits took its place" in banner


def test_most_confident_mistakes_are_the_most_confident():
    run = make_run(seed=3)
    logits, labels = run["logits"].astype(np.float64), run["labels"]
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = [i for i in range(len(labels)) if logits[i].argmax() != labels[i]]
    wrong.sort(key=lambda i: -probability[i].max())
    assert len(wrong) > report.MISTAKES
    section = render(run).partition("Most confident</h3>")[2].partition("<h3>")[0]
    figures = re.findall(r"<figure>.*?</figure>", section)
    assert len(figures) == report.MISTAKES
    for index, figure in zip(wrong, figures, strict=False):
        names = FASHION[labels[index]], FASHION[logits[index].argmax()]
        assert f"{names[0]} → <b>{names[1]}</b>" in figure
        assert f"Test image {index}: {names[0]}, taken for {names[1]}" in figure
        assert f"{probability[index].max():.1%}" in figure
        png = base64.b64decode(re.findall(r'base64,([^"]*)"', figure)[0])
        np.testing.assert_array_equal(Image.open(io.BytesIO(png)), run["images"][index, ..., 0])


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
    assert report.confusions(matrix) == [(1, 0, 12), (0, 2, 1)]


def test_class_names_are_never_formulas():
    drawing = plots.svg(plots.confusion(np.eye(2, dtype=int), ["$x^2$", "$"]), "Confusion")
    assert drawing.count(">$x^2$</text>") == 2


def test_every_class_is_ranked_against_the_rest():
    run = make_run(examples=300)
    labels, odds = run["labels"], thresholds.log_odds(run["logits"])
    truth = np.eye(10)[labels]
    expected = {
        "auc": roc_auc_score(truth, odds, average=None),
        "average precision": average_precision_score(truth, odds, average=None),
    }
    table = render(run).partition("Images</th>")[2].partition("</table>")[0]
    cells = np.array(re.findall(r'<td class="extra">(.*?)%</td>', table), float).reshape(-1, 2)
    for column, found in zip(expected.values(), cells.T, strict=True):
        np.testing.assert_allclose(found[:10], 100 * column, atol=0.006)
        weighted = np.average(column, weights=np.bincount(labels))
        np.testing.assert_allclose(found[10:], [100 * column.mean(), 100 * weighted], atol=0.006)


def test_a_constant_answer_is_what_to_beat():
    run = make_run(["cat", "dog", "owl"], 200)
    support = np.bincount(run["labels"])
    most, share = ("cat", "dog", "owl")[support.argmax()], support.max() / 200
    assert f"Always answering “{most}” would score {share:.2%}" in Page(render(run)).text


def test_closest_calls_are_the_closest_and_name_the_truth():
    run = make_run(seed=2)
    probability = softmax(run["logits"].astype(np.float64), axis=1)
    first_two = np.sort(probability, axis=1)[:, -2:]
    order = np.argsort(first_two[:, 1] - first_two[:, 0])
    section = render(run).partition("Closest calls</h2>")[2].partition("</section>")[0]
    figures = re.findall(r"<figure>.*?</figure>", section)
    assert len(figures) == report.AMBIGUOUS
    unguessed = 0
    for index, figure in zip(order.tolist(), figures, strict=False):
        guesses = np.argsort(-probability[index])[:2].tolist()
        truth = int(run["labels"][index])
        lines = [(FASHION[k], f"{probability[index, k]:.1%}", k == truth) for k in guesses]
        found = re.findall(r"<p( class=\"truth\")?><span>(.*?)</span> <span>(.*?)</span>", figure)
        assert [(name, share, bool(true)) for true, name, share in found] == lines
        assert (f'<p class="truth">{FASHION[truth]}</p>' in figure) == (truth not in guesses)
        unguessed += truth not in guesses
    assert unguessed


def test_mistakes_are_explained_in_their_order():
    run = make_run()
    section = render(run).partition("What they rest on</h3>")[2].partition("</section>")[0]
    worst = errors.worst_mistakes(errors.decide(run["logits"]), run["labels"], 8).tolist()
    assert re.findall(r'title="test image (\d+)"', section) == [str(index) for index in worst]
    for index, relevance, uri in zip(
        worst, run["inside"].relevance, re.findall(r'src="(.*?)"', section), strict=True
    ):
        assert uri == pictures.png(pictures.overlay(run["images"][index], relevance))


def test_the_first_layer_is_shown_by_name():
    run = make_run()
    section = render(run).partition("The first layer</h3>")[2].partition("</section>")[0]
    assert re.findall("<figcaption>(.*?)</figcaption>", section) == [*run["inside"].weights]
    run["inside"] = run["inside"]._replace(weights={})
    assert "First layer</h2>" not in render(run)


def test_thresholds_are_chosen_on_validation_and_judged_on_the_test_split():
    run = make_run(["no", "yes"], 500, seed=1)
    rng = np.random.default_rng(5)
    val_labels = rng.integers(0, 2, 300).astype(np.int32)
    val_logits = (rng.normal(size=(300, 2)) + 2 * np.eye(2)[val_labels]).astype(np.float32)
    run["inside"] = run["inside"]._replace(validation=(val_logits, val_labels))
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
    never = np.array([[0, 1], [0, 2]], np.float32), np.array([1, 0], np.int32)
    run["inside"] = run["inside"]._replace(validation=never)
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


def test_interval_is_wilsons():
    text = Page(render(make_run(), test_errors=40)).text
    bounds = binomtest(360, 400).proportion_ci(method="wilson")
    assert f"95% interval {bounds.low:.2%} to {bounds.high:.2%}" in text


@pytest.mark.parametrize("epochs", [0, 1, 120])
@pytest.mark.parametrize("val", [True, False])
def test_any_number_of_epochs_with_and_without_validation(epochs, val):
    text = render(make_run(epochs=epochs, val=val))
    check_self_contained(text)
    assert (">validation</text>" in text) == (val and epochs > 0)
    assert ("no validation images" in text) != val


def test_diverged_run():
    run = make_run(logits=np.full((400, 10), np.nan))
    run["history"] = [row | {"train_loss": np.nan, "val_loss": None} for row in run["history"]]
    nothing = dict.fromkeys(("test_accuracy", "test_loss", "ece", "test_errors", "best_epoch"))
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
    assert "how sure it was" in render(run)
    text = render(run, reliability=empty, ece=None)
    assert "Calibration" not in text
    assert "how sure it was" not in text
    galleries = text.partition("Mistakes</h2>")[2].partition("First layer</h2>")[0]
    assert "%" not in galleries
    assert "at a lower score finds more" in text
    threshold = re.findall("90% precision on validation</th><td>(.*?)</td>", text)
    scores = np.diff(run["logits"].astype(np.float64))[:, 0]
    chosen = thresholds.at_precision(scores, run["labels"], 0.9)
    assert threshold == [formats.loss(chosen)]


def test_next_commands_change_one_field_and_the_directory():
    run = make_run()
    steps = report.next_commands(run["summary"], run["history"], run["config"], run["command"])
    start = "python -m mnist_jax.main --config=configs/cnn.py --workdir=runs/a"
    assert [line for _, line in steps] == [
        f"{start}-epochs-8 --config.train.epochs=8",
        f"{start}-weight_decay-0.3 --config.optim.weight_decay=0.3",
        f"{start}-seed-1 --config.seed=1",
    ]
    assert report.next_commands(run["summary"], run["history"], {}, run["command"]) == []


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
    (step,) = report.next_commands(run["summary"], run["history"], config, run["command"])
    assert step[0].startswith("It does 5.0 points better")
    assert step[1].endswith(f" --config.{expected}")
    run["history"][-1]["train_accuracy"] = 0.855
    assert not report.next_commands(run["summary"], run["history"], config, run["command"])


def test_override_replaces_an_earlier_one_and_keeps_quotes():
    command = "python main.py --config.seed=3 --workdir 'my runs/' --config.data.name='csv:a b.csv'"
    expected = "python main.py --workdir 'my runs-seed-4' '--config.data.name=csv:a b.csv'"
    assert report.override(command, "seed", 4) == f"{expected} --config.seed=4"


def test_command_and_configuration_are_there():
    run = make_run()
    page = Page(render(run))
    assert run["command"] in page.text
    for field, value in (("train.augment.shift", "2.0"), ("optim.learning_rate", "0.01")):
        assert f"{field} {value}" in page.text


def test_drawing_leaves_no_global_state():
    with mpl.rc_context({"svg.hashsalt": "mine", "font.size": 7}):
        before = dict(mpl.rcParams)
        render(make_run())
        assert dict(mpl.rcParams) == before
