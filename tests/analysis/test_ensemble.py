"""Committees against loops in Python."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_jax.analysis import ensemble


def some(members, n=40, classes=4, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (members, n, classes)).astype(np.float32)


@pytest.mark.parametrize("members", [1, 2, 5])
def test_each_rule_is_what_it_says(members):
    logits = some(members)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_allclose(
        np.exp(ensemble.mean_probabilities(logits)), p.mean(0), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(ensemble.mean_logits(logits), logits.mean(0), rtol=1e-5, atol=1e-6)
    votes = logits.argmax(-1)
    for i, decision in enumerate(ensemble.vote(logits).argmax(-1)):
        count = collections.Counter(votes[:, i].tolist())
        tied = [k for k in count if count[k] == max(count.values())]
        assert decision == max(tied, key=lambda k: p[:, i, k].mean())


@given(st.integers(0, 1000), st.integers(2, 6))
def test_the_order_of_members_does_not_matter(seed, members):
    logits = some(members, seed=seed)
    for rule in ensemble.RULES.values():
        same = (rule(logits).argmax(-1) == rule(logits[::-1]).argmax(-1)).mean()
        assert same == 1


def test_probabilities_of_sure_members_stay_finite():
    logits = np.array([[[1e4, -1e4]], [[-1e4, 1e4]]], np.float32)
    assert np.isfinite(ensemble.mean_probabilities(logits)).all()


def test_independent_members_gain_with_their_number():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    logits = 0.8 * np.eye(4, dtype=np.float32)[labels] + rng.normal(0, 1, (15, 500, 4))
    rows = ensemble.by_size(logits.astype(np.float32), labels, [1, 3, 15])
    means = [np.mean(row["accuracies"]) for row in rows]
    assert means[0] + 0.1 < means[1] < means[2] - 0.1
    assert [len(row["accuracies"]) for row in rows] == [15, 20, 1]
    alone = (logits.argmax(-1) == labels).mean(-1)
    np.testing.assert_allclose(rows[0]["accuracies"], alone)
    all_of_them = ensemble.accuracies(logits.astype(np.float32), labels)
    assert rows[2]["accuracies"] == [all_of_them["mean of probabilities"]]
