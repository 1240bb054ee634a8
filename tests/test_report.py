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
from scipy.stats import binomtest

from mnist_jax import plots, report

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
    return {
        "summary": summary, "history": history, "config": config, "labels": labels,
        "images": rng.integers(0, 256, (examples, 28, 28, 1)).astype(np.uint8), "logits": logits,
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
    assert [plot["role"] for plot in page.all("svg")] == ["img"] * 3
    assert len({plot["aria-label"] for plot in page.all("svg")}) == 3
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
    assert len(page.all("b")) == len(page.all("figure")) > 0  # only the template's own
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
    figures = re.findall(r"<figure>.*?</figure>", render(run))
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
    assert "<figure>" not in text


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
    assert report.NOTHING in words
    assert "95% interval" not in words


def test_reliability_is_left_out_without_its_bins():
    run = make_run()
    del run["summary"]["reliability"]
    assert "Calibration</h2>" not in render(run)


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


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (report.percent(0.98765), "98.77%"),
        (report.percent(0.99999), ">99.99%"),
        (report.percent(1.0), "100.00%"),
        (report.percent(1 - 1e-9, 1), ">99.9%"),
        (report.count(421642), "421,642"),
        (report.loss(0.0312345), "0.03123"),
        (report.duration(0.4211), "0.42 s"),
        (report.duration(59.96), "1 min 0 s"),
        (report.duration(93.2), "1 min 33 s"),
        (report.duration(3599.9), "1 h 0 min"),
        (report.duration(7510), "2 h 5 min"),
        (report.memory(812_345_678), "812 MB"),
        (report.memory(2.5e9), "2.50 GB"),
        (report.percent(float("nan")) + report.duration(None) + report.memory(None), "–––"),
    ],
)
def test_numbers_are_for_people(shown, expected):
    assert shown == expected


def test_drawing_leaves_no_global_state():
    with mpl.rc_context({"svg.hashsalt": "mine", "font.size": 7}):
        before = dict(mpl.rcParams)
        render(make_run())
        assert dict(mpl.rcParams) == before
