"""Tiny tfds builders that tests can prepare in a moment, and their archives."""

import functools
import gzip
import struct

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.checksums import compute_url_info
from tensorflow_datasets.image_classification import mnist as official

from mnist_jax.data import datasets


def rows(images, labels):
    table = np.column_stack([images.reshape(-1, 784), labels]).astype(np.uint8)
    return np.ascontiguousarray(table).view("S785")[:, 0]


def message(error):
    """What the user reads: one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


class TinyMnist(official.MNIST):
    pass


class TinyEmnist(official.EMNIST):
    BUILDER_CONFIGS = [  # noqa: RUF012 (as in tfds)
        official.EMNISTConfig(name="letters", class_number=37, train_examples=40, test_examples=20)
    ]


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Pictures of 56x70: red, in which the top left quarter is black."""

    VERSION = tfds.core.Version("1.0.0")
    image = tfds.features.Image(shape=(56, 70, 3))
    label = tfds.features.ClassLabel(names=["cat", "dog"])
    splits = {"train": [0, 1, 1], "test": [1]}  # noqa: RUF012

    def _info(self):
        features = tfds.features.FeaturesDict({"picture": self.image, "kind": self.label})
        return tfds.core.DatasetInfo(
            builder=self, features=features, supervised_keys=("picture", "kind")
        )

    def _split_generators(self, dl):
        return {split: self._generate_examples(labels) for split, labels in self.splits.items()}

    def _generate_examples(self, labels):
        red = np.full((56, 70, 3), (255, 0, 0), np.uint8)
        red[:28, :35] = 0
        for index, label in enumerate(labels):
            yield index, {"picture": Image.fromarray(red), "kind": label}


@functools.cache
def tiny_examples():
    random = np.random.default_rng(0)
    return {
        split: (random.integers(0, 256, (n, 28, 28), np.uint8), np.arange(n, dtype=np.uint8) % 10)
        for split, n in (("train", 40), ("t10k", 20))
    }


def write_tiny(folder, prefix=""):
    folder.mkdir(parents=True)
    for split, (images, labels) in tiny_examples().items():
        other = {"t10k": "test"}.get(split, split) if prefix else split
        content = struct.pack(">4i", 2051, *images.shape) + images.tobytes()
        path = folder / f"{prefix}{other}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(content, mtime=0))
        content = struct.pack(">2i", 2049, len(labels)) + labels.tobytes()
        path = folder / f"{prefix}{other}-labels-idx1-ubyte.gz"
        path.write_bytes(gzip.compress(content, mtime=0))


def is_tiny(dataset):
    train, test = rows(*dataset[1:3]), rows(*dataset[3:5])
    expected = [np.sort(rows(*tiny_examples()[split])) for split in ("train", "t10k")]
    return all(map(np.array_equal, (np.sort(train), np.sort(test)), expected))


def spoil(path, change):
    content = change(path.read_bytes())
    path.unlink()  # it may be a link
    path.write_bytes(content)


def pin(folder, url):
    """What tfds knows of the archives in `folder`, as published under `url`."""
    return {url + path.name: compute_url_info(path) for path in sorted(folder.iterdir())}


def archived_tiny(monkeypatch, tmp_path):
    """A `load` of `tiny_mnist` from archives in tmp_path; nothing answers at its address."""
    monkeypatch.delenv("MNIST_JAX_ARCHIVES", raising=False)
    write_tiny(tmp_path / "archives" / "tiny_mnist")
    return published(monkeypatch, tmp_path, "http://127.0.0.1:9/")


def published(monkeypatch, tmp_path, url):
    """As `archived_tiny`, and its address is `url`."""
    monkeypatch.setattr(TinyMnist, "URL", url)
    pinned = pin(tmp_path / "archives" / "tiny_mnist", url)
    monkeypatch.setattr(TinyMnist, "url_infos", pinned, raising=False)
    load = functools.partial(datasets.load, "tiny_mnist", data_dir=str(tmp_path / "data"))
    return functools.partial(load, archives=str(tmp_path / "archives"))
