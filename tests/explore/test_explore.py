"""The page of a data set: sound, self-contained, true; and the command that writes it."""

import os
import re
from pathlib import Path

import forks
import numpy as np
import pytest
from pages import Page, check_self_contained

from mnist_jax import main
from mnist_jax.data import datasets
from mnist_jax.explore import __main__ as explore
from mnist_jax.explore import explore_page

ROOT = Path(__file__).parents[2]


def made(classes=3, train=61, test=20, seed=0, names=None, **changed) -> datasets.Dataset:
    """A data set of noise, brighter from class to class."""
    rng = np.random.default_rng(seed)
    labels = [np.arange(n, dtype=np.int32) % classes for n in (train, test)]
    images = [
        (rng.random((len(own), 28, 28, 1)) * (40 + own[:, None, None, None] % 200)).astype(np.uint8)
        for own in labels
    ]
    names = tuple(names or (f"class {i}" for i in range(classes)))
    dataset = datasets.Dataset("made", images[0], labels[0], images[1], labels[1], names, "abc123")
    return dataset._replace(**changed)


def render(dataset: datasets.Dataset) -> str:
    return explore_page.render(
        dataset, command="the command", versions={"numpy": "2"}, revision=None
    )


def section(text: str, heading: str) -> str:
    return text.partition(f">{heading}</h2>")[2].partition("</section>")[0]


@pytest.fixture(scope="module")
def text() -> str:
    return render(made())


def test_page_is_sound_and_accessible(text):
    check_self_contained(text)
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert [plot["role"] for plot in page.all("svg")] == ["img"] * 4
    assert len({plot["aria-label"] for plot in page.all("svg")}) == 4
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("h1")) == 1
    for words in ("61 to train, 20 to test", "abc123", "the command"):
        assert words in page.text
    assert "None: no image occurs twice" in section(text, "Duplicates")


def test_same_input_same_bytes(text):
    assert render(made()) == text


def test_largest_case_stays_below_three_megabytes():
    text = render(made(62, 620, 124))
    check_self_contained(text)
    assert len(text.encode()) < 3e6


def test_figures_are_those_of_the_data(text):
    dataset = made()
    tips = re.findall("<title>(.*?)</title>", text)
    assert "class 0: 21 to train" in tips
    assert "class 2: 6 to test" in tips
    own = dataset.train_images[dataset.train_labels == 1].mean(axis=(1, 2, 3)) / 255
    assert f"class 1: median {np.median(own):.3g}" in "".join(tips)
    assert f"{dataset.train_images.mean() / 255:.4f}" in text
    examples = re.findall(r'alt="Training image (\d+): class 2"', section(text, "Examples"))
    assert len(examples) == 10
    assert (dataset.train_labels[[int(i) for i in examples]] == 2).all()


def test_duplicates_are_found_and_contradictions_come_first():
    dataset = made()
    train, test = dataset.train_images.copy(), dataset.test_images.copy()
    train[30] = train[3]  # both of class 0
    train[40] = test[2]  # of class 1 and of class 2
    test[5] = test[8]
    found = section(render(dataset._replace(train_images=train, test_images=test)), "Duplicates")
    words = " ".join(Page(found.strip().join(["<div>", "</div>"])).text.split())
    assert "1 within the training split, 1 within the test split, 1 in both; 1 with labels" in words
    conflict, *others = re.findall("<figcaption>(.*?)</figcaption>", found)
    assert re.findall("<(?:b|small)>(.*?)<", conflict) == [
        "conflict", "train 40: class 1", "test 2: class 2",
    ]  # fmt: skip
    assert {tuple(re.findall("<small>(.*?)<", other)) for other in others} == {
        ("train 3: class 0", "train 30: class 0"),
        ("test 5: class 2", "test 8: class 2"),
    }


def test_many_copies_are_counted_not_listed():
    images = np.zeros((61, 28, 28, 1), np.uint8)
    labels = np.zeros(61, np.int32)
    labels[-1] = 2
    found = section(render(made(train_images=images, train_labels=labels)), "Duplicates")
    places = re.findall("<small>(.*?)<", found)
    assert places[:2] == ["train 0: class 0", "train 60: class 2"]  # whose labels differ
    assert len(re.findall("<figcaption>", found)) == 1
    assert "and 57 more" in found


def test_a_class_without_examples_and_a_class_of_one():
    labels = np.zeros(61, np.int32)
    labels[7] = 2
    text = render(made(train_labels=labels))
    check_self_contained(text)
    assert "nan" not in Page(text).text
    assert len(re.findall("<figure>", section(text, "Means"))) == 2
    assert "Training image 7: class 2" in section(text, "Examples")
    assert "class 2" not in section(text, "Most unusual")


def test_text_from_outside_is_escaped():
    evil = "<script>alert(1)</script>$x^2$"
    text = render(made(names=[evil, "お", "<b>"], name="<i>made</i>"))
    check_self_contained(text)
    assert not Page(text).all("script")


def run(*args, cwd):
    return forks.run(["-m", "mnist_jax.explore", *args], cwd, os.environ)


def test_the_command_writes_one_page(tmp_path):
    done = run("--dataset=digits", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    expected = "digits: 1,437 images to train, 360 to test  page: runs/explore-digits.html\n"
    assert done.stdout == expected
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [tmp_path / "runs/explore-digits.html"]
    text = files[0].read_text()
    check_self_contained(text)
    assert "python -m mnist_jax.explore --dataset=digits" in Page(text).text


def test_the_form_of_a_csv_is_an_option(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 17, (20, 784))
    np.savetxt("t.csv", np.column_stack([pixels, np.arange(20) % 2]), "%d", ",")
    options = ["--label_column=last", "--pixel_max=16", "--transposed", "--out=t.html"]
    assert explore.main(["--dataset=csv:t.csv", *options]) == 0
    said = "csv:t.csv: 16 images to train, 4 to test  page: t.html\n"
    assert capsys.readouterr() == (said, "")
    form = datasets.Format("last", 16, True)
    assert datasets.load("csv:t.csv", form).fingerprint in Path("t.html").read_text()


def test_data_that_cannot_be_had_is_told_as_main_tells_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    folder = tmp_path / "not there"
    config = f"--config={ROOT}/configs/linear.py:mnist"
    assert explore.main(["--dataset=mnist", f"--archives={folder}"]) == 2
    ours = capsys.readouterr()
    assert main.main([config, f"--config.data.archives={folder}"]) == 2
    assert capsys.readouterr() == ours
    assert (ours.out, ours.err) == (
        "",
        f"error: {folder}/mnist: there is no such folder of archives\n",
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--dataset=mnits"], "unknown data set 'mnits': did you mean 'mnist'?"),
        (["--dataset=csv:one.csv"], "one.csv: all labels are 1: give two classes or more"),
        (["--dataset=digits", "--out=one.csv/x.html"], "one.csv/x.html: cannot be written"),
    ],
)
def test_mistakes_take_one_line(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("one.csv").write_text(2 * ("1," + ",".join(["0"] * 784) + "\n"))
    assert explore.main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+\n", err)
    assert message in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["one.csv"]


def test_images_have_their_numbers_on_phones(text):
    for heading in ("Examples", "Most unusual"):
        part = section(text, heading)
        numbers = re.findall(r'title="train (\d+)"', part)
        assert numbers == re.findall(r'<small class="index">(\d+)</small>', part) != []
