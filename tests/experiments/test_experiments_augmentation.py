"""Augmentation: its cost is measured and shown; displaced images and small weights."""

import numpy as np

from configs import study
from experiments import augmentation, tables
from experiments.study.systems import afterwards
from mnist_jax.cli import flags
from mnist_jax.data import datasets, splits
from mnist_jax.runs.training import train_run


def test_the_cost_is_measured_and_shown(monkeypatch):
    monkeypatch.setattr(augmentation, "BATCH_SIZE", 4)
    monkeypatch.setattr(augmentation, "AUGMENTED", {"shifts": {"shift": 0.3}})
    monkeypatch.setitem(study.MODELS, "linear", {"name": "linear"})
    row = augmentation.cost("linear", 8, 2)
    assert list(row["seconds"]) == ["none", "shifts"]
    assert all(len(turns) == 2 and min(turns) > 0 for turns in row["turns"].values())
    record = {**tables.origin("experiments.augmentation"), "repeats": 2, "rows": [row]}
    none, shifts = augmentation.to_markdown(record).splitlines()[2:4]
    assert none.endswith("| 1.00 |")
    ratio = row["seconds"]["shifts"] / row["seconds"]["none"]
    assert shifts == f"| linear | shifts | {row['seconds']['shifts']:.2f} | {ratio:.2f} |"


def test_a_trained_net_on_displaced_images_and_with_small_weights(tmp_path):
    argv = ["--config=configs/linear.py:digits", "--config.train.epochs=8"]
    config = flags.parse(argv).config
    summary = train_run(config, splits.load(config), tmp_path / "run", log=lambda line: None)
    facts = afterwards.measure(tmp_path / "run")
    accuracy = 100 * summary["test_accuracy"]
    assert abs(facts["accuracy with weights of 8 bits"] - accuracy) < 1
    assert 10 < facts["accuracy, shifted by 4 pixels"] < accuracy - 20  # a linear net of pixels
    assert facts["accuracy, rotated by 20°"] < accuracy
    assert facts["kB of weights"] == 4 * 7850 / 1000
    assert facts["kB of weights of 8 bits"] == (7840 + 4 * 10 + 4 * 10) / 1000


def test_displacements():
    images = datasets.load("digits").test_images[:3]
    down = afterwards.displace(images, 1.0, 0.0, 4.0, 0.0)
    assert (down[:, 4:] == images[:, :-4]).all()
    assert (afterwards.displace(images, 1.0, 0.0, 0.0, 0.0) == images).all()
    turned = np.asarray(afterwards.displace(images, 1.0, 90.0, 0.0, 0.0))
    np.testing.assert_allclose(turned, np.rot90(images, axes=(1, 2)), atol=1)
