"""`python -m mnist_jax.predict`: what it prints and writes, and how good a net's eyes are."""

import contextlib
import csv
import io
import json
import os
import re
import subprocess
import sys

import draw_digits
import forks
import numpy as np
import prepared
import pytest
from pages import Page, check_self_contained
from PIL import Image
from shell import unread
from tiny_runs import ROOT, compiled_in

from mnist_jax.cli import flags
from mnist_jax.data import datasets, image_files, photos, splits
from mnist_jax.data.splits import Split, Splits
from mnist_jax.predict import __main__ as predict
from mnist_jax.predict import classifier, predict_page
from mnist_jax.runs import training

FAST = f"--config={ROOT}/configs/fast.py"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, all_optimised):
    """An epoch on a part of MNIST; on digits where there is none."""
    folder = tmp_path_factory.mktemp("run")
    if "MNIST_JAX_ARCHIVES" in os.environ:
        config = flags.parse([FAST, "--config.train.epochs=1"]).config
        images, labels = prepared.published("mnist", "train", 11_000)
        examples = Splits(
            name="mnist",
            class_names=datasets.DIGITS,
            fingerprint="of a part",
            train=Split(images[:10_000], labels[:10_000]),
            val=Split(images[10_000:], labels[10_000:]),
            test=Split(*prepared.published("mnist", "t10k", 1000)),
        )
    else:
        config = flags.parse([f"{FAST}:digits", "--config.train.epochs=2"]).config
        examples = splits.load(config)
    with compiled_in(folder / "compiled"):
        training.train_run(config, examples, folder / "run", log=lambda line: None)
        yield folder / "run"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with a five, a seven in a photograph, and two files that are not pictures."""
    folder = tmp_path_factory.mktemp("drawn")
    for name in ("plain-5.png", "photo-7.jpg"):
        style, digit = re.fullmatch(r"(\w+)-(\d)\.\w+", name).groups()
        draw_digits.draw(style, int(digit)).save(folder / name)
    (folder / "notes").write_text("no picture, and not called one")
    (folder / "broken.png").write_text("no picture")
    return folder


def say(capsys, *argv):
    code = predict.main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    return code, out, err


def table(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_nine_of_ten_drawn_digits_are_seen_right(workdir, tmp_path, capsys):
    prepared.archives()
    styles = [*draw_digits.HANDS, *draw_digits.PRINT]
    for style in styles:
        draw_digits.save(tmp_path, style)
    code, out, err = say(capsys, "--workdir", workdir, tmp_path, "--json=-")
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert len(rows) == 10 * len(styles)
    right = [row["class"] == row["file"].rpartition("-")[2][0] for row in rows]
    assert np.mean(right) >= 0.9
    assert np.mean([row["strange"] for row in rows]) < 0.1


@pytest.mark.parametrize("style", ["pencil", "table", "squared"])
def test_nine_of_ten_are_seen_right_in_hard_photographs(workdir, tmp_path, style):
    prepared.archives()
    digits = [(digit, variant) for variant in (6, 7, 8) for digit in range(10)]
    images, expected = [], []
    for digit, variant in digits:
        draw_digits.draw(style, digit, variant).save(tmp_path / "x.bmp")
        (picture,) = image_files.read(tmp_path / "x.bmp")
        with contextlib.suppress(ValueError):  # blank: a wrong answer
            (image,) = photos.as_mnist(picture.pixels)  # so are several figures
            images.append(image)
            expected.append(digit)
    answers = classifier.load(workdir)(np.stack(images)).argmax(axis=1)
    assert (answers == expected).sum() >= 27


def test_what_is_no_digit_is_strange(workdir, tmp_path):
    """Not all of it, but far more than the 1% of test images."""
    prepared.archives()
    garments, _ = prepared.published("fashion_mnist", "t10k", 200)
    images = np.concatenate([photos.as_mnist(1 - garment / 255) for garment in garments])
    assert classifier.load(workdir).answer(images).strange.mean() > 0.25


def test_a_line_each_and_the_rest_is_done(workdir, drawn, capsys):
    code, out, err = say(capsys, "--workdir", workdir, drawn, drawn / "gone.png", "--top=2")
    assert code == 1
    broken, gone, notes = sorted(err.splitlines())
    assert broken.startswith(f"{drawn}/broken.png: is not an image in a supported format (PNG, ")
    assert gone == f"{drawn}/gone.png: cannot be read (No such file or directory)"
    assert notes.startswith(f"{drawn}/notes: is not an image")
    first, second = out.splitlines()
    assert re.match(rf"{drawn}/photo-7\.jpg  \S \d+\.\d%   \S \d+\.\d%( {{2}}\(looks|$)", first)
    assert second.startswith(f"{drawn}/plain-5.png  ")


def test_everything_it_writes_says_the_same(workdir, drawn, tmp_path, capsys):
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "page")}
    flags = [f"--{kind}={path}" for kind, path in files.items()]
    code, out, _ = say(capsys, "--workdir", workdir, drawn, "--show", *flags)
    assert code == 1
    rows = json.loads(files["json"].read_text())
    assert [row["file"] for row in rows] == [f"{drawn}/photo-7.jpg", f"{drawn}/plain-5.png"]
    entries = table(files["csv"])
    text = files["page"].read_text()
    check_self_contained(text)
    page = Page(text)
    assert f"{drawn}/broken.png: is not an image in a supported format" in page.text
    assert len(page.all("img")) == 2 * len(rows)
    assert all(image["alt"] for image in page.all("img"))
    for row, entry in zip(rows, entries, strict=True):
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert row["probability"] == max(row["probabilities"].values())
        assert row["probabilities"][row["class"]] == row["probability"]
        for key in ("file", "class", "probability", "strange"):
            assert entry[key] == str(row[key])
        assert {name: float(entry[name]) for name in datasets.DIGITS} == row["probabilities"]
        guess = f"{row['class']} {100 * row['probability']:.1f}%"
        assert guess in page.text
        block = out[out.index(row["file"]) :].splitlines()[:15]
        assert guess.split() == [word for word in block[2].split() if not set(word) <= set("█▀▄")]


def test_the_drawing_is_what_the_net_saw():
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 1)).astype(np.uint8)
    probabilities = np.array([0.2, 0.5, 0.3], np.float32)
    seen = predict_page.Seen("x.png", image, "", probabilities, True)
    name, *lines = predict_page.drawing(seen, ("cat", "dog", "fox"), top=2).splitlines()
    assert (name, len(lines)) == ("x.png", 14)
    halves = {" ": (0, 0), "▄": (0, 1), "▀": (1, 0), "█": (1, 1)}
    for y, line in enumerate(lines):
        for x, char in enumerate(line[:28].ljust(28)):
            assert halves[char] == tuple(image[2 * y : 2 * y + 2, x, 0] > 127)
    assert lines[1][28:].split() == ["dog", "█" * 12, "50.0%"]
    assert lines[2][28:].split() == ["fox", "█" * 7, "30.0%"]
    assert lines[13][28:].strip() == "looks like nothing it was trained on"
    assert not any(line[28:].strip() for line in (lines[0], *lines[3:13]))


def test_the_page_escapes_what_comes_from_outside(workdir, tmp_path, capsys):
    name = "<b>&'\".png"
    draw_digits.draw("28x28", 3).save(tmp_path / name)
    (tmp_path / "<i>.png").touch()
    say(capsys, "--workdir", workdir, tmp_path, f"--page={tmp_path / 'page.html'}")
    page = Page((tmp_path / "page.html").read_text())
    assert str(tmp_path / "<i>.png") in page.text
    assert page.all("code")[0]["title"] == str(tmp_path / name)
    assert page.all("img")[0]["class"] == "pixels"


def test_files_folders_and_globs(tmp_path):
    for name in ("b.png", "a.JPG", "c.txt", "in/d.gif", "in/deep/e", "[x].png", ".hidden/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("L", (1, 1)).save(tmp_path / name, "PNG")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "in" / "back").symlink_to(tmp_path)
    (tmp_path / "empty").mkdir()

    def names(*args):
        found, failed = predict.find([str(tmp_path / arg) for arg in args])
        assert all(line.startswith(f"{tmp_path}/") for line in failed)
        return [str(p.relative_to(tmp_path)) for p in found], [x.split(": ")[1] for x in failed]

    everything = ["[x].png", "a.JPG", "b.png", "c.txt", "in/d.gif", "in/deep/e"]
    assert names("") == (everything, [])
    assert len(names("in")[0]) == len(everything)  # a link is followed, once
    assert names("c.txt", "in/deep", "c.txt") == (["c.txt", "in/deep/e"], [])
    assert names("**/*.gif") == (["in/d.gif"], [])
    assert names("i*/dee*") == (["in/deep/e"], [])
    assert names("[x].png") == (["[x].png"], [])
    assert names("empty", "*.webp") == ([], ["holds no files", "matches no file"])
    assert names("gone.png") == (["gone.png"], [])  # reported when it is read


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    """Also inside of others, whose files are found all the same."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "x.png").touch()
    scan = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read everything
    message = f"{tmp_path}/closed: cannot be read (Permission denied)"
    assert predict.find([str(tmp_path / "closed")]) == ([], [message])
    assert predict.find([str(tmp_path)]) == ([tmp_path / "x.png"], [message])


def test_each_page_and_figure_has_an_answer(workdir, tmp_path, capsys):
    pages = [draw_digits.draw("plain", digit) for digit in (3, 7)]
    blank = Image.new("L", pages[0].size, 255)
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=[blank, pages[1]])
    both = Image.new("L", (560, 280), 255)
    for x, digit in ((0, 4), (200, 2)):
        both.paste(draw_digits.draw("plain", digit), (x, 0))
    both.save(tmp_path / "number", "PNG")  # a PNG file without an extension
    flags = [f"--page={tmp_path}/out.html", f"--csv={tmp_path}/out.csv"]
    for _ in range(2):  # the second time its own files are there
        code, out, err = say(capsys, "--workdir", workdir, tmp_path, *flags, "--top=1")
        assert (code, err) == (
            1,
            f"{tmp_path}/scan.tif[2]: nothing stands out from the background\n",
        )
    names, answers = zip(*(line.split("  ", 1) for line in out.splitlines()), strict=True)
    assert list(names) == [
        *(f"{tmp_path}/number (figure {i} of 2)" for i in (1, 2)),
        *(f"{tmp_path}/scan.tif[{i}]" for i in (1, 3)),
    ]
    if "MNIST_JAX_ARCHIVES" in os.environ:
        assert [answer.split()[0] for answer in answers] == ["4", "2", "3", "7"]
    rows = table(tmp_path / "out.csv")
    assert tuple(row["file"] for row in rows) == names
    page = Page((tmp_path / "out.html").read_text())
    assert len(page.all("img")) == 8


def test_it_abstains_below_a_probability(workdir, drawn, tmp_path, capsys):
    picture = drawn / "plain-5.png"

    def answers(*flags):
        flags = [*flags, f"--csv={tmp_path}/x.csv", f"--page={tmp_path}/x.html"]
        code, line, err = say(capsys, "--workdir", workdir, picture, *flags)
        assert (code, err) == (0, "")
        (row,) = table(tmp_path / "x.csv")
        shown = Page((tmp_path / "x.html").read_text()).all("article")
        _, out, _ = say(capsys, "--workdir", workdir, picture, *flags, "--json=-")
        (found,) = json.loads(out)
        assert found["class"] == row["class"]
        assert float(row["probability"]) == max(found["probabilities"].values())
        return line, found["class"], shown[0]["class"]

    line, found, shown = answers("--min-probability=1")
    assert found == "unsure"
    assert line.startswith(f"{picture}  unsure: ")
    assert "unsure" in shown.split()
    line, found, shown = answers("--min-probability=0.05")
    assert found in datasets.DIGITS
    assert "unsure" not in line + shown


def test_the_drawing_of_an_unsure_answer():
    image = np.zeros((28, 28, 1), np.uint8)
    probabilities = np.array([0.4, 0.6], np.float32)
    seen = predict_page.Seen("x.png", image, "", probabilities, strange=False, unsure=True)
    lines = predict_page.drawing(seen, ("cat", "dog"), top=1).splitlines()
    assert lines[1].strip() == "unsure"
    assert lines[2].split()[0] == "dog"


def test_control_characters_of_names_are_not_written(workdir, tmp_path, capsys):
    folder = tmp_path / "\x1b]0;x\x07"
    folder.mkdir()
    draw_digits.draw("28x28", 3).save(folder / "a\n\r\x9b31m.png")
    (folder / "\x1b[2Jbad").touch()
    flags = [f"--{kind}={tmp_path}/out.{kind}" for kind in ("csv", "json", "page")]
    argv = ["--workdir", workdir, folder, folder / "no*", *flags, "--no-show"]
    _, out, err = say(capsys, *argv)
    texts = [path.read_text() for path in tmp_path.glob("out.*")]
    assert len(texts) == 3
    for text in (out, err, *texts):
        assert all(c.isprintable() or c == "\n" for c in text)
        assert f"{tmp_path}/\ufffd]0;x\ufffd/" in text.replace("\\ufffd", "\ufffd")
    assert out.count("\n") == 1
    assert err.count("\n") == 2
    assert len(table(tmp_path / "out.csv")) == 1


def test_names_of_any_bytes(workdir, tmp_path):
    """As in an old archive: shown with a mark, and nothing else is lost."""
    folder = os.fsencode(tmp_path)
    draw_digits.draw("28x28", 3).save(tmp_path / "plain.png")
    for name in (b"drei-\xe9.png", b"leer-\xe9.png"):
        with open(os.path.join(folder, name), "wb") as file:  # noqa: PTH118, PTH123 (bytes)
            file.write((tmp_path / "plain.png").read_bytes() if name[0] == 100 else b"")
    flags = [f"--{kind}={tmp_path}/out.{kind}" for kind in ("json", "csv", "page")]
    argv = ["-m", "mnist_jax.predict", "--workdir", workdir, tmp_path, *flags]
    done = forks.run(argv, ROOT, os.environ)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"{tmp_path}/leer-\ufffd.png: is not an image")
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path}/drei-\ufffd.png  " in done.stdout
    for kind in ("json", "csv", "page"):
        assert (tmp_path / f"out.{kind}").stat().st_size


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--workdir=nowhere", "x.png"], "nowhere: there is no run"),
        (["--workdir=nowhere", "x.png", "--top=0"], "--top=0: must be 1 or more"),
        (["--workdir=nowhere", "x.png", "--min-probability=2"], "--min-probability=2.0: must be"),
        (["--workdir=nowhere", "x.png", "--min-probability=nan"], "must be from 0 to 1"),
        (["--workdir=nowhere", "x.png", "--csv=-", "--json=-"], "only one of them can be written"),
    ],
)
def test_a_mistake_is_told_in_one_line(capsys, argv, message):
    code, out, err = say(capsys, *argv)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: .+\n", err)
    assert message in err


def test_what_cannot_be_written_is_a_mistake_and_leaves_nothing(workdir, drawn, tmp_path, capsys):
    code, _, err = say(capsys, "--workdir", workdir, drawn, f"--page={tmp_path}/no/page.html")
    assert code == 2
    assert f"error: {tmp_path}/no/page.html: cannot be written (No such file" in err
    assert not [*tmp_path.iterdir()]


def test_the_command_from_a_shell(workdir, drawn):
    """Into a pipe: no drawing; wrong usage is code 2 without JAX."""
    command = [sys.executable, "-W", "error", "-m", "mnist_jax.predict"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--workdir", workdir, drawn / "plain-5.png"],
        cwd=ROOT, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{drawn}/plain-5.png  ")
    assert done.stdout.count("\n") == 1
    wrong = subprocess.run([*command, "x.png"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "--workdir" in wrong.stderr


def test_who_reads_may_stop_reading(workdir, drawn):
    argv = ["--workdir", workdir, drawn / "plain-5.png", "--json=-"]
    assert unread("predict", *argv) == (141, "")
