"""What a run of many members says of its committee."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss
from test_metrics import loop_ece, probabilities

from mnist_jax.analysis import metrics, stats
from mnist_jax.runs import members_results

MEMBERS, N, CLASSES = 4, 300, 5


@pytest.fixture(scope="module")
def some():
    """Members that are too sure of themselves."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, N).astype(np.int32)
    logits = 3 * np.eye(CLASSES)[labels] + 3 * rng.normal(size=(MEMBERS, N, CLASSES))
    return logits.astype(np.float32), labels


def test_a_committee_is_judged_by_its_mean_probabilities(some):
    logits, labels = some
    found = members_results.judge_committee(logits, labels, True)
    mean = np.mean([probabilities(one) for one in logits], axis=0)
    assert found["members"] == MEMBERS
    assert found["nll"] == pytest.approx(log_loss(labels, mean), rel=1e-5)
    assert found["ece"] == pytest.approx(loop_ece(np.log(mean), labels, 15), abs=1e-5)
    alone = [log_loss(labels, probabilities(one)) for one in logits]
    assert found["nll_of_members"] == pytest.approx(np.mean(alone), rel=1e-5)
    assert found["nll"] < found["nll_of_members"]  # by Jensen's inequality
    assert sum(row["count"] for row in found["reliability"]) == N
    right = sum(row["count"] * row["accuracy"] for row in found["reliability"])
    assert right == pytest.approx(N * found["test_accuracy"]["mean of probabilities"], rel=1e-5)


def test_scores_that_are_no_probabilities_are_not_calibrated(some):
    found = members_results.judge_committee(*some, False)
    assert found["test_accuracy"] == members_results.judge_committee(*some, True)["test_accuracy"]
    for key in ("nll", "nll_of_members", "ece", "reliability"):
        assert found[key] is None


def test_pooled_diagrams_are_those_of_all_predictions(some):
    logits, labels = some

    def diagram(logits, labels):
        report = metrics.classification(jnp.asarray(logits), jnp.asarray(labels))
        return metrics.to_python(report, list("abcde"))["reliability"]

    pooled = members_results.pool([diagram(one, labels) for one in logits])
    whole = diagram(logits.reshape(-1, CLASSES), np.tile(labels, MEMBERS))
    assert len(pooled) == len(whole) == 15
    for ours, theirs in zip(pooled, whole, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_outer_folds_are_described():
    rows = [{"fold": i, "accuracy": value} for i, value in enumerate((0.9, 0.92, 0.94))]
    found = members_results.describe_outer(rows)
    assert found["folds"] == rows
    assert found["accuracy"]["mean"] == pytest.approx(0.92)
    assert found["accuracy"]["n"] == 3


def test_settings_are_held_against_the_chosen_one_pair_by_pair():
    """Over the seeds and folds that did not diverge in either."""
    accuracies = {
        (0, 0): 0.90,
        (0, 1): 0.92,
        (0, 2): 0.93,
        (1, 0): 0.93,
        (1, 1): 0.94,
        (1, 2): 0.97,
    }
    rows = [
        {"setting": s, "seed": 0, "fold": f, "status": "finished", "val_accuracy": accuracy}
        for (s, f), accuracy in accuracies.items()
    ]
    rows.append({**rows[0], "seed": 1, "status": "diverged", "val_accuracy": None})
    rows.append({**rows[3], "seed": 1, "val_accuracy": 0.5})
    rows.append({**rows[0], "setting": 2, "status": "diverged", "val_accuracy": None})
    described = [{"setting": i} for i in range(3)]
    first, chosen, lost = members_results.beside_chosen(rows, described, 1)
    expected = stats.paired([0.93, 0.94, 0.97], [0.90, 0.92, 0.93], range(3))
    assert first == {"setting": 0, "beside_chosen": expected._asdict()}
    assert first["beside_chosen"]["low"] < -0.03 < first["beside_chosen"]["high"]
    assert chosen["beside_chosen"] is None is lost["beside_chosen"]
    alone = [{**row, "fold": None} for row in rows if row["fold"] == 0 and not row["seed"]]
    found = members_results.beside_chosen(alone, described, 1)[0]["beside_chosen"]
    assert found["difference"] == pytest.approx(-0.03)
    assert found["low"] is None


def setting(mean, diverged=0, dropped=False):
    """Of three members."""
    accuracy = {"mean": mean} if diverged < 3 else None
    return {"members": 3, "diverged": diverged, "dropped": dropped, "val_accuracy": accuracy}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (setting(0.9), setting(0.8)),
        (setting(0.8), setting(0.9, diverged=1)),
        # Halving has decided between these two already.
        (setting(0.8), setting(0.9, dropped=True)),
        (setting(0.8, diverged=1), setting(0.9, dropped=True)),
        # Of whom nobody is left nothing can be judged.
        (setting(0.8, dropped=True), setting(0.9, diverged=3)),
        (setting(0.8, diverged=1, dropped=True), setting(0.9, diverged=3)),
    ],
)
def test_the_best_setting_came_to_its_end(better, worse):
    assert members_results.rank(better) > members_results.rank(worse)


def test_the_choice_of_validation_in_a_line():
    rows = [
        {
            "setting": setting,
            "overrides": {"model.dropout": dropout},
            "seed": seed,
            "fold": None,
            "status": "finished",
            "val_accuracy": 0.9 + 0.005 * setting + 0.001 * seed,
        }
        for setting, dropout in enumerate((0.0, 0.2))
        for seed in range(3)
    ]
    described = members_results.describe_settings(rows)
    line = members_results.choice(described, 1, folds=0)
    assert line == "best of 2 settings by validation: dropout 0.2: accuracy 90.60% ± 0.10"
    assert members_results.choice(described[:1], 0, folds=0) == ""
    line = members_results.choice(described[:1], 0, folds=5)
    assert line == "5 held-out folds: accuracy 90.10% ± 0.10"
    alone = members_results.describe_settings([rows[0] | {"val_accuracy": None}])
    assert members_results.choice(alone, 0, folds=0) == ""
