"""`images:DIR`: a folder of pictures for each class."""

import numpy as np
import pytest
from PIL import Image
from tiny_builders import message

from mnist_jax.data import datasets, image_folder


def draw(path, value, size=(28, 28), mode="L"):
    """A picture whose pixels are all of one grey, but a white corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full(size[::-1], value, np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def shapes(tmp_path):
    """Ten pictures of each of two classes, numbered by their grey."""
    for start, name in ((0, "round"), (100, "angular")):
        for i in range(10):
            draw(tmp_path / "shapes" / name / f"{i}.png", start + i)
    return tmp_path / "shapes"


def greys(images):
    return images[:, -1, -1, 0].tolist()


def test_subfolders_are_classes_and_a_fifth_of_each_is_the_test_split(shapes):
    found = datasets.load(f"images:{shapes}")
    assert found.name == f"images:{shapes}"
    assert found.class_names == ("angular", "round")
    assert found.kind == "objects"
    assert found.train_images.shape == (16, 28, 28, 1)
    assert found.test_labels.tolist() == [0, 0, 1, 1]
    for images, labels in (found[1:3], found[3:5]):
        assert labels.tolist() == [int(grey < 100) for grey in greys(images)]
        assert (images[:, 0, 0, 0] == 255).all()  # no pixel is changed
    again = datasets.load(f"images:{shapes}/../shapes/")
    assert again.fingerprint == found.fingerprint


def test_train_and_test_may_be_folders(shapes, tmp_path):
    (tmp_path / "both").mkdir()
    shapes.rename(tmp_path / "both/train")
    draw(tmp_path / "both/test/round/a.png", 7)
    draw(tmp_path / "both/test/round/deeper/b.png", 8)
    (tmp_path / "both/README.txt").write_text("files next to the folders do not matter")
    found = datasets.load(f"images:{tmp_path / 'both'}")
    assert len(found.train_labels) == 20
    assert greys(found.test_images) == [7, 8]
    assert found.test_labels.tolist() == [1, 1]


def test_names_that_are_numbers_are_in_their_order(tmp_path):
    for name in ("10", "2", "1"):
        for i in range(5):
            draw(tmp_path / name / f"{i}.png", int(name))
    found = datasets.load(f"images:{tmp_path}")
    assert found.class_names == ("1", "2", "10")
    assert [int(found.class_names[y]) for y in found.train_labels] == greys(found.train_images)


@pytest.mark.parametrize(
    ("end", "mode", "size"),
    [
        *(("png", "RGB", (56, 70)), ("jpg", "L", (300, 200)), ("gif", "P", (28, 28))),
        *(("png", "1", (9, 9)), ("tiff", "I;16", (28, 28)), ("webp", "RGBA", (28, 40))),
    ],
)
def test_pictures_of_any_kind_become_grey_and_small(tmp_path, end, mode, size):
    for name in "ab":
        path = tmp_path / name / f"one.{end}"
        draw(path, 255, size, "L" if mode == "I;16" else mode)
        if mode == "I;16":
            Image.fromarray(np.full(size, 65_535, np.uint16)).save(path)
    (images, labels), test, _ = image_folder.read(str(tmp_path))
    assert images.shape == (2, 28, 28, 1)
    assert images.min() > 250
    assert (labels.tolist(), test) == ([0, 1], None)


def test_hidden_files_are_skipped_and_others_must_be_pictures(shapes):
    (shapes / "round/.DS_Store").write_bytes(b"\0")
    (shapes / ".thumbnails").mkdir()
    datasets.load(f"images:{shapes}")
    for name in ("round/Thumbs.db", "round/broken.png", "angular/notes.txt", "angular/z.txt"):
        (shapes / name).write_bytes(b"no picture")
    with pytest.raises(datasets.DataError) as error:
        datasets.load(f"images:{shapes}")
    assert message(error) == (
        f"{shapes}: 4 files are not pictures (angular/notes.txt, angular/z.txt, round/Thumbs.db, "
        "...); remove them"
    )


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["a.png"], "has fewer than two folders of classes"),
        (["cat/a.png"], "has fewer than two folders of classes"),
        (["train/cat/a.png", "train/dog/a.png"], "has the folders train: give train and test"),
        (["train/a/a.png", "test/a/a.png", "val/a/a.png"], "the folders test, train, val: give"),
        (["train/a/a.png", "train/b/a.png", "test/c/a.png"], "the class c, which "),
        (["cat/a.png", "dog/.hidden"], "dog: holds no pictures"),
        (["cat/a.png", "dog/a.png"], "too few examples for a test split"),
        ([], "cannot be read as a folder: it is not there; if it was moved, "),
    ],
)
def test_folders_that_do_not_fit(tmp_path, files, says):
    for name in files:
        path = tmp_path / "d" / name
        draw(path, 9) if path.suffix else (path.parent.mkdir(parents=True), path.touch())
    with pytest.raises(datasets.DataError) as error:
        datasets.load(f"images:{tmp_path / 'd'}")
    assert says in message(error)


def test_many_pictures_are_announced(shapes, monkeypatch):
    monkeypatch.setattr(image_folder, "_MANY", 20)
    lines = []
    datasets.load(f"images:{shapes}", log=lines.append)
    assert lines == [f"images:{shapes}: reading 20 pictures"]
