"""Names, splits, folds, digits, and the form in which a data set is stored."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedShuffleSplit

from mnist_jax.data import datasets
from mnist_jax.types import UserError

SEEDS = st.integers(0, 2**31)
CLASS_SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=6)


def shuffled_labels(class_sizes, seed=0):
    labels = np.repeat(np.arange(len(class_sizes)), class_sizes).astype(np.int32)
    return np.random.default_rng(seed).permutation(labels)


def message(error):
    """What the user reads: one line."""
    assert isinstance(error.value, UserError)
    text = str(error.value)
    assert "\n" not in text
    return text


# --- split and folds


@settings(deadline=None, max_examples=200)
@given(CLASS_SIZES, st.one_of(st.floats(0.01, 0.99), st.integers(1, 120)), SEEDS)
def test_split_is_exact_stratified_and_disjoint(class_sizes, val_size, seed):
    labels = shuffled_labels(class_sizes)
    n = len(labels)
    count = int(np.ceil(val_size * n)) if val_size < 1 else val_size
    try:
        train, val = datasets.split(labels, val_size, seed)
    except datasets.DataError:
        # Only where some class has one example, or is owed less than one on either side.
        owed = np.array(class_sizes) * count / n
        assert count >= n or owed.min() < 1 or (class_sizes - owed).min() < 1
        return
    assert len(val) == count
    assert np.array_equal(np.sort(np.concatenate([train, val])), np.arange(n))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(val) > 0)
    for label, size in enumerate(class_sizes):
        held_out = (labels[val] == label).sum()
        assert abs(held_out - size * count / n) < 1
        assert 0 < held_out < size


@settings(deadline=None, max_examples=50)
@given(st.floats(0.05, 0.95), SEEDS)
def test_split_takes_as_many_of_each_class_as_scikit_learn(val_size, seed):
    labels = shuffled_labels([50, 70, 90])  # shares that leave no tie of remainders to chance
    count = int(np.ceil(val_size * len(labels)))
    remainders = [size * count % len(labels) for size in (50, 70, 90)]
    assume(len(set(remainders)) == 3)
    reference = StratifiedShuffleSplit(1, test_size=val_size, random_state=0)
    expected = next(reference.split(labels, labels))[1]
    _, val = datasets.split(labels, val_size, seed)
    assert np.array_equal(np.bincount(labels[val]), np.bincount(labels[expected]))


def test_split_depends_on_its_seed_alone():
    labels = shuffled_labels([100] * 10)
    np.random.seed(1)  # noqa: NPY002 (the global state that must not matter)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = datasets.split(labels, 0.2, seed=3)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    again = datasets.split(labels, 0.2, seed=3)
    other = datasets.split(labels, 0.2, seed=4)
    assert all(map(np.array_equal, first, again))
    assert not np.array_equal(first[1], other[1])
    # A golden value: should it ever change, every published number's validation set has too.
    assert datasets.split(np.arange(20) % 2, 6, seed=0)[1].tolist() == [2, 3, 8, 11, 13, 18]


def test_no_validation():
    train, val = datasets.split(shuffled_labels([3, 3]), 0, seed=0)
    assert train.tolist() == [0, 1, 2, 3, 4, 5]
    assert val.tolist() == []


@pytest.mark.parametrize(
    ("class_sizes", "val_size", "says"),
    [
        ([5, 5], 10, "nothing of 10 examples to train on"),
        ([5, 5], 11, "nothing of 10 examples to train on"),
        ([5, 5], 0.99, "nothing of 10 examples to train on"),
        ([5, 5], -0.1, "val_size=-0.1"),
        ([5, 5], float("nan"), "val_size=nan"),
        ([5, 5], float("inf"), "val_size=inf"),
        ([5, 5], 2.5, "val_size=2.5"),
        ([5, 5], 1, "leaves validation without the class 1 (it has 5 of 10 examples)"),
        ([50, 1], 0.5, "without the class 1 (it has 1 of 51 examples)"),
        ([50, 2], 50, "leaves training without the class 1 (it has 2 of 52 examples)"),
    ],
)
def test_split_refuses(class_sizes, val_size, says):
    with pytest.raises(datasets.DataError) as error:
        datasets.split(shuffled_labels(class_sizes), val_size, seed=0)
    assert says in message(error)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(6, 40), min_size=1, max_size=6), st.integers(2, 6), SEEDS)
def test_folds_are_stratified_and_hold_out_every_example_once(class_sizes, k, seed):
    labels = shuffled_labels(class_sizes)
    held_out = datasets.folds(labels, k, seed)
    assert len(held_out) == k
    assert np.array_equal(np.sort(np.concatenate(held_out)), np.arange(len(labels)))
    counts = np.array([np.bincount(labels[fold], minlength=len(class_sizes)) for fold in held_out])
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.ptp(counts.sum(1)) <= 1
    assert all(map(np.array_equal, held_out, datasets.folds(labels, k, seed)))


def test_folds_depend_on_the_seed():
    labels = shuffled_labels([100] * 10)
    assert not np.array_equal(datasets.folds(labels, 5, 0)[0], datasets.folds(labels, 5, 1)[0])


@pytest.mark.parametrize(
    ("class_sizes", "k", "says"),
    [([5, 5], 1, "at least 2"), ([5, 3], 4, "class 1 has 3 examples"), ([], 2, "there are 0")],
)
def test_folds_refuse(class_sizes, k, says):
    with pytest.raises(datasets.DataError) as error:
        datasets.folds(shuffled_labels(class_sizes), k, seed=0)
    assert says in message(error)


# --- names


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fasion_mnist", "did you mean 'fashion_mnist'?"),
        ("MNIST", "did you mean 'mnist'?"),
        ("digit", "did you mean 'digits'?"),
        ("kmnst", "did you mean"),
        ("csv:", "did you mean 'csv:PATH'?"),
        ("train.csv", "did you mean 'csv:PATH'?"),
        ("images:", "did you mean 'images:DIR'?"),
        ("image:shapes", "did you mean 'images:DIR'?"),
        ("tests", "did you mean 'images:DIR'?"),  # a folder
        ("emnist/leters", "letters"),
        ("mnist/letters", "the configs of mnist are: none"),
        ("", "unknown data set ''"),
        ("../mnist", "unknown data set '../mnist'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_one(name, says, tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(datasets.DataError) as error:
        datasets.check_name(name)
    assert says in message(error)
    with pytest.raises(datasets.DataError):
        datasets.load(name)


def test_known_names_pass_and_cost_no_import():
    for name in ("kmnist", "emnist/letters"):
        datasets.check_name(name)
    check = (
        "import sys; from mnist_jax.data import datasets\n"
        "for name in ('mnist', 'digits', 'csv:x.csv', 'images:x'): datasets.check_name(name)\n"
        "assert not {'tensorflow_datasets', 'sklearn', 'PIL', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


# --- digits


def test_digits_look_like_mnist(tmp_path):
    digits = datasets.load("digits", data_dir=str(tmp_path))
    assert digits.name == "digits"
    assert digits.train_images.shape == (1437, 28, 28, 1)
    assert digits.test_images.shape == (360, 28, 28, 1)
    assert digits.class_names == tuple("0123456789")
    images = np.concatenate([digits.train_images, digits.test_images])
    assert images.dtype == np.uint8
    assert images.max() == 255
    border = np.ones((28, 28), bool)
    border[4:24, 4:24] = False
    assert not images[:, border].any()
    # The box shrunk back (5x5 pixels for 2x2 scanned ones) is the scan, up to the smoothing.
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    back = images[:, 4:24, 4:24, 0].reshape(-1, 4, 5, 4, 5).mean((2, 4))
    scans = load_digits()
    small = scans.images.reshape(-1, 4, 2, 4, 2).mean((2, 4)) * 255 / 16
    for label in range(10):
        error = back[labels == label].mean(0) - small[scans.target == label].mean(0)
        assert np.abs(error).max() < 16  # of 255
    # Every class gives the test split its fifth.
    assert np.abs(np.bincount(digits.test_labels) - 0.2 * np.bincount(labels)).max() < 1


def test_digits_are_always_the_same(tmp_path):
    digits = datasets.load("digits", data_dir=str(tmp_path))
    assert (
        digits.fingerprint == "58dbd168d46120d80562a9e54a1306fc8021cc19c9c85a612e14394e949b57b2"
    ), "digits have changed: numbers measured on them before cannot be compared with new ones"


def test_digits_are_kept_and_scikit_learn_is_not_waited_for(tmp_path):
    made = datasets.load("digits", data_dir=str(tmp_path))
    code = (
        "import sys; from mnist_jax.data import datasets; "
        "print(datasets.load('digits', data_dir=sys.argv[1]).fingerprint, 'sklearn' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{made.fingerprint} False\n"


# --- the form in which a data set is stored


@pytest.fixture
def stored(tmp_path):
    """`stored(name)` -> a small data set that is kept under that name, as after reading."""

    def store(name):
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (30, 28, 28, 1), np.uint8)
        labels = np.arange(30, dtype=np.int32) % 3
        arrays = images[:20], labels[:20], images[20:], labels[20:]
        found = datasets._dataset(name, arrays, ("a", "b", "c"))
        datasets._write_cache(tmp_path / "mnist_jax" / f"{datasets.file_name(name)}.npz", found)
        return found

    return store


def upright(images):
    return np.stack([image[..., 0].T for image in images])[..., None]


@pytest.mark.parametrize(
    ("name", "transposed", "turns"),
    [
        ("emnist/letters", None, True),
        ("emnist/letters", False, False),
        ("emnist", None, True),
        ("mnist", None, False),
        ("kmnist", True, True),
    ],
)
def test_images_are_upright(stored, tmp_path, name, transposed, turns):
    kept = stored(name)
    found = datasets.load(name, datasets.Format(transposed=transposed), data_dir=str(tmp_path))
    for images, before in ((found[1], kept[1]), (found[3], kept[3])):
        np.testing.assert_array_equal(images, upright(before) if turns else before)
    assert (found.fingerprint == kept.fingerprint) == (not turns)
    assert found.train_labels.tolist() == kept.train_labels.tolist()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "digits") for name in ("mnist", "digits", "kmnist", "emnist/letters")),
        *((name, "objects") for name in ("fashion_mnist", "cifar10", "mnist_corrupted/fog")),
    ],
)
def test_the_kind_of_images_is_known_by_the_data_set(stored, tmp_path, name, kind):
    stored(name)
    assert datasets.load(name, data_dir=str(tmp_path)).kind == kind
    for other in ("digits", "objects"):
        form = datasets.Format(kind=other)
        assert datasets.load(name, form, data_dir=str(tmp_path)).kind == other


def test_classes_may_be_named(stored, tmp_path):
    stored("mnist")
    form = datasets.Format(class_names=("cat", "dog", 3))
    assert datasets.load("mnist", form, data_dir=str(tmp_path)).class_names == ("cat", "dog", "3")
    for names in (("cat", "dog"), ("cat", "dog", "cat")):
        form = datasets.Format(class_names=names)
        with pytest.raises(datasets.DataError) as error:
            datasets.load("mnist", form, data_dir=str(tmp_path))
        assert message(error) == (
            "config.data.class_names: give 3 different names, one for each class of mnist"
        )


@pytest.mark.parametrize("key", ["label_column", "pixel_max"])
def test_what_only_a_csv_has_is_refused_for_other_data(key):
    form = datasets.Format(**{key: {"label_column": "last", "pixel_max": 16}[key]})
    with pytest.raises(datasets.DataError) as error:
        datasets.load("digits", form)
    assert message(error) == f"config.data.{key}: digits has none, only csv:PATH; give None"


def test_a_name_for_files_does_not_depend_on_how_a_path_is_spelled(tmp_path, monkeypatch):
    (tmp_path / "shapes").mkdir()
    monkeypatch.chdir(tmp_path / "shapes")
    for path in (".", "../shapes", "../shapes/", f"{tmp_path}/shapes", "./../shapes/."):
        assert datasets.file_name(f"images:{path}") == "images-shapes"
    for path in ("t.csv", "./t.csv", "../shapes/t.csv", "/x/t.csv.gz"):
        assert datasets.file_name(f"csv:{path}") == "csv-t"
    assert datasets.file_name("emnist/letters") == "emnist-letters"
