"""Experiments: what nearest neighbours reach, on digits; what is kept."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from experiments import tables
from experiments.knn import __main__ as knn
from experiments.knn import rows
from mnist_jax.data import datasets
from mnist_jax.types import UserError
from mnist_jax.workdir import files


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Nothing of the repository is written."""
    monkeypatch.setattr(knn, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results.md")
    tables.RESULTS.write_text("# Read me\n")
    return tmp_path


def test_all_of_it_on_digits(results, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["knn", "--quick"])
    monkeypatch.setattr(rows, "SIGMAS", (0.0, 0.75))
    assert knn.main() == 0
    first, _, second = capsys.readouterr().out.partition("\n\n")
    lines = first.splitlines()[2:]
    assert len(lines) == len(knn.ROWS) - 1
    assert all(line.startswith("| digits | ") for line in lines)
    assert "0 of these without a tie" in second
    assert list(results.iterdir()) == [tables.RESULTS]  # quick keeps nothing


def test_raw_is_scikit_learns_accuracy(digits):
    row = rows.raw(digits, k=3)
    pixels = [x.reshape(len(x), -1) for x in (digits.train_images, digits.test_images)]
    peer = KNeighborsClassifier(3).fit(pixels[0], digits.train_labels)
    expected = 100 * peer.score(pixels[1], digits.test_labels)
    assert row["test_accuracy_percent"] == pytest.approx(expected)
    assert row["num_test"] == 360


def test_what_is_chosen_does_not_depend_on_the_test_split(digits, monkeypatch):
    monkeypatch.setattr(rows, "SIGMAS", (0.0, 0.75))
    wrong = digits._replace(test_labels=(digits.test_labels + 1) % 10)
    found = [rows.preprocessed(data) for data in (digits, wrong)]
    keys = ("upright", "sigma", "k", "weights", "validation_accuracy_percent", "candidates")
    for key in keys:
        assert found[0][key] == found[1][key]
    assert len(found[0]["candidates"]) == 4
    best = max(c["validation_accuracy_percent"] for c in found[0]["candidates"])
    assert found[0]["validation_accuracy_percent"] == best
    assert found[1]["test_accuracy_percent"] < 5 < 95 < found[0]["test_accuracy_percent"]


def test_shifts_find_the_shifted(digits):
    some = slice(len(digits.test_labels))
    moved = digits._replace(
        test_images=np.roll(digits.train_images[some], 1, axis=2),
        test_labels=digits.train_labels[some],
    )
    assert rows.shifted(moved)["test_accuracy_percent"] == 100


def test_denoising_takes_off_most_of_the_noise(digits):
    row = rows.denoised(digits)
    assert row["noisy_error"] == pytest.approx(49.5, abs=0.2)  # the mean of 0 to 99
    assert row["noisy_psnr"] == pytest.approx(
        10 * np.log10(255**2 / np.mean(np.arange(100) ** 2)), abs=0.05
    )
    assert row["error"] < 10
    assert row["psnr"] > row["noisy_psnr"] + 8


def test_finished_rows_are_kept_and_published_ones_stay(results, monkeypatch, capsys):
    monkeypatch.setitem(knn.ROWS, "raw", ("digits", rows.raw))
    monkeypatch.setitem(knn.ROWS, "grid", ("digits", rows.grid))
    monkeypatch.setattr("sys.argv", ["knn", "--only", "raw"])
    assert knn.main() == 0
    raw = files.read_json(knn.RUNS / "raw.json")
    assert tables.read("knn") == {"raw": raw}
    monkeypatch.setitem(knn.ROWS, "raw", ("digits", None))  # could not be done again
    assert knn.main() == 0
    (knn.RUNS / "raw.json").unlink()
    monkeypatch.setattr("sys.argv", ["knn", "--only", "grid"])
    assert knn.main() == 0
    published = tables.read("knn")
    assert list(published) == ["raw", "grid"]
    assert published["raw"] == raw
    assert f"{published['grid']['test_accuracy_percent']:.2f}% of test" in capsys.readouterr().out


def test_data_that_cannot_be_had_is_a_mistake(results, monkeypatch, capsys):
    def refuse(name):
        raise UserError(f"{name}: not here")

    monkeypatch.setattr(knn.datasets, "load", refuse)
    monkeypatch.setattr("sys.argv", ["knn"])
    assert knn.main() == 2
    assert "error: mnist: not here\n" in capsys.readouterr().err
