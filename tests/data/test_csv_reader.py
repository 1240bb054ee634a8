"""CSV files as they occur: columns, separators, archives, labels, and what is wrong with them."""

import gzip
import zipfile

import numpy as np
import pytest
from tiny_builders import message

from mnist_jax.data import csv_reader, datasets

ROWS = np.random.default_rng(0).integers(0, 256, (50, 785))
ROWS[:, 0] = np.arange(50) % 10
LINES = [",".join(map(str, row)) for row in ROWS]
HEADER = "label," + ",".join(f"pixel{i}" for i in range(784))


LAST = [",".join(map(str, [*row[1:], row[0]])) for row in ROWS]  # the layout of OpenML


def write(path, lines, newline="\n", encoding="utf-8"):
    content = (newline.join(lines) + newline).encode(encoding)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/", b"")
            archive.writestr("folder/train.csv", content)
            archive.writestr("__MACOSX/folder/._train.csv", b"\0\0")
    else:
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return f"csv:{path}"


def quoted(lines, separator=","):
    return [separator.join(f'"{field}"' for field in line.split(",")) for line in lines]


@pytest.mark.parametrize(
    ("file", "lines", "newline"),
    [
        ("plain.csv", LINES, "\n"),
        ("header.csv", [HEADER, *LINES], "\n"),
        ("numbered.csv", ["label," + ",".join(map(str, range(784))), *LINES], "\n"),
        ("windows.csv", [HEADER, *LINES], "\r\n"),
        ("marked.csv", ["\ufeff" + LINES[0], *LINES[1:]], "\n"),
        ("spaced.csv", ["", *[line.replace(",", ", ") for line in LINES], "", " "], "\n"),
        ("mac.csv", LINES, "\r"),
        ("zipped.csv.gz", [HEADER, *LINES], "\n"),
        ("zipped.zip", [HEADER, *LINES], "\r\n"),
        ("quoted.csv", quoted([HEADER, *LINES]), "\n"),
        ("excel.csv", quoted([HEADER, *LINES], ";"), "\r\n"),
        ("semicolons.csv", [line.replace(",", ";") for line in [HEADER, *LINES]], "\n"),
        ("tabs.tsv", [line.replace(",", "\t") for line in LINES], "\n"),
        ("class.csv", [HEADER.replace("label", "Class"), *LINES], "\n"),
        ("last.csv", [f"{HEADER.partition(',')[2]},class", *LAST], "\n"),
        ("last.csv.gz", quoted([f"{HEADER.partition(',')[2]},Label", *LAST]), "\r\n"),
    ],
)
def test_csv_round_trip(tmp_path, file, lines, newline):
    name = write(tmp_path / file, lines, newline)
    dataset = datasets.load(name)
    assert dataset.name == name
    assert dataset.class_names == tuple("0123456789")
    assert dataset.train_images.shape == (40, 28, 28, 1)
    assert dataset.test_images.shape == (10, 28, 28, 1)
    images = np.concatenate([dataset.train_images, dataset.test_images]).reshape(50, 784)
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    got = sorted(np.column_stack([labels, images]).tolist())
    assert got == sorted(ROWS.tolist())
    assert sorted(dataset.test_labels.tolist()) == list(range(10))
    assert dataset.fingerprint == datasets.load(name).fingerprint


def spoiled(row, column, value):
    lines = list(LINES)
    fields = lines[row].split(",")
    fields[column] = value
    return [HEADER, *lines[:row], ",".join(fields), *lines[row + 1 :]]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([HEADER, LINES[0], LINES[1] + ",7", LINES[2]], "line 3: 786 columns instead of 785"),
        ([LINES[0], "", LINES[1].rpartition(",")[0]], "line 3: 784 columns instead of 785"),
        ([line.partition(",")[2] for line in LINES], "line 1: 784 columns instead of 785"),
        (["this", "is no", "table"], "line 2: 1 columns instead of 785"),
        (spoiled(0, 0, "10"), "leaves validation without the class 10 (it has 1 of 50 examples)"),
        (spoiled(3, 0, "-1"), "line 5: column 1: label -1 is outside 0..65535"),
        (
            [f"{HEADER.partition(',')[2]},class", *LAST[:3], LAST[3].rpartition(",")[0] + ",cat"],
            "line 5: column 785: label 'cat' is not an integer",
        ),
        ([f"{HEADER.partition(',')[2]},class", LAST[0] + ",7"], "(784 pixels, then label)"),
        (spoiled(4, 7, "256"), "line 6: column 8: pixel 256 is outside 0..255"),
        (spoiled(4, 784, "-3"), "line 6: column 785: pixel -3 is outside 0..255"),
        (spoiled(4, 784, "99999999"), "line 6: column 785: pixel 99999999 is outside 0..255"),
        (spoiled(5, 2, "3.0"), "line 7: column 3: pixel '3.0' is not an integer"),
        (spoiled(5, 2, ""), "line 7: column 3: pixel '' is not an integer"),
        (spoiled(5, 2, "1_0"), "line 7: column 3: pixel '1_0' is not an integer"),
        (spoiled(5, 0, "seven"), "line 7: column 1: label 'seven' is not an integer"),
        (spoiled(5, 2, "9" * 5000), "line 7: column 3: pixel '99999999999999999999' is not"),
        (spoiled(0, 2, "x")[1:], "line 1: column 3: pixel 'x' is not an integer"),
        ([], "holds no examples"),
        ([HEADER], "holds no examples"),
        (LINES[:9], "too few examples for a test split"),
        (
            [line for line in LINES[9:] if not line.startswith("0,")] + LINES[:1],
            "too few examples for a test split: val_size=0.2: leaves",
        ),
    ],
)
def test_csv_refuses_by_line(tmp_path, lines, says):
    name = write(tmp_path / "bad.csv", lines)
    with pytest.raises(datasets.DataError) as error:
        datasets.load(name)
    assert says in message(error)
    assert "bad.csv" in message(error)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("missing.csv", None),
        ("picture.csv", b"\x89PNG\xff\xfe"),
        ("cut.csv.gz", gzip.compress("\n".join(LINES).encode())[:5000]),
        ("cut.zip", b"PK\x03\x04" + bytes(50)),
        ("spoiled.csv.gz", gzip.compress(b"1,2,3")[:10] + b"\xff" * 30),
    ],
    ids=["missing", "binary", "cut", "not a zip", "spoiled"],  # gzip's time stamps are no names
)
def test_csv_refuses_unreadable_files(tmp_path, file, content):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(datasets.DataError) as error:
        datasets.load(f"csv:{tmp_path / file}")
    assert f"{tmp_path / file}: cannot be read" in message(error)


def labelled(labels, pixels=ROWS[:, 1:]):
    """Lines with these labels first, over and over."""
    return [f"{y}," + ",".join(map(str, x)) for x, y in zip(pixels, 10 * labels, strict=False)]


@pytest.mark.parametrize("labels", [[*range(1, 6)], [3, 7], [0, 1, 5, 300], [*range(0, 10, 2)]])
def test_labels_become_0_1_2_and_the_class_names_keep_them(tmp_path, labels):
    found = datasets.load(write(tmp_path / "t.csv", ["label" + HEADER[5:], *labelled(labels * 10)]))
    assert found.class_names == tuple(map(str, labels))
    assert sorted(set(found.train_labels.tolist())) == list(range(len(labels)))
    images, classes = found.train_images[:, 0, 0, 0], found.train_labels
    kept = {(row[0], y) for row, y in zip(ROWS[:, 1:], labels * 50, strict=False)}
    assert {(x, labels[y]) for x, y in zip(images, classes, strict=True)} <= kept


def test_letters_from_1_to_26(tmp_path):
    pixels = np.tile(ROWS[:, 1:], (6, 1))[:260]
    found = datasets.load(write(tmp_path / "t.csv", labelled([*range(1, 27)] * 10, pixels)))
    assert found.class_names == tuple(map(str, range(1, 27)))
    assert set(found.train_labels.tolist()) == set(range(26))


def test_the_column_of_the_label_is_an_option_without_a_header(tmp_path):
    first = datasets.load(write(tmp_path / "first.csv", LINES))
    name = write(tmp_path / "last.csv", LAST)
    last = datasets.load(name, datasets.Format(label_column="last"))
    assert last.fingerprint == first.fingerprint
    # It comes before what the header says.
    name = write(tmp_path / "wrong.csv", [HEADER, *LAST])
    last = datasets.load(name, datasets.Format(label_column="last"))
    assert last.fingerprint == first.fingerprint


@pytest.mark.parametrize("corner", [0, "random"])
def test_a_label_in_the_last_column_is_not_misread(tmp_path, corner):
    """The first column is a pixel: the same in all images, or noise."""
    rows = ROWS.copy()
    if corner == 0:
        rows[:, 1] = 0
    lines = [",".join(map(str, [*row[1:], row[0]])) for row in rows]
    with pytest.raises(datasets.DataError) as error:
        datasets.load(write(tmp_path / "t.csv", lines))
    assert message(error) == (
        f"{tmp_path}/t.csv: the label is probably in the last column, and not in the first: give "
        "--config.data.label_column=last, or first if it is not"
    )


def test_labels_that_are_all_the_same_are_refused(tmp_path):
    for label_column in ("first", None):
        with pytest.raises(datasets.DataError, match="all labels are 7: give two classes") as error:
            csv_reader.read(write(tmp_path / "t.csv", labelled([7] * 50))[4:], label_column)
        message(error)


@pytest.mark.parametrize("top", [1, 16, 100, 1000, 65_535])
def test_pixels_of_another_range_are_scaled(tmp_path, top):
    pixels = np.random.default_rng(0).integers(0, top + 1, (20, 784))
    pixels[0, 0] = top
    path = write(tmp_path / "t.csv", labelled([0, 1] * 10, pixels))[4:]
    images, _ = csv_reader.read(path, None, top)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images.reshape(20, 784), np.rint(pixels * 255 / top))
    if top > 255:
        assert "is outside 0..255" in refused(path)
    else:
        assert f"t.csv: no pixel is above {top}, where 255 is white" in refused(path)
        assert f"--config.data.pixel_max={top} " in refused(path)
        images, _ = csv_reader.read(path, None, 255)
        np.testing.assert_array_equal(images.reshape(20, 784), pixels)
    if top > 1:
        assert f"is outside 0..{top - 1}" in refused(path, top - 1)


def refused(path, pixel_max=None):
    with pytest.raises(datasets.DataError) as error:
        csv_reader.read(str(path), None, pixel_max)
    return message(error)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".zip"])
def test_a_file_that_is_too_large_is_refused_with_the_limit(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(csv_reader, "LARGEST", 2**17)
    path = tmp_path / f"t{suffix}"
    write(path, LINES * 3)
    assert "is larger than 0.00012207 GiB, the limit (uncompressed)" in refused(path)
    write(path, [""] * 2**18)  # which hold no examples, but fill the memory if they are kept
    assert "the limit (uncompressed)" in refused(path)
    monkeypatch.setattr(csv_reader, "LARGEST", 2**30)
    write(path, ["0" * 2**20])
    assert "line 1: has 100,000 characters or more: no row of 785 numbers" in refused(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".zip"])
def test_utf16_is_named(tmp_path, encoding, suffix):
    for lines in (LINES, [HEADER, *LINES]):
        write(tmp_path / f"t{suffix}", lines, encoding=encoding)
        assert "holds text in UTF-16: save it as CSV in UTF-8" in refused(tmp_path / f"t{suffix}")


def test_an_archive_of_several_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for name in ("train.csv", "test.csv"):
            archive.writestr(name, "\n".join(LINES))
    assert "holds 2 files (train.csv, test.csv): give a .zip of one CSV" in refused(
        tmp_path / "t.zip"
    )


def test_csv_of_kaggle_size(tmp_path):
    name = write(tmp_path / "train.csv", [HEADER, *LINES * 840])
    dataset = datasets.load(name)
    assert len(dataset.train_labels) + len(dataset.test_labels) == 42_000
