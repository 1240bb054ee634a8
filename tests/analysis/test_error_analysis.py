"""Where a model errs: indices and shares against scikit-learn and plain loops."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from mnist_jax.analysis import error_analysis


def made(n=300, classes=4, seed=0):
    """Logits that are right most of the time, and the true classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n).astype(np.int32)
    logits = rng.normal(size=(n, classes)) + 2 * np.eye(classes)[labels]
    return logits.astype(np.float32), labels


def softmax(logits):
    shifted = np.exp(logits.astype(np.float64))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_saturated_probabilities_are_still_ordered():
    logits = np.array([[100, 0, 0], [300, 0, 0], [0, 50, 0], [0, 200, 0]], np.float32)
    decisions = error_analysis.decide(logits)
    np.testing.assert_array_equal(decisions.confidence, 1.0)
    assert error_analysis.worst_mistakes(decisions, np.full(4, 2, np.int32)).tolist() == [
        1,
        3,
        0,
        2,
    ]


def test_a_gallery_holds_one_pair_the_surest_first():
    logits, labels = made()
    decisions, predicted = error_analysis.decide(logits), logits.argmax(1)
    confidence = softmax(logits).max(1)
    assert confusion_matrix(labels, predicted).min() > 0
    for actual, seen in np.ndindex(4, 4):
        found = error_analysis.gallery(decisions, labels, actual, seen).tolist()
        expected = [i for i in range(300) if (labels[i], predicted[i]) == (actual, seen)]
        assert found == sorted(expected, key=lambda i: -confidence[i])


def test_the_most_ambiguous_have_the_smallest_margin():
    logits, _ = made()
    probabilities = softmax(logits)
    ordered = np.sort(probabilities, axis=1)
    margins = ordered[:, -1] - ordered[:, -2]
    found = error_analysis.most_ambiguous(probabilities, 20)
    np.testing.assert_array_equal(margins[found], np.sort(margins)[:20])


def test_shares_are_those_of_scikit_learn_without_the_diagonal():
    logits, labels = made()
    truth, predicted = labels, logits.argmax(1)
    expected = confusion_matrix(truth, predicted, normalize="true")
    np.fill_diagonal(expected, 0)
    shares = error_analysis.confusion_shares(confusion_matrix(truth, predicted))
    np.testing.assert_allclose(shares, expected, rtol=1e-12)
    assert not error_analysis.confusion_shares(np.zeros((3, 3), int)).any()


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_the_most_confused_are_so_both_ways_together(seed, classes):
    matrix = np.random.default_rng(seed).integers(0, 5, (classes, classes))
    found = error_analysis.most_confused(matrix)
    pairs = list(itertools.combinations(range(classes), 2))
    together = [matrix[a, b] + matrix[b, a] for a, b in pairs]
    assert found == (pairs[int(np.argmax(together))] if any(together) else None)
    assert error_analysis.most_confused(np.diag(np.diag(matrix))) is None


def suspects_by_loop(probabilities, labels):
    """Northcutt et al. 2021, equations 1 and 2, as they are written."""
    n = len(labels)
    threshold = {k: probabilities[labels == k, k].mean() for k in set(labels.tolist())}
    found = {}
    for i in range(n):
        claims = [k for k in threshold if probabilities[i, k] >= threshold[k] - 1e-12]
        best = max(claims, key=lambda k: probabilities[i, k], default=labels[i])
        if best != labels[i]:
            found[i] = best
    return found


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 40))
def test_suspects_are_those_of_the_definition(seed, classes, n):
    logits, labels = made(n, classes, seed)
    labels = (labels * (seed % 2)).astype(np.int32)  # half of the time all of one class
    probabilities = softmax(logits)
    found = error_analysis.suspects(probabilities, labels)
    expected = suspects_by_loop(probabilities, labels)
    assert dict(zip(found.indices.tolist(), found.suggested.tolist(), strict=True)) == expected
    assert (np.diff(found.margin) >= 0).all()
    own = probabilities[found.indices, labels[found.indices]]
    np.testing.assert_array_equal(found.margin, own - probabilities[found.indices, found.suggested])


def test_planted_wrong_labels_are_found():
    digits = load_digits()
    planted = np.random.default_rng(0).choice(len(digits.target), 20, replace=False)
    labels = digits.target.astype(np.int32)
    labels[planted] = (labels[planted] + 5) % 10
    model = QuadraticDiscriminantAnalysis(reg_param=0.1)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    out_of_fold = cross_val_predict(
        model, digits.data / 16, labels, cv=folds, method="predict_proba"
    )
    found = error_analysis.suspects(out_of_fold, labels)
    suggested = dict(zip(found.indices[:20].tolist(), found.suggested[:20], strict=True))
    recovered = [i for i in planted.tolist() if suggested.get(i) == digits.target[i]]
    assert len(recovered) >= 17  # of the 20 most suspect of 1,797
