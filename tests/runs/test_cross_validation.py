"""Cross-validation, nested or not, and the scores out of fold."""

import itertools
import signal

import numpy as np
import pytest
from tiny_runs import LINEAR, make_config, train_run
from tiny_sweeps import parse, rows, run, same_bits, summary

from mnist_jax.analysis import thresholds
from mnist_jax.data import datasets, splits
from mnist_jax.report import formats
from mnist_jax.runs import groups, select, space, training
from mnist_jax.runtime import progress
from mnist_jax.workdir import files

READS_PAGES = True


def test_cross_validation_is_followed_by_one_training_on_all_examples(folder):
    config = parse("--config.sweep.folds=3", '--config.sweep.grid={"optim.b1": [0.9, 0.1]}')
    found = run(config, folder / "folds")
    trials, examples = rows(folder / "folds"), splits.load(config)
    assert len(examples.val.labels) == 0
    assert [(row["setting"], row["fold"]) for row in trials] == [
        (setting, fold) for setting in range(2) for fold in range(3)
    ]
    assert all(row["best_epoch"] == row["epochs"] == 4 for row in trials)
    assert not any("test_accuracy" in row for row in trials)
    assert found["test"]["accuracy"]["n"] == 1
    assert found["ensemble"] is None
    # That training is the plain run without validation.
    alone = parse("--config.data.val_size=0", f"--config.optim.b1={[0.9, 0.1][found['chosen']]}")
    expected = run(alone, folder / "alone")
    assert found["test_accuracy"] == pytest.approx(expected["test_accuracy"], abs=0.01)


NESTED = ["--config.sweep.folds=2", "--config.sweep.outer_folds=2", "--config.train.epochs=2"]
NESTED += ['--config.sweep.grid={"optim.learning_rate": [1e-6, 0.01]}']


@pytest.fixture(scope="module")
def nested(folder):
    config, lines = parse(*NESTED), []
    run(config, folder / "nested", lines.append)
    return config, folder / "nested", lines


def test_an_outer_fold_evaluates_the_choice_of_a_run_without_it(nested, folder):
    config, workdir, lines = nested
    found = summary(workdir)["nested"]
    assert [row["held_out"] for row in found["folds"]] == [719, 718]
    assert found["score"]["mean"] == pytest.approx(
        np.mean([row["score"] for row in found["folds"]])
    )
    assert sum(line.startswith("outer fold 2 of 2: ") for line in lines) == 2
    estimates = [i for i, line in enumerate(lines) if line.startswith("estimated from this epoch")]
    first_of_all = next(i for i, line in enumerate(lines) if line.startswith("epoch 1/2"))
    assert estimates == [first_of_all + 1]
    # Compare with a run that trains on the other examples and tests on the fold.
    _, last = splits.outer_folds(splits.load(config), 2, config.data.split_seed)
    plain = parse(*NESTED, "--config.sweep.outer_folds=0")
    expected = training.train_run(plain, last, folder / "a fold", log=lambda line: None)
    row = found["folds"][1]
    assert (row["setting"], row["score"]) == (expected["chosen"], expected["test_accuracy"])
    assert "Nested cross-validation" in (workdir / files.REPORT).read_text()
    assert expected["nested"] is None
    assert "Nested" not in (folder / "a fold" / files.REPORT).read_text()


def test_outer_folds_are_checked_one_at_a_time(folder, monkeypatch):
    """Each has a copy of the images."""
    config, events = parse(*NESTED), []
    outer_folds, make_plan = splits.outer_folds, groups.make_plan

    def folds(*args):
        for part in outer_folds(*args):
            events.append("made")
            yield part

    monkeypatch.setattr(splits, "outer_folds", folds)
    monkeypatch.setattr(
        groups, "make_plan", lambda *args: events.append("planned") or make_plan(*args)
    )
    run = select.Run(config, splits.load(config), folder / "not used", print)
    training._check(run, space.expand(config))
    assert [event for event, _ in itertools.groupby(events)] == ["planned", "made"] * 2 + [
        "planned"
    ]


@pytest.mark.usefixtures("no_pages")
def test_nested_cross_validation_resumes_to_the_same_bits(nested, folder):
    config, unbroken, _ = nested
    workdir, lines = folder / "nested stopped", []

    def log(line):
        lines.append(line)
        if line.startswith("epoch 1/") and any(one.startswith("outer fold 2") for one in lines):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(progress.Stopped, match="after epoch 1 of 2"):
        run(config, workdir, log)
    lines.clear()
    run(config, workdir, lines.append)
    estimates = [i for i, line in enumerate(lines) if line.startswith("estimated from this epoch")]
    assert estimates == [next(i for i, line in enumerate(lines) if line.startswith("epoch ")) + 1]
    assert f"{workdir}/checkpoints/outer-1/0: resumes after epoch 1/2" in lines
    outer = f"{workdir}/checkpoints/outer-0"
    found = [line for line in lines if "outer-0" in line]
    assert found == [f"{outer}/0: is trained already", f"{outer}/refit: is trained already"]
    same_bits(workdir, unbroken)


def test_two_classes_have_thresholds_chosen_out_of_fold(folder):
    folds = ["--config.sweep.folds=3", "--config.sweep.seeds=2"]
    run(parse(*folds, "--config.task.name=binary"), folder / "binary")
    with np.load(folder / "binary" / files.OUT_OF_FOLD) as stored:
        scores, labels = stored["logits"].astype(np.float64), stored["labels"]
    chosen = thresholds.at_recall(np.diff(scores)[..., 0].ravel(), np.tile(labels, 2), 0.9)
    share = formats.percent(1 / (1 + np.exp(-chosen)))
    page = (folder / "binary" / files.REPORT).read_text()
    assert f'<th scope="row">90% recall out of fold</th><td>{share}</td>' in page
    assert "over 2 trials: area under the ROC curve" in page


@pytest.mark.parametrize(
    "how", [{}, {"sweep__share_batches": True}, {"task__name": "one_vs_one", "sweep__seeds": 2}]
)
@pytest.mark.usefixtures("no_pages")
def test_the_accuracy_out_of_fold_is_that_of_the_folds(tmp_path, how):
    config = make_config(LINEAR, sweep__folds=4, **how)  # folds of 359 and 360 examples
    examples = splits.load(config)
    train_run(config, tmp_path / "run")
    with np.load(tmp_path / "run" / files.OUT_OF_FOLD) as stored:
        logits, labels = stored["logits"], stored["labels"]
    np.testing.assert_array_equal(labels, examples.train.labels)
    assert logits.shape == (config.sweep.seeds, len(labels), 10)
    correct = logits.argmax(-1) == labels
    held_out = datasets.folds(labels, 4, config.data.split_seed)
    for row in files.read_rows(tmp_path / "run" / files.TRIALS):
        accuracy = correct[row["seed"], held_out[row["fold"]]].mean()
        assert row["val_accuracy"] == pytest.approx(accuracy, abs=1e-6)
