"""Nearest neighbours against NumPy's whole numbers and scikit-learn; ties and duplicates too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from mnist_jax.data import datasets
from mnist_jax.models import knn

BLOCKS = knn._QUERIES, knn._REFERENCES  # as they are outside of these tests

few = settings(max_examples=25)


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Split the little data into many blocks, most of them not full."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "_QUERIES", 150)
        patch.setattr(knn, "_REFERENCES", 200)
        yield


@pytest.fixture(scope="module")
def digits():
    """Training images as rows, their labels, and test images."""
    found = datasets.load("digits")
    rows = [x.reshape(len(x), -1) for x in (found.train_images, found.test_images)]
    return rows[0], found.train_labels, rows[1]


def integers(seed, *shape, levels=256, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, levels, shape, dtype)


def all_distances(queries, references, metric):
    """Exact: whole numbers, squared if L2."""
    difference = queries[:, None].astype(np.int64) - references[None]
    return (np.abs(difference) if metric == "l1" else difference**2).sum(2)


def check(neighbours, distances, k, metric):
    """They are the first k by distance, then by index."""
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(neighbours.indices, order)
    expected = np.take_along_axis(distances, order, axis=1).astype(np.float64)
    expected = expected if metric == "l1" else np.sqrt(expected)
    np.testing.assert_allclose(neighbours.distances, expected, rtol=3e-7)


@pytest.mark.parametrize("metric", ["l1", "l2"])
@few
@given(st.sampled_from([2, 3, 256]), st.integers(0, 99))
def test_neighbours_are_exact_and_the_first_of_equals(metric, levels, seed):
    # Of few levels there are many ties, and of the repeated references nothing but ties.
    queries = integers(seed, 160, 5, levels=levels)
    references = np.tile(integers(seed + 1, 111, 5, levels=levels), (4, 1))
    shaped = (x.reshape(-1, 5, 1, 1) for x in (queries, references))
    neighbours = knn.nearest(*shaped, 6, metric=metric)
    check(neighbours, all_distances(queries, references, metric), 6, metric)


@pytest.mark.parametrize(("metric", "count"), [("l1", 33), ("l2", 201)])
def test_all_references_may_be_neighbours(metric, count):
    queries, references = integers(0, 3, 4, levels=4), integers(1, count, 4, levels=4)
    neighbours = knn.nearest(queries, references, count, metric=metric)
    check(neighbours, all_distances(queries, references, metric), count, metric)


@pytest.mark.parametrize(
    ("metric", "pixels", "levels"),
    [("l1", 784, 512), ("l2", 784, 256), ("l2", 784, 512), ("l2", 3072, 256)],
)
def test_exact_to_the_last_grey_level_at_the_largest_distances(metric, pixels, levels):
    top = levels - 1
    ends = np.array([0, 1, top - 1, top], np.int16)
    queries = ends[integers(0, 20, pixels, levels=4)]
    queries[0] = 0
    references = np.repeat(top - queries, 2, axis=0)
    references[::2, 5] = np.clip(references[::2, 5], 1, top - 1)  # every other one a level nearer
    neighbours = knn.nearest(queries, references, 40, metric=metric, levels=levels)
    check(neighbours, all_distances(queries, references, metric), 40, metric)


@few
@given(st.integers(0, 99))
def test_neighbours_of_other_groups(seed):
    images = integers(seed, 333, 4, levels=3)
    groups = integers(seed + 1, 333, levels=4, dtype=np.int32)
    neighbours = knn.nearest(images, images, 5, groups=(groups, groups))
    distances = all_distances(images, images, "l2")
    distances[groups[:, None] == groups[None]] = 10**6
    check(neighbours, distances, 5, "l2")


def test_where_there_is_no_more_the_distance_is_infinite():
    images, groups = integers(0, 5, 4), np.array([0, 0, 0, 0, 1], np.int32)
    neighbours = knn.nearest(images, images, 3, groups=(groups, groups))
    assert np.isinf(neighbours.distances).sum(1).tolist() == [2, 2, 2, 2, 0]
    assert neighbours.indices[:4, 0].tolist() == [4] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 11}, "k=11: must be 1 to 10, the number of references"),
        ({"k": 0}, "k=0"),
        ({"k": 1, "levels": 513}, "513 levels"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    images = integers(0, 10, 4)
    with pytest.raises(ValueError, match=message):
        knn.nearest(images, images, **arguments)
    with pytest.raises(ValueError, match="distances exceed int32"):
        knn.nearest(integers(0, 1, 200 * 200), integers(0, 1, 200 * 200), 1)


@pytest.mark.parametrize(
    ("metric", "queries", "references"),
    [("l2", 60_000, 60_000), ("l1", 10_000, 300_000)],
)
def test_memory_is_bounded(monkeypatch, metric, queries, references):
    monkeypatch.setattr(knn, "_QUERIES", BLOCKS[0])
    monkeypatch.setattr(knn, "_REFERENCES", BLOCKS[1])
    shapes = [jax.ShapeDtypeStruct((n, 28, 28, 1), np.uint8) for n in (queries, references)]
    program = knn.nearest.lower(*shapes, 10, metric=metric).compile().memory_analysis()
    arguments = program.argument_size_in_bytes
    assert arguments == (queries + references) * 784
    assert program.temp_size_in_bytes < arguments + 100e6


@pytest.mark.parametrize("weights", knn.WEIGHTS)
@pytest.mark.parametrize("k", [1, 5])
def test_vote_is_scikit_learns(digits, weights, k):
    images, labels, queries = digits
    classifier = KNeighborsClassifier(k, weights=weights, algorithm="brute")
    expected = classifier.fit(images.astype(np.float64), labels).predict(queries)
    neighbours = knn.first(knn.nearest(queries, images, 5), k)
    np.testing.assert_array_equal(knn.vote(neighbours, labels, 10, weights), expected)


@pytest.mark.parametrize("weights", knn.WEIGHTS)
def test_labels_of_several_outputs_are_voted_on_one_by_one(digits, weights):
    images, labels, queries = digits
    several = np.stack([labels >= 7, labels % 2 == 1], axis=1).astype(np.int32)
    classifier = KNeighborsClassifier(4, weights=weights, algorithm="brute")
    expected = classifier.fit(images.astype(np.float64), several).predict(queries)
    neighbours = knn.nearest(queries, images, 4)
    np.testing.assert_array_equal(knn.vote(neighbours, several, 2, weights), expected)


@pytest.mark.parametrize("weights", knn.WEIGHTS)
def test_average_is_scikit_learns_regression(digits, weights):
    images, _, queries = digits
    noisy = images.astype(np.int16) + integers(0, *images.shape, levels=100)
    regressor = KNeighborsRegressor(5, weights=weights, algorithm="brute")
    expected = regressor.fit(noisy.astype(np.float64), images).predict(queries)
    neighbours = knn.nearest(queries.astype(np.int16), noisy, 5, levels=355)
    shaped = images.reshape(-1, 28, 28, 1)
    ours = knn.average(neighbours, shaped, weights)
    np.testing.assert_allclose(ours.reshape(len(ours), -1), expected, atol=1e-4)


def neighbours(distances):
    distances = jnp.asarray([distances], jnp.float32)
    return knn.Neighbours(distances, jnp.arange(distances.shape[1], dtype=jnp.int32)[None])


def test_who_is_not_there_has_no_vote():
    """A query may have fewer neighbours of other groups than were asked for."""
    images = np.zeros((3, 4), np.uint8)
    groups = np.array([0]), np.array([0, 0, 1])
    found = knn.nearest(images[:1], images, 3, groups=tuple(map(jnp.asarray, groups)))
    assert found.distances.tolist() == [[0.0, np.inf, np.inf]]
    labels = jnp.asarray([1, 1, 0])
    for weights in knn.WEIGHTS:
        assert knn.vote(found, labels, 2, weights).tolist() == [0]
        assert knn.average(found, labels, weights).tolist() == [0.0]


def test_nothing_asked_is_nothing_found():
    images = np.zeros((3, 4), np.uint8)
    found = knn.nearest(images[:0], images, 2)
    assert found.distances.shape == found.indices.shape == (0, 2)


def test_exact_matches_take_all():
    labels = jnp.asarray([2, 1, 0, 0, 0])
    found = neighbours([0, 0, 1e-6, 1e-6, 1e-6])
    assert knn.vote(found, labels, 3, "uniform").tolist() == [0]
    assert knn.vote(found, labels, 3, "distance").tolist() == [1]  # the first of equals
    assert knn.average(found, labels, "distance").tolist() == [1.5]


def test_the_first_of_equal_classes_wins():
    found = neighbours([1, 2, 2, 1])
    for weights in knn.WEIGHTS:
        assert knn.vote(found, jnp.asarray([3, 3, 1, 1]), 4, weights).tolist() == [1]
        assert knn.vote(found, jnp.asarray([[1], [1], [0], [0]]), 2, weights).tolist() == [[0]]


def test_cross_validation_is_scikit_learns_grid_search(digits):
    images, labels = digits[0][:400], digits[1][:400]
    folds = np.empty(len(labels), np.int32)
    for number, held_out in enumerate(datasets.folds(labels, 5, seed=0)):
        folds[held_out] = number
    search = GridSearchCV(
        KNeighborsClassifier(algorithm="brute"),
        {"n_neighbors": [3, 4], "weights": ["uniform", "distance"]},
        cv=PredefinedSplit(folds),
        refit=False,
    )
    search.fit(images.astype(np.float64), labels)
    scores = knn.cross_validate(images, labels, folds, [3, 4], 10)
    settings = [(p["n_neighbors"], p["weights"]) for p in search.cv_results_["params"]]
    assert list(scores) == settings
    for fold in range(5):
        expected = search.cv_results_[f"split{fold}_test_score"]
        np.testing.assert_allclose([scores[s][fold] for s in settings], expected, rtol=1e-12)


@pytest.mark.parametrize("weights", knn.WEIGHTS)
def test_scores_out_of_fold_are_scikit_learns(weights):
    images, labels = integers(0, 40, 16), integers(1, 40, levels=4, dtype=np.int32)
    folds = np.arange(40, dtype=np.int32) % 3
    neighbours = knn.out_of_fold(images, folds, 5)
    assert (folds[neighbours.indices] != folds[:, None]).all()
    model = KNeighborsClassifier(5, weights=weights, algorithm="brute")
    expected = cross_val_predict(
        model, images.astype(np.float64), labels, cv=PredefinedSplit(folds), method="predict_proba"
    )
    shares = knn.average(neighbours, jax.nn.one_hot(labels, 4), weights)
    np.testing.assert_allclose(shares, expected, rtol=1e-5, atol=1e-6)


def test_cross_validation_wants_enough_examples_outside_of_a_fold():
    images, labels = integers(0, 10, 4), integers(1, 10, levels=3, dtype=np.int32)
    folds = np.array([0] * 6 + [1] * 4, np.int32)
    assert len(knn.cross_validate(images, labels, folds, [1, 4], 3)) == 4
    for ks, message in (
        ([1, 5], "must be 1 to 4, the number of examples outside a fold"),
        ([0, 4], "1 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            knn.cross_validate(images, labels, folds, ks, 3)
