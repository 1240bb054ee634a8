"""The report's thresholds: chosen on validation, judged on the test split."""

import re

import numpy as np
import pytest
from pages import Page
from reports import make_run, render
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from mnist_jax.analysis import thresholds


def test_thresholds_are_chosen_on_validation_and_judged_on_the_test_split():
    run = make_run(["no", "yes"], 500, seed=1)
    rng = np.random.default_rng(5)
    val_labels = rng.integers(0, 2, 300).astype(np.int32)
    val_logits = (rng.normal(size=(300, 2)) + 2 * np.eye(2)[val_labels]).astype(np.float32)
    run["inside"] = run["inside"]._replace(validation=(val_logits, val_labels))
    section = render(run).partition("Thresholds</h2>")[2].partition("</section>")[0]
    scores, val_scores = (np.diff(logits)[:, 0] for logits in (run["logits"], val_logits))
    expected = [0.0]
    for choose in (thresholds.at_precision, thresholds.at_recall):
        expected.append(choose(val_scores.astype(np.float64), val_labels, 0.9))
    rows = re.findall(r'<tr.*?><th scope="row">(.*?)</th>(.*?)</tr>', section)
    assert len(rows) == 3
    for (_, cells), threshold in zip(rows, expected, strict=True):
        called = scores >= threshold
        assert [cell.removesuffix("%") for cell in re.findall(">([^<]+)</td>", cells)] == [
            f"{100 / (1 + np.exp(-threshold)):.2f}",
            f"{100 * precision_score(run['labels'], called):.2f}",
            f"{100 * recall_score(run['labels'], called):.2f}",
            f"{(called & (run['labels'] == 0)).sum()} of {(run['labels'] == 0).sum()}",
        ]
    assert f"{roc_auc_score(run['labels'], scores):.2%}" in section


def test_a_goal_out_of_reach_is_said_to_be():
    run = make_run(["no", "yes"], 100)
    never = np.array([[0, 1], [0, 2]], np.float32), np.array([1, 0], np.int32)
    run["inside"] = run["inside"]._replace(validation=never)
    text = Page(render(run)).text
    assert "90% precision on validation no threshold reaches it" in text
    assert "90% recall on validation" in text


@pytest.mark.parametrize("case", ["three classes", "one class in the test split", "diverged"])
def test_no_thresholds_where_there_is_nothing_to_choose(case):
    run = make_run(["a", "b", "c"] if case == "three classes" else ["a", "b"], 50)
    if case == "diverged":
        run["logits"] = np.full_like(run["logits"], np.nan)
    if case == "one class in the test split":
        run["labels"] = np.zeros_like(run["labels"])
    assert "Thresholds</h2>" not in render(run)
