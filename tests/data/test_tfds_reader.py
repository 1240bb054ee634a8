"""Data sets of tfds: real MNIST and Fashion-MNIST, archives, and other builders."""

import functools
import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile

import numpy as np
import prepared
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import mnist as official
from tiny_builders import (
    TinyEmnist,
    TinyPictures,
    archived_tiny,
    is_tiny,
    message,
    pin,
    rows,
    spoil,
    write_tiny,
)

from mnist_jax.data import datasets, tfds_reader


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    return archived_tiny(monkeypatch, tmp_path)


def idx(path, offset):
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


def archived(folder, split):
    """Rows of 784 pixels and a label, sorted: what an archive holds, whatever its order."""
    images = idx(folder / f"{split}-images-idx3-ubyte.gz", 16).reshape(-1, 784)
    return np.sort(rows(images, idx(folder / f"{split}-labels-idx1-ubyte.gz", 8)))


# --- the real thing


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return prepared.prepared_data_dir(tmp_path_factory)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_real_data_is_what_the_archives_hold(real, name):
    dataset = datasets.load(name, data_dir=str(real))
    assert dataset.name == name
    assert dataset.train_images.shape == (60_000, 28, 28, 1)
    assert dataset.test_images.shape == (10_000, 28, 28, 1)
    folder = prepared.archives() / name
    train, test = rows(*dataset[1:3]), rows(*dataset[3:5])
    assert np.array_equal(np.sort(train), archived(folder, "train"))
    assert np.array_equal(np.sort(test), archived(folder, "t10k"))
    names = {"mnist": ("0", "1", "2"), "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover")}
    assert dataset.class_names[:3] == names[name]
    assert len(dataset.class_names) == 10


def test_the_official_reader_reads_what_was_prepared(real):
    builder = tfds.builder("fashion_mnist", data_dir=real)
    example = builder.as_data_source("test")[7]
    dataset = datasets.load("fashion_mnist", data_dir=str(real))
    assert np.array_equal(example["image"], dataset.test_images[7])
    assert example["label"] == dataset.test_labels[7]


def test_a_second_start_does_without_tfds(real):
    """Whose import takes seconds; what was read once is read from where it is kept."""
    load = (
        "import sys; from mnist_jax.data import datasets\n"
        "datasets.load('mnist', data_dir=sys.argv[1])\n"
        "assert not {'tensorflow_datasets', 'sklearn', 'PIL'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", load, real], check=True)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_archives_are_checked(name, tmp_path):
    archives = tmp_path / "archives"
    shutil.copytree(prepared.archives() / name, archives / name, copy_function=os.symlink)
    spoiled = archives / name / "train-labels-idx1-ubyte.gz"
    spoil(spoiled, lambda content: content[:-1])
    with pytest.raises(datasets.DataError) as error:
        datasets.load(name, data_dir=str(tmp_path / "data"), archives=str(archives))
    assert f"{spoiled}: altered or truncated" in message(error)


# --- archives


def test_archives_are_prepared_in_silence(tiny, tmp_path, capfd):
    assert is_tiny(tiny())
    assert (tmp_path / "data/tiny_mnist/3.0.1/features.json").exists()
    assert capfd.readouterr() == ("", "")


def test_the_first_use_is_announced_on_the_terminal(tiny, tmp_path, capfd):
    """Which is the place of what tfds prints while it is at work, and that is not shown."""
    tiny(log=print)
    out, err = capfd.readouterr()
    assert out.startswith(f"tiny_mnist: first use: preparing it in {tmp_path}/data, once; ")
    assert (out.count("\n"), err) == (1, "")
    tiny(log=print)
    assert capfd.readouterr() == ("", "")


def test_archives_may_come_from_the_environment(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MNIST_JAX_ARCHIVES", str(tmp_path / "archives"))
    assert is_tiny(tiny(archives=None))


def test_the_prepared_copy_comes_first(tiny, tmp_path):
    dataset = tiny()
    shutil.rmtree(tmp_path / "archives")
    shutil.rmtree(tmp_path / "data/mnist_jax")
    assert tiny(archives=None).fingerprint == dataset.fingerprint  # its order included


def test_a_prepared_copy_of_other_examples_is_refused(tiny, tmp_path, monkeypatch):
    """As when the official builder gave fashion_mnist the test archives of mnist."""
    dataset = tiny()
    (train, test) = dataset[1:3], dataset[3:5]
    backwards = test[0][::-1], test[1][::-1]
    digest = tfds_reader._digest(train, backwards)
    monkeypatch.setitem(tfds_reader.PUBLISHED, "tiny_mnist", digest)
    cache = tmp_path / "data/mnist_jax/tiny_mnist.npz"
    cache.unlink()
    assert is_tiny(tiny())
    cache.unlink()
    other = test[0] ^ 1, test[1]
    monkeypatch.setitem(tfds_reader.PUBLISHED, "tiny_mnist", tfds_reader._digest(train, other))
    with pytest.raises(
        datasets.DataError, match="does not hold tiny_mnist as it was published"
    ) as e:
        tiny()
    assert str(tmp_path / "data/tiny_mnist/3.0.1") in message(e)
    assert not cache.exists()


@pytest.mark.parametrize("change", [lambda x: x[:-1], lambda x: x[:-9] + b"\x00" + x[-8:]])
@pytest.mark.parametrize("given", [True, False])
def test_altered_archives_are_refused_by_name(tiny, tmp_path, monkeypatch, change, given):
    monkeypatch.setenv("MNIST_JAX_ARCHIVES", str(tmp_path / "archives"))
    path = tmp_path / "archives/tiny_mnist/t10k-images-idx3-ubyte.gz"
    spoil(path, change)
    with pytest.raises(datasets.DataError, match="altered or truncated") as error:
        tiny() if given else tiny(archives=None)
    assert str(path) in message(error)
    assert not (tmp_path / "data").exists()


def test_missing_archives_are_refused_by_name(tiny, tmp_path):
    path = tmp_path / "archives/tiny_mnist/train-labels-idx1-ubyte.gz"
    path.unlink()
    with pytest.raises(datasets.DataError, match=f"{path}: missing archive") as error:
        tiny()
    assert "http://127.0.0.1:9/train-labels-idx1-ubyte.gz" in message(error)


def test_a_given_folder_must_exist_and_one_from_the_environment_need_not(
    tiny, tmp_path, monkeypatch
):
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (empty, tmp_path / "nowhere"):
        with pytest.raises(datasets.DataError) as error:
            tiny(archives=str(folder))
        assert f"{folder}/tiny_mnist: there is no such folder" in message(error)
        assert not isinstance(error.value, datasets.DataNotFound)
        monkeypatch.setenv("MNIST_JAX_ARCHIVES", str(folder))
        with pytest.raises(datasets.DataNotFound):
            tiny(archives=None)


# --- other builders


def test_emnist_comes_zipped(tmp_path, monkeypatch):
    folder = tmp_path / "archives" / "tiny_emnist"
    write_tiny(tmp_path / "gzip", prefix="emnist-letters-")
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for path in (tmp_path / "gzip").iterdir():
            archive.write(path, f"gzip/{path.name}")
    url = official.EMNIST.URL.removesuffix("gzip.zip")
    monkeypatch.setattr(TinyEmnist, "url_infos", pin(folder, url), raising=False)
    load = functools.partial(datasets.load, "tiny_emnist/letters", data_dir=str(tmp_path / "data"))
    dataset = load(archives=str(tmp_path / "archives"))
    assert is_tiny(dataset)
    assert dataset.name == "tiny_emnist/letters"
    assert len(dataset.class_names) == 37
    assert load().fingerprint == dataset.fingerprint


def test_tfrecords_are_read_without_tensorflow(tiny, tmp_path):
    """The format in which TensorFlow's users have their prepared copies."""
    dataset = tiny()
    shutil.rmtree(tmp_path / "data/mnist_jax")
    folder = tmp_path / "data/tiny_mnist/3.0.1"
    builder = tfds.builder("tiny_mnist", data_dir=tmp_path / "data")
    raw_bytes = tfds.decode.DeserializeMethod.RAW_BYTES
    for split in ("train", "test"):
        raw = builder.as_data_source(split, deserialize_method=raw_bytes)
        framed = [struct.pack("<Q4x", len(record)) + record + bytes(4) for record in raw]
        (path,) = folder.glob(f"*-{split}.array_record*")
        path.with_name(path.name.replace("array_record", "tfrecord")).write_bytes(b"".join(framed))
        path.unlink()
    info = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
    assert json.loads(info.replace("array_record", "tfrecord"))["fileFormat"] == "tfrecord"
    assert tiny().fingerprint == dataset.fingerprint


def test_pictures_become_grey_and_small(tmp_path):
    dataset = datasets.load("tiny_pictures", data_dir=str(tmp_path))
    assert dataset.train_images.shape == (3, 28, 28, 1)
    assert sorted(dataset.train_labels.tolist()) == [0, 1, 1]
    assert dataset.test_labels.tolist() == [1]
    assert dataset.class_names == ("cat", "dog")
    image = dataset.test_images[0, ..., 0]
    assert (image[:13, :13] == 0).all()
    assert (image[15:] == 76).all()  # ITU-R 601: 0.299 of red


@pytest.mark.parametrize(
    ("attribute", "value", "says"),
    [
        ("image", tfds.features.Tensor(shape=(56, 70, 3), dtype=np.uint8), "not a data set of"),
        ("image", tfds.features.Image(shape=(56, 70, 3), dtype=np.uint16), "not a data set of"),
        ("label", tfds.features.Text(), "not a data set of 8-bit images with one class label"),
        ("splits", {"train": [0, 1]}, "tiny_pictures: lacks a split train or test: has {'train'}"),
        ("splits", {"train": [0], "test": [-1]}, "some of its examples have no label"),
    ],
)
def test_builders_that_do_not_fit(tmp_path, monkeypatch, attribute, value, says):
    monkeypatch.setattr(TinyPictures, attribute, value)
    with pytest.raises(datasets.DataError) as error:
        datasets.load("tiny_pictures", data_dir=str(tmp_path))
    assert says in message(error)


def test_a_builder_that_needs_tensorflow_says_so(tmp_path, monkeypatch):
    def arrays(self, labels):
        yield 0, {"picture": np.zeros((56, 70, 3), np.uint8), "kind": 0}

    monkeypatch.setattr(TinyPictures, "_generate_examples", arrays)
    with pytest.raises(datasets.DataError, match="tensorflow") as error:
        datasets.load("tiny_pictures", data_dir=str(tmp_path))
    assert "tiny_pictures: cannot be prepared in" in message(error)
