"""Metrics against scikit-learn, and against loops a reader can check by eye."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from mnist_jax.analysis import metrics
from mnist_jax.analysis.metrics import Metrics

few = settings(max_examples=30)
classification = jax.jit(metrics.classification, static_argnames="num_bins")


@st.composite
def splits(draw, ties=True):
    """Logits and labels; with few examples many classes are absent from one, the other or both."""
    k = draw(st.sampled_from((2, 5, 12)))  # few shapes, so that few programs are compiled
    n = draw(st.sampled_from((1, 30)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from((0.1, 1.0, 10.0)))
    logits = rng.normal(size=(n, k)).astype(np.float32) * np.float32(scale)
    if ties and draw(st.booleans()):
        logits = np.round(logits)
    labels = rng.choice(k, size=n) if draw(st.booleans()) else np.full(n, rng.choice(k))
    return jnp.asarray(logits), jnp.asarray(labels, jnp.int32)


def probabilities(logits):
    shifted = np.float64(logits) - np.float64(logits).max(axis=1, keepdims=True)
    return np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)


def loop_ece(logits, labels, num_bins):
    """Guo et al. 2017, equation 3, bin after bin."""
    p = probabilities(logits)
    confidence, correct = p.max(axis=1), np.argmax(logits, axis=1) == labels
    total = 0.0
    for m in range(num_bins):
        inside = (confidence > m / num_bins) & (confidence <= (m + 1) / num_bins)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            total += inside.sum() / len(labels) * gap
    return total


@few
@given(splits())
def test_scores_are_scikit_learns(split):
    logits, labels = split
    k = logits.shape[1]
    report = classification(logits, labels)
    predictions = np.argmax(logits, axis=1)  # the first of equal logits
    confusion = sklearn_metrics.confusion_matrix(labels, predictions, labels=np.arange(k))
    np.testing.assert_array_equal(report.confusion, confusion)
    assert report.confusion.dtype == jnp.int32
    assert report.errors == np.sum(predictions != np.asarray(labels))
    np.testing.assert_allclose(report.accuracy, np.mean(predictions == labels), rtol=1e-6)

    scores = partial(
        sklearn_metrics.precision_recall_fscore_support, labels, predictions, zero_division=0
    )
    *per_class, support = scores(average=None, labels=np.arange(k))
    np.testing.assert_array_equal(report.support, support)
    for ours, theirs in (
        (report.per_class, per_class),
        (report.macro, scores(average="macro")[:3]),
        (report.weighted, scores(average="weighted")[:3]),
    ):
        np.testing.assert_allclose(np.stack(ours), np.stack(theirs), rtol=1e-5, atol=1e-7)


@few
@given(splits(ties=False))
def test_top2_and_loss_are_scikit_learns(split):
    logits, labels = split
    k = logits.shape[1]
    assume(probabilities(logits).min() > 1e-15)  # scikit-learn clips what is smaller
    report = classification(logits, labels)
    loss = sklearn_metrics.log_loss(labels, probabilities(logits), labels=np.arange(k))
    np.testing.assert_allclose(report.loss, loss, rtol=1e-4, atol=1e-6)
    if k > 2:  # with two classes top 2 is certain, and scikit-learn wants one column
        top2 = sklearn_metrics.top_k_accuracy_score(labels, logits, k=2, labels=np.arange(k))
    else:
        top2 = 1
    np.testing.assert_allclose(report.top2_accuracy, top2, rtol=1e-6)


@few
@given(splits())
def test_ties_go_to_the_first_classes(split):
    logits, labels = split
    best = np.argsort(-np.asarray(logits), axis=1, kind="stable")[:, :2]
    top2 = (best == np.asarray(labels)[:, None]).any(axis=1).mean()
    np.testing.assert_allclose(classification(logits, labels).top2_accuracy, top2, rtol=1e-6)


@pytest.mark.parametrize("num_bins", [4, 15])
@few
@given(splits())
def test_calibration_error_is_the_loops(num_bins, split):
    logits, labels = split
    logits, labels = np.asarray(logits), np.asarray(labels)
    confidence = probabilities(logits).max(axis=1)
    edges = np.arange(1, num_bins) / num_bins
    # Rounding may put a confidence that is all but on an edge in either bin.
    assume(np.abs(confidence[:, None] - edges).min(initial=1) > 1e-6)
    report = classification(*split, num_bins=num_bins)
    np.testing.assert_allclose(report.ece, loop_ece(logits, labels, num_bins), atol=1e-5)

    bins = jax.tree.map(np.asarray, report.reliability)
    correct = np.argmax(logits, axis=1) == labels
    assert bins.examples.sum() == len(labels)
    for m in range(num_bins):
        inside = (confidence > m / num_bins) & (confidence <= (m + 1) / num_bins)
        assert bins.examples[m] == inside.sum()
        mean = (confidence[inside].mean(), correct[inside].mean()) if inside.any() else (0, 0)
        np.testing.assert_allclose((bins.confidence[m], bins.accuracy[m]), mean, atol=1e-5)


def test_minus_zero_ties_with_zero():
    report = classification(jnp.array([[-0.0, 0.0, -1.0]] * 3), jnp.array([0, 1, 2]))
    np.testing.assert_array_equal(report.confusion, [[1, 0, 0], [1, 0, 0], [1, 0, 0]])
    assert report.top2_accuracy == pytest.approx(2 / 3)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    report = classification(jnp.zeros((3, 2)), jnp.array([0, 0, 1]), num_bins=2)
    np.testing.assert_array_equal(report.reliability.examples, [3, 0])


def test_calibration_error_by_hand():
    # Confidence 0.8 four times, right twice: |2/4 - 0.8|.
    logits = jnp.log(jnp.broadcast_to(jnp.array([[0.8, 0.1, 0.1]]), (4, 3)))
    report = classification(logits, jnp.array([0, 0, 1, 2]))
    np.testing.assert_allclose(report.ece, 0.3, rtol=1e-5)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_logits_stay_exact(size):
    logits = jnp.array([[size, -size, 0.0], [-size, 0.0, size]])
    report = classification(logits, jnp.array([0, 1]))
    assert report.loss == pytest.approx(size / 2)
    assert report.accuracy == 0.5
    assert report.ece == 0.5
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(report))


def test_every_example_counts_at_full_size():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(10_000, 10)), jnp.float32)
    labels = jnp.asarray(rng.choice(10, size=10_000), jnp.int32)
    report = classification(logits, labels)
    assert report.accuracy == np.float32(1 - np.float64(report.errors) / 10_000)
    assert report.confusion.sum() == report.support.sum() == 10_000
    assert report.errors == 10_000 - jnp.trace(report.confusion)
    expected = sklearn_metrics.log_loss(labels, probabilities(logits))
    np.testing.assert_allclose(report.loss, expected, rtol=1e-6)


def test_small_label_dtypes_are_understood():
    logits = jnp.eye(4)
    a, b = (classification(logits, jnp.arange(4, dtype=t)) for t in (jnp.uint8, jnp.int32))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_vmap_is_a_loop():
    logits = jax.random.normal(jax.random.key(0), (3, 50, 7))
    labels = jax.random.randint(jax.random.key(1), (50,), 0, 7)
    together = jax.jit(jax.vmap(metrics.classification, in_axes=(0, None)))(logits, labels)
    loop = jax.tree.map(lambda *x: np.stack(x), *[classification(x, labels) for x in logits])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), together, loop)


def test_traces_once():
    traces = 0

    @jax.jit
    def run(logits, labels):
        nonlocal traces
        traces += 1
        return metrics.classification(logits, labels)

    for seed in range(3):
        logits = jax.random.normal(jax.random.key(seed), (8, 3))
        run(logits, jnp.full(8, seed))
    assert traces == 1


def sums(logits, labels):
    """The sums of one batch, from NumPy."""
    losses = -np.log(probabilities(logits)[np.arange(len(labels)), labels])
    correct = np.argmax(logits, axis=1) == labels
    return Metrics(f32(losses.sum()), i32(correct.sum()), i32(len(labels)))


def f32(x):
    return jnp.asarray(x, jnp.float32)


def i32(x):
    return jnp.asarray(x, jnp.int32)


@few
@given(splits(), st.sampled_from((0, 1, 17, 30)))
def test_merge_is_the_metrics_of_the_concatenation(split, cut):
    logits, labels = map(np.asarray, split)
    merged = metrics.merge(sums(logits[:cut], labels[:cut]), sums(logits[cut:], labels[cut:]))
    assert [x.dtype for x in merged] == [jnp.float32, jnp.int32, jnp.int32]
    report = classification(*split)
    assert int(merged.correct) == merged.examples - report.errors
    np.testing.assert_allclose(
        float(merged.loss) / int(merged.examples), report.loss, rtol=1e-4, atol=1e-6
    )


def test_zeros_start_a_scan():
    parts = Metrics(jnp.arange(3.0), jnp.array([1, 0, 2]), jnp.array([2, 2, 2]))
    total, _ = jax.lax.scan(lambda a, b: (metrics.merge(a, b), None), metrics.zeros(), parts)
    assert tuple(map(float, total)) == (3.0, 3, 6)


def test_to_python_is_json_with_every_number_in_its_place():
    logits = jax.random.normal(jax.random.key(0), (30, 3))
    labels = jax.random.randint(jax.random.key(1), (30,), 0, 3)
    report = classification(logits, labels)
    plain = metrics.to_python(report, ["a", "b", "c"])
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    for name in ("loss", "accuracy", "errors", "top2_accuracy", "ece"):
        assert plain[name] == pytest.approx(float(getattr(report, name)))
    assert isinstance(plain["errors"], int)
    assert plain["confusion_matrix"] == np.asarray(report.confusion).tolist()
    assert [x["name"] for x in plain["per_class"]] == ["a", "b", "c"]
    assert [x["support"] for x in plain["per_class"]] == np.asarray(report.support).tolist()
    for i, row in enumerate(plain["per_class"]):
        for name in ("precision", "recall", "f1"):
            assert row[name] == pytest.approx(float(getattr(report.per_class, name)[i]))
    for average in ("macro", "weighted"):
        expected = {k: float(v) for k, v in getattr(report, average)._asdict().items()}
        assert plain[average] == pytest.approx(expected)
    assert len(plain["reliability"]) == 15
    assert plain["reliability"][-1]["high"] == 1
    assert sum(x["count"] for x in plain["reliability"]) == 30


def test_to_python_writes_short_decimals_and_none_for_what_is_not_finite():
    labels = jnp.zeros(10, jnp.int32)
    plain = metrics.to_python(classification(jnp.eye(10), labels), [str(i) for i in range(10)])
    assert plain["accuracy"] == 0.1  # not 0.10000000149011612
    broken = classification(jnp.full((2, 2), jnp.nan), jnp.array([0, 1]))
    plain = metrics.to_python(broken, ["a", "b"])
    assert plain["loss"] is None
    assert plain["ece"] is None
    json.dumps(plain, allow_nan=False)


def test_to_python_wants_a_name_for_each_class():
    report = classification(jnp.eye(3), jnp.arange(3))
    with pytest.raises(ValueError, match="zip"):
        metrics.to_python(report, ["a", "b"])


def test_classes_that_neither_occur_nor_are_predicted_are_left_out_of_averages():
    """Data of 3s and 7s alone, all right."""
    labels = jnp.asarray([3, 7, 7, 3])
    report = classification(jax.nn.one_hot(labels, 10), labels)
    assert [float(x) for x in (*report.macro, *report.weighted)] == [1.0] * 6
    wrong = classification(jax.nn.one_hot(jnp.asarray([3, 7, 7, 5]), 10), labels)
    assert float(wrong.macro.f1) == pytest.approx((2 / 3 + 1 + 0) / 3)


@few
@given(st.integers(0, 2**32 - 1))
def test_scores_of_labels_are_scikit_learns(seed):
    """There a label that neither occurs nor is predicted counts as 0."""
    rng = np.random.default_rng(seed)
    truth, said = (rng.random((2, 9, 4)) < rng.random((2, 1, 4))).astype(np.int32)
    truth[:, 0] = said[:, 0] = 0
    report = metrics.multilabel(jnp.asarray(said > 0), jnp.asarray(truth), f32(0))
    for ours, average in ((report.macro, "macro"), (report.weighted, "weighted")):
        theirs = sklearn_metrics.precision_recall_fscore_support(
            truth, said, average=average, zero_division=0
        )
        np.testing.assert_allclose(np.stack(ours), theirs[:3], rtol=1e-5, atol=1e-7)
    assert float(metrics.macro_f1(jnp.asarray(said > 0), jnp.asarray(truth > 0))) == pytest.approx(
        sklearn_metrics.f1_score(truth, said, average="macro", zero_division=0), rel=1e-5
    )


def test_scores_of_a_confusion_matrix_are_scikit_learns():
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 4, (2, 200))
    truth[truth == 3] = 0  # a class that is never there
    found = metrics.of_confusion(sklearn_metrics.confusion_matrix(truth, said, labels=range(4)))
    told = sklearn_metrics.classification_report(
        truth, said, labels=range(4), output_dict=True, zero_division=0
    )
    for ours, rows in zip(
        found, (["0", "1", "2", "3"], ["macro avg"], ["weighted avg"]), strict=True
    ):
        for key, values in zip(("precision", "recall", "f1-score"), ours, strict=True):
            expected = [told[row][key] for row in rows]
            np.testing.assert_allclose(np.atleast_1d(values), expected, rtol=1e-5)
