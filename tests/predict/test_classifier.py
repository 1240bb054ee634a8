"""The library's face: a run loaded as a function, and what there is no function for."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from sklearn.neighbors import NearestNeighbors
from tiny_runs import ROOT, compiled_in

from mnist_jax.cli import flags
from mnist_jax.data import splits
from mnist_jax.data.image_files import Picture
from mnist_jax.predict import classifier
from mnist_jax.runs import training
from mnist_jax.types import UserError
from mnist_jax.workdir import files

SMALL = [
    f"--config={ROOT}/configs/linear.py:digits",
    "--config.train.epochs=3",
    "--config.optim.name=momentum",
    "--config.optim.learning_rate=0.1",
    "--config.optim.ema=0.9",
]
RUNS = {
    "one": ["--config.task.name=one_vs_rest", "--config.task.loss=logistic"],
    # Two groups, the second one better; and a last training on all examples.
    "seeds": [
        '--config.sweep.grid={"optim.name": ["sgd", "momentum"]}',
        "--config.sweep.seeds=2",
    ],
    "folds": ["--config.sweep.folds=2"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with compiled_in(folder / "compiled"):
        for name, argv in RUNS.items():
            config = flags.parse([*SMALL, *argv]).config
            training.train_run(config, splits.load(config), folder / name, log=lambda line: None)
        yield folder


@pytest.fixture(scope="module")
def images():
    return splits.load(flags.parse(SMALL).config).test.images


@pytest.mark.parametrize("name", RUNS)
def test_it_is_what_was_tested(folder, images, name, monkeypatch):
    monkeypatch.setattr(splits.datasets, "load", lambda *args, **kw: pytest.fail("read the data"))
    if name == "seeds":
        assert files.read_json(folder / name / files.SUMMARY)["chosen"] == 1
    net = classifier.load(folder / name)
    assert (net.model, net.dataset) == ("linear", "digits")
    assert net.class_names == tuple("0123456789")
    with np.load(folder / name / files.PREDICTIONS) as stored:
        logits = stored["logits"].reshape(-1, 360, 10)
    assert len(logits) == (2 if name == "seeds" else 1)
    found = net(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, softmax(logits, axis=-1).mean(0), atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_images_in_any_number_with_or_without_their_axis(folder, images):
    net = classifier.load(str(folder / "seeds"))
    whole = net(images[:33])
    for count in (0, 1, 2, 3, 33):
        np.testing.assert_allclose(net(images[:count]), whole[:count], atol=1e-6)
        np.testing.assert_array_equal(net(images[:count, ..., 0]), net(images[:count]))


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (np.zeros((2, 28, 28, 1), np.float32), r"float32\[2, 28, 28, 1\]"),
        (np.zeros((2, 32, 32, 1), np.uint8), r"uint8\[2, 32, 32, 1\]"),
        (np.zeros((2, 28, 28, 3), np.uint8), r"uint8\[2, 28, 28, 3\]"),
        (np.zeros((28, 28), np.uint8), r"uint8\[28, 28\]"),
    ],
)
def test_what_are_no_images(folder, wrong, what):
    net = classifier.load(folder / "one")
    asked = type(net).answer.__wrapped__  # without the check of annotations, which tests have on
    with pytest.raises(ValueError, match=f"images: {what}: give uint8"):
        asked(net, wrong)


def test_one_test_image_in_a_hundred_is_strange(folder, images):
    for name in ("one", "seeds"):
        assert classifier.load(folder / name).answer(images).strange.sum() in (3, 4)


@pytest.mark.parametrize("known", [3, 2500])
def test_familiarity_is_the_tenth_largest_cosine_of_each_trial(known):
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(2, n, 4)).astype(np.float32) for n in (1003, known))
    nearest = [NearestNeighbors(metric="cosine").fit(b[m]) for m in range(2)]
    tenth = min(10, known)
    distances = [nearest[m].kneighbors(a[m], tenth)[0][:, tenth - 1] for m in range(2)]
    found = classifier.familiarity(a, b)
    np.testing.assert_allclose(found, 1 - np.mean(distances, axis=0), atol=1e-6)


@pytest.mark.parametrize("task", [{"loss": "hinge"}, {"name": "one_vs_one"}, {"name": "denoise"}])
def test_a_run_without_probabilities_is_refused(folder, tmp_path, task):
    for name in (files.CONFIG, files.SUMMARY):
        shutil.copy(folder / "one" / name, tmp_path)
    stored = files.read_json(tmp_path / files.CONFIG)
    (tmp_path / files.CONFIG).write_text(files.to_json({**stored, "task": stored["task"] | task}))
    with pytest.raises(UserError, match=r"the scores of its task .* are not class probabilities"):
        classifier.load(tmp_path)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (files.CONFIG, "there is no run"),
        (files.SUMMARY, "is not finished; repeat its command to resume it"),
        (files.PREDICTIONS, "was changed after the run wrote it"),
        (files.CHECKPOINTS, "has no checkpoint"),
    ],
)
@pytest.mark.parametrize("name", ["one", "seeds"])
def test_a_run_that_is_not_whole(folder, tmp_path, name, gone, message):
    copy = tmp_path / "run"
    shutil.copytree(folder / name, copy)
    path = copy / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=message) as caught:
        classifier.load(copy)
    assert str(caught.value).startswith(str(copy))
    assert "\n" not in str(caught.value)


def test_damaged_predictions_and_a_config_of_another_version(folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder / "one", copy)
    (copy / files.PREDICTIONS).write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"predictions\.npz: was changed after the run wrote it"):
        classifier.load(copy)
    stored = files.read_json(copy / files.CONFIG)
    (copy / files.CONFIG).write_text(files.to_json(stored | {"quantum": True}))
    with pytest.raises(UserError, match=r"config\.json: is of another version of mnist_jax .*quan"):
        classifier.load(copy)


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(folder, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder / "one", copy)
    for path in (copy / files.CHECKPOINTS / "0" / "3" / "record").rglob("*"):
        path.unlink() if path.is_file() else None
    said: list[str] = []
    net = classifier.load(copy, said.append)
    assert len(said) == 1
    assert re.search(r"/0/3: .*damaged checkpoint", said[0])
    assert net(np.zeros((1, 28, 28, 1), np.uint8)).shape == (1, 10)


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [
        *((name, "digits") for name in ("mnist", "digits", "kmnist", "emnist/letters", "csv:/a/b")),
        *((name, "objects") for name in ("fashion_mnist", "cifar10", "emnistish")),
    ],
)
def test_the_kind_of_images_of_a_run(folder, tmp_path, dataset, kind):
    """From the summary; by the name of the data set if it is not there."""
    copy = tmp_path / "run"
    shutil.copytree(folder / "one", copy)
    summary = files.read_json(copy / files.SUMMARY) | {"dataset": dataset}
    summary.pop("image_kind", None)
    other = {"digits": "objects", "objects": "digits"}[kind]
    pixels = np.ones((80, 80, 1))
    pixels[20:60, 35:45] = 0
    for stored, expected in ((summary, kind), (summary | {"image_kind": other}, other)):
        (copy / files.SUMMARY).write_text(files.to_json(stored))
        net = classifier.load(copy)
        assert net.image_kind == expected
        ((name, image),) = net.prepare(Picture("x.png", pixels))
        assert name == "x.png"
        rows = np.flatnonzero(image.any(axis=(1, 2)))
        assert len(rows) == {"digits": 20, "objects": 28}[expected]


def test_a_file_is_read_as_one_image(folder, tmp_path):
    net = classifier.load(folder / "one")
    pixels = np.full((80, 160), 255, np.uint8)
    pixels[20:60, 35:45] = 0
    Image.fromarray(pixels).save(tmp_path / "one.png")
    assert net.read(tmp_path / "one.png").shape == (28, 28, 1)
    pixels[20:60, 95:105] = 0
    Image.fromarray(pixels).save(tmp_path / "two.png")
    with pytest.raises(UserError, match=r"two\.png: has 2 figures on 1 pages; .* one figure"):
        net.read(str(tmp_path / "two.png"))


@pytest.fixture(scope="module")
def denoised(folder):
    config = flags.parse([*SMALL, "--config.task.name=denoise", "--config.task.noise=200"]).config
    training.train_run(config, splits.load(config), folder / "denoised", log=lambda line: None)
    return folder / "denoised"


def test_accuracy_before_and_after_noise_was_taken_off(denoised, folder, images):
    net, seen = classifier.load(folder / "one"), []
    found = classifier.before_and_after(lambda x: seen.append(x) or net(x), denoised)
    labels = splits.load(flags.parse(SMALL).config).test.labels
    expected = [float((net(x).argmax(1) == labels).mean()) for x in seen]
    assert found == dict(zip(("clean", "noisy", "restored"), expected, strict=True))
    assert found["clean"] > found["noisy"]
    clean, noisy, restored = seen
    np.testing.assert_array_equal(clean, images)
    added = noisy.astype(int) - clean
    assert added.min() == 0
    assert added.max() == 199
    with np.load(denoised / files.PREDICTIONS) as stored:
        kept = np.clip(stored["logits"], 0, 1).reshape(clean.shape)
    np.testing.assert_allclose(restored / 255, kept, atol=0.51 / 255)


def test_accuracy_of_what_is_not_restored(denoised, folder, tmp_path):
    def classify(images):
        return np.zeros((len(images), 10), np.float32)

    with pytest.raises(UserError, match="cannot denoise; give a run of the task 'denoise'"):
        classifier.before_and_after(classify, folder / "one")
    copy = tmp_path / "run"
    shutil.copytree(denoised, copy)
    stored = files.read_json(copy / files.CONFIG)
    (copy / files.CONFIG).write_text(files.to_json(stored | {files.FINGERPRINT: "other"}))
    with pytest.raises(UserError, match="was trained on other data than the digits found here"):
        classifier.before_and_after(classify, copy)
