"""The study: rows are run, kept, skipped and shown; one that fails does not lose the others."""

import gzip
import json
import os
import re
import signal

import forks
import numpy as np
import pytest
from pages import check_self_contained
from tiny_runs import ROOT

from experiments import tables
from experiments.study import __main__ as study
from experiments.study import report, rows
from experiments.study.row import Outcome, Row, Settings
from experiments.study.systems import linear, nets, out_of_fold, references
from mnist_jax.data import datasets
from mnist_jax.models import networks
from mnist_jax.report import pictures
from mnist_jax.runtime import progress
from mnist_jax.workdir import files


def broken(settings):
    raise RuntimeError("no such luck")


def row(name, reproduced, best=None, **told):
    told = {"study": "A", "data": "d", "system": "s", "metric": "%", "theirs": 90.0, **told}
    return Row(name=name, reproduced=reproduced, best=best, **told)


# Rows that differ from another one in what is given to the same functions, and take long.
ALIKE = (
    *(
        "mlp_400_200_100",
        "cnn_2x2_32",
        "cnn_6x6_3x3",
        "cnn_5x5_3x3",
        "cnn_5x5_3x3_small",
        "cnn_augmented",
    ),
    *("sgd", "sgd_standardised", "svm_ovo"),
)


def test_quick(tmp_path, capsys):
    """Rows of all kinds, in a process as users have it; the same command finds all of it there."""
    command = ["--quick", "--skip", *ALIKE, "--folder", str(tmp_path)]
    asked = [told for told in rows.ROWS if told.name not in ALIKE]
    argv = ["-W", "error", "-m", "experiments.study", *command]
    done = forks.run(argv, ROOT, os.environ)
    assert done.returncode == 0, done.stderr
    out = done.stdout
    for name in ("MNIST |", "Fashion-MNIST |", "Kaggle CSV", "theirs", "times faster", "74.53"):
        assert name not in out
    assert out.count("| digits |") == len(asked)
    assert "A quick check of the code on digits" in out
    for told in asked:
        assert told.system in out
    assert "precision" in out
    page = (tmp_path / "study.html").read_text()
    check_self_contained(page)
    assert page.count('<section id="forest') == 2
    assert "Theirs" not in page
    assert "Kaggle" not in page
    assert "tried out on digits" in page.partition("</title>")[0]
    kept = {
        path.stem.partition(".")[0]: path.stat().st_mtime_ns
        for path in (tmp_path / "rows").iterdir()
    }
    assert sorted(kept) == sorted(told.name for told in asked)
    assert study.main(command) == 0
    assert capsys.readouterr().out == out
    assert (tmp_path / "study.html").read_text() == page
    assert {
        p.stem.partition(".")[0]: p.stat().st_mtime_ns for p in (tmp_path / "rows").iterdir()
    } == kept


def test_a_row_that_fails_is_told_of_and_tried_again(tmp_path, capsys, monkeypatch):
    fine = row("fine", lambda settings: Outcome([1.0, 2.0], 3.0), their_seconds=30.0, note="ten")
    monkeypatch.setattr(rows, "ROWS", [row("bad", broken), fine])
    assert study.main(["--quick", "--folder", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "RuntimeError: no such luck" in told.err
    assert "failed: bad" in told.err
    assert "| 1.50 ± 0.71 (2) |" in told.out
    # Neither the study's figures nor what follows from them.
    for figure in ("90.00", "30", "ten", "| 10.0 |"):
        assert figure not in told.out.partition("Measured at")[0]
    monkeypatch.setattr(rows, "ROWS", [row("bad", lambda settings: Outcome([5.0], None)), fine])
    assert study.main(["--quick", "--folder", str(tmp_path)]) == 0
    assert "| 5.00 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stop", "code"), [(progress.Stopped(signal.SIGTERM, 1, 2), 143), (KeyboardInterrupt(), 130)]
)
def test_a_signal_ends_it_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch, stop, code):
    asked = []

    def stopped(settings):
        asked.append("stopped")
        if asked.count("stopped") == 1:
            raise stop
        return Outcome([5.0], None)

    def after(settings):
        asked.append("after")
        return Outcome([6.0], None)

    monkeypatch.setattr(rows, "ROWS", [row("long", stopped), row("after", after)])
    command = ["--quick", "--folder", str(tmp_path)]
    assert study.main(command) == code
    assert "long: stopped; the same command resumes" in capsys.readouterr().err
    assert asked == ["stopped"]
    assert study.main(command) == 0
    assert asked == ["stopped", "stopped", "after"]


def test_more_seeds_are_run_and_fewer_are_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tables, "publish", lambda *args: None)
    asked = []

    def system(settings):
        asked.append(settings.seeds)
        return Outcome([1.0] * settings.seeds, None)

    monkeypatch.setattr(rows, "ROWS", [row("net", system), row("other", system)])

    def measure(*options):
        asked.clear()
        assert study.main([*options, "--folder", str(tmp_path)]) == 0
        return list(asked)

    assert measure("--seeds=2") == [2, 2]
    assert "0/2 " in capsys.readouterr().err  # estimated minutes of both rows
    assert measure("--seeds=2") == []
    assert measure("--only", "net", "--seeds=4") == [4]
    assert "0/1 " in capsys.readouterr().err
    assert measure("--seeds=3") == [3]  # the other
    assert measure("--seeds=1") == []
    assert measure("--skip", "net", "--seeds=5") == [5]
    assert measure("--only", "net", "--seeds=4") == []


def test_published_rows_stay_until_they_are_measured_again(tmp_path, capsys, monkeypatch):
    """Also where their runs are not there, as in a clone; the page is of what is."""
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.md")
    (tmp_path / "results.md").write_text("none of the tables\n")
    judged = {"classes": ["no", "yes"], "confusion": [[3, 1], [0, 1]]}

    def measure(name, folder, value):
        all_rows = [
            row(name, lambda settings: Outcome([value], None, shown=judged), system=f"the {name}")
            for name in ("one", "two")
        ]
        monkeypatch.setattr(rows, "ROWS", all_rows)
        assert study.main(["--only", name, "--folder", str(tmp_path / folder)]) == 0
        told = [row["reproduced"]["values"] for row in tables.read("study")["rows"]]
        assert f"| {told[-1][0]:.2f} |" in capsys.readouterr().out
        return told, (tmp_path / folder / "study.html").read_text()

    assert measure("two", "first", 1.0)[0] == [[1.0]]
    told, page = measure("one", "second", 2.0)
    assert told == [[2.0], [1.0]]
    assert "the one" in page
    assert "the two" not in page
    assert measure("two", "third", 3.0)[0] == [[2.0], [3.0]]


def test_results_of_earlier_data_are_not_finished(tmp_path):
    settings = Settings(tmp_path, 1, quick=False)
    first = row("one", lambda settings: Outcome([1.0], None))
    study.run(first, settings)
    assert study.finished(first, settings)
    second = first._replace(revision=2, reproduced=lambda settings: Outcome([2.0], None))
    assert not study.finished(second, settings)
    assert study.run(second, settings)["reproduced"]["values"] == [2.0]
    assert study.finished(second, settings)


def test_choices_that_have_seen_the_images_are_disclosed(tmp_path):
    settings = Settings(tmp_path, 1, quick=True)
    told = [
        row(name, lambda settings: Outcome([1.0], None), system=f"the {name}", seen=seen)
        for name, seen in (("one", "chosen on these folds"), ("two", ""))
    ]
    described = [study.describe(one, study.run(one, settings)) for one in told]
    text = report.to_markdown({"rows": described, **tables.origin("experiments.study")})
    assert "flattered" in text
    assert "score them: chosen on these folds (the one). " in text
    assert report.seen(described[1:]) == ""


def test_every_row_of_folds_discloses_its_choices():
    """Choices were made on the training images, and folds are of these."""
    of_folds = [told for told in rows.ROWS if "3 folds" in told.metric]
    assert len(of_folds) == 5
    assert all(told.seen for told in of_folds)
    assert not any(told.seen for told in rows.ROWS if "test" in told.metric)


def test_an_interval_of_percentages_ends_at_100(tmp_path):
    told = row("one", lambda settings: Outcome([97.0, 99.9], None), metric="accuracy, %")
    settings = Settings(tmp_path, 1, quick=True)
    found = study.describe(told, study.run(told, settings))["reproduced"]["described"]
    assert found["high"] == 100
    noise = told._replace(metric="PSNR, dB", name="two")
    found = study.describe(noise, study.run(noise, settings))["reproduced"]["described"]
    assert found["high"] > 100


def test_the_table(tmp_path):
    judged = {"classes": ["no", "yes"], "confusion": [[3, 1], [0, 1]]}
    told = row(
        "net",
        lambda settings: Outcome([90.0, 91.0, 92.0], 10.0, {"recall": 12.341}, judged),
        lambda settings: Outcome([93.0, 94.0, 95.5], 20.0),
        their_seconds=250.0,
        metric="accuracy, %",
    )
    settings = Settings(tmp_path, 3, quick=True)
    described = study.describe(told, study.run(told, settings))
    assert described["gain"]["difference"] == pytest.approx(3.1666667)
    record = {"rows": [json.loads(json.dumps(described))], **tables.origin("experiments.study")}
    page = tables.page(record, report.TABLES)
    ours = "91.00 ± 1.00 (3) | 94.17 ± 1.26 (3) | +3.17 (+2.45 to +3.88) | 10.0"
    assert f"| 80.00 | 90.00 | {ours} | 250 | 25.0 |" in page
    assert "recall 12.34" in page
    assert "Where both are known, 1 systems took 10 s, theirs 250 s" in page
    assert f"at revisions {tables.short(described['git_revision'])};" in page


@pytest.mark.parametrize(
    ("reproduced", "best", "low", "high"),
    [
        (Outcome([90.0], None), Outcome([91.0, 92.0, 93.0], None), -0.484, 4.484),
        (Outcome([91.0, 92.0, 93.0], None), Outcome([90.0], None), -4.484, 0.484),
        # Paired by example: one more of four is right, although one system has seeds.
        (Outcome([25.0], None, examples=[0.0, 0.0, 0.0, 100.0]),
         Outcome([40.0, 60.0], None, examples=[0.0, 0.0, 100.0, 100.0]), -54.56, 100.0),
        (Outcome([25.0], None, examples=[0.0, 0.0, 0.0, 100.0]),
         Outcome([50.0], None, examples=[0.0, 0.0, 100.0, 100.0]), -54.56, 100.0),
    ],
)  # fmt: skip
def test_the_gain_is_of_pairs(tmp_path, reproduced, best, low, high):
    told = row("one", lambda settings: reproduced, lambda settings: best)
    gain = study.run(told, Settings(tmp_path, 3, quick=True))["gain"]
    assert (gain["low"], gain["high"]) == pytest.approx((low, high), abs=0.01)


def test_what_makes_no_pairs_has_no_gain(tmp_path):
    settings = Settings(tmp_path, 3, quick=True)
    for name, *outcomes in [
        ("uneven", Outcome([1.0, 2.0], None), Outcome([1.0, 2.0, 3.0], None)),
        ("single", Outcome([1.0], None), Outcome([2.0], None, examples=[2.0])),
        ("alone", Outcome([1.0, 2.0], None), None),
    ]:
        systems = (found and (lambda settings, found=found: found) for found in outcomes)
        assert study.run(row(name, *systems), settings)["gain"] is None


def test_what_each_test_image_adds(tmp_path):
    """Of one net and of two, of trials, of a classifier of scikit-learn's."""
    settings = Settings(tmp_path, 1, quick=True)
    net = nets.keras("mlp_512", "mnist", **{"train.batch_size": 20})
    several = linear.on_test("trials", {})
    found = [net(settings), net(settings._replace(seeds=2)), several(settings)]
    found.append(references.svc("mnist", settings))
    for outcome, shares in zip(
        found, ({0, 100}, {0, 50, 100}, {0, 50, 100}, {0, 100}), strict=True
    ):
        assert set(outcome.examples) == shares
        assert np.mean(outcome.examples) == pytest.approx(np.mean(outcome.values))


def test_seconds_are_those_of_one_training(tmp_path):
    machine = linear.cross_validated("linear", {"train.batch_size": 20}, folds=2)
    outcome = machine(Settings(tmp_path, 1, quick=True))
    summary = files.read_json(tmp_path / "linear-2-folds" / files.SUMMARY)
    assert outcome.seconds == pytest.approx(summary["train_seconds"] / 3)  # and one on all


def test_the_page_shows_what_there_is(tmp_path, monkeypatch, capsys):
    layers = [
        row._asdict() for row in networks.build({"name": "cnn", "dtype": "float32"}, 2).layers()
    ]
    history = [
        {"epoch": epoch, "train_loss": 1 / epoch, "val_loss": None, "train_accuracy": 0.5,
         "val_accuracy": None, "learning_rate": 0.1}
        for epoch in (1, 2)
    ]  # fmt: skip
    shown = {"classes": ["no", "yes"], "confusion": [[3, 1], [0, 5]], "layers": layers}
    image = pictures.png(np.zeros((28, 28, 1), np.uint8))
    net = row(
        "net",
        lambda settings: Outcome([9.0], None, {"recall": 1.5}, shown | {"history": history}),
        lambda settings: Outcome([9.5], 2.0, shown={"images": [[image] * 3]}),
    )
    trials = [{**one, "trial": trial} for one in history for trial in (0, 1)]
    several = row("several", lambda settings: Outcome([1.0], None, shown={"history": trials}))
    monkeypatch.setattr(rows, "ROWS", [net, several])
    assert study.main(["--quick", "--folder", str(tmp_path)]) == 0
    page = (tmp_path / "study.html").read_text()
    check_self_contained(page)
    for told in ("3×3, pool 2", "true yes, predicted yes: 5 images", "recall", image):
        assert told in page
    for label in ("net reproduced net", "net reproduced learning", "several reproduced learning"):
        assert f'aria-label="{label}"' in page
    assert "study.html" in capsys.readouterr().out


def test_two_rows_may_show_the_same_figures(tmp_path, monkeypatch):
    labels = np.arange(300) % 3 == 0
    scores = 2.0 * labels + np.random.default_rng(0).normal(size=300)
    figures = out_of_fold.of_yes_or_no("the same", scores, labels, 1.0)
    both = [row(name, lambda _: Outcome([9.0], None, shown={"figures": figures})) for name in "ab"]
    monkeypatch.setattr(rows, "ROWS", both)
    assert study.main(["--quick", "--folder", str(tmp_path)]) == 0
    page = (tmp_path / "study.html").read_text()
    check_self_contained(page)
    ids = set(re.findall(r'\bid="([^"]*)"', page))
    referred = re.findall(r'(?:url\(#|href="#)([^")]*)', page)
    assert any(name.startswith("b-reproduced-") for name in referred)
    assert set(referred) <= ids


def test_what_out_of_fold_scores_are_worth():
    yes = np.array([True, True, True, False, False])
    facts = linear.binary_facts(yes, np.array([2.0, 1.0, -1.0, 0.5, -2.0]))
    assert facts["precision"] == pytest.approx(100 * 2 / 3)
    assert facts["recall"] == pytest.approx(100 * 2 / 3)
    assert facts["recall at 90% precision"] == pytest.approx(100 * 2 / 3)
    assert facts["F1"] == pytest.approx(100 * 2 / 3)
    assert facts["ROC AUC"] == pytest.approx(100 * 5 / 6)
    none = linear.binary_facts(yes, yes - 10.0)
    assert [none[name] for name in ("precision", "recall", "F1")] == [0, 0, 0]


def test_names_are_unique():
    names = [row.name for row in rows.ROWS]
    assert len(set(names)) == len(names)


def test_the_csv_is_like_theirs(tmp_path, monkeypatch):
    digits = datasets.load("digits")
    monkeypatch.setattr(nets, "_COUNT", 100)
    monkeypatch.setattr(nets.datasets, "load", lambda name: digits)
    path = nets.kaggle(tmp_path)
    with gzip.open(path, "rt") as file:
        lines = file.read().splitlines()
    assert len(lines) == 101
    assert lines[0].startswith("label,pixel0,")
    rows = np.array([line.split(",") for line in lines[1:]], int)
    assert rows.shape == (100, 785)
    assert np.bincount(rows[:, 0]).tolist() == [10] * 10
    assert nets.kaggle(tmp_path) == path
    monkeypatch.undo()
    # No choice has seen the fifth that is held out.
    found = datasets.load(f"csv:{path}")
    assert (len(found.train_labels), len(found.test_labels)) == (80, 20)
    for ours, labels, theirs, classes in (
        (found.train_images, found.train_labels, digits.train_images, digits.train_labels),
        (found.test_images, found.test_labels, digits.test_images, digits.test_labels),
    ):
        known = {(x.tobytes(), y) for x, y in zip(theirs, classes.tolist(), strict=True)}
        written = {(x.tobytes(), y) for x, y in zip(ours, labels.tolist(), strict=True)}
        assert written <= known
        assert len(written) == len(labels)  # none twice
    quick = {"data.val_size": 0.0, "train.epochs": 1, "train.batch_size": 20}
    machine = linear.on_test("linear", quick, nets.KAGGLE)
    outcome = machine(Settings(tmp_path, 2, quick=False))
    assert np.sum(outcome.shown["confusion"]) == 2 * 20  # of both trials
