"""Scores out of fold: each example's own are of the member that did not learn from it."""

import numpy as np
import pytest
from tiny_runs import LINEAR, make_config

from mnist_jax.data import datasets, splits
from mnist_jax.runs import run_members
from mnist_jax.workdir import files


@pytest.mark.parametrize(
    "how", [{}, {"members__share_batches": True}, {"task__name": "one_vs_one", "members__seeds": 2}]
)
def test_their_accuracy_is_that_of_the_folds(tmp_path, how):
    config = make_config(LINEAR, members__folds=4, **how)  # folds of 359 and 360 examples
    examples = splits.load(config)
    run_members.run_members(config, examples, tmp_path / "run", echo=lambda line: None)
    with np.load(tmp_path / "run" / files.OUT_OF_FOLD) as stored:
        logits, labels = stored["logits"], stored["labels"]
    np.testing.assert_array_equal(labels, examples.train.labels)
    assert logits.shape == (config.members.seeds, len(labels), 10)
    correct = logits.argmax(-1) == labels
    held_out = datasets.folds(labels, 4, config.seed)
    for row in files.read_rows(tmp_path / "run" / files.MEMBERS):
        accuracy = correct[row["seed"], held_out[row["fold"]]].mean()
        assert row["val_accuracy"] == pytest.approx(accuracy, abs=1e-6)
