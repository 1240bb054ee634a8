"""Which of several runs is better: what is said, and when nothing can be."""

import json
import shutil

import numpy as np
import pytest
from test_resume import compiled_in

from mnist_jax import cli, compare, run, run_members, splits, sweep
from mnist_jax import workdir as files
from mnist_jax.types import UserError

MLP = "--config=configs/mlp.py:digits"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Finished runs: a plain one, a worse one, and both over seeds."""
    folder = tmp_path_factory.mktemp("runs")
    base = [MLP, "--config.model.widths=(16,)", "--config.train.epochs=3"]
    poor, many = "--config.optim.learning_rate=1e-4", "--config.members.seeds=3"
    with compiled_in(folder / "compiled"):
        for name, argv in {
            "good": base,
            "poor": [*base, poor],
            "goods": [*base, many],
            "poors": [*base, many, poor],
            "folds": [*base, "--config.members.folds=2"],
        }.items():
            config = cli.parse(argv).config
            train = run_members.run_members if sweep.wanted(config) else run.run
            train(config, splits.load(config), folder / name, echo=lambda line: None)
    return folder


def say(capsys, *argv):
    code = compare.main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_two_trainings_by_mcnemar(folder, capsys):
    code, lines, err = say(capsys, folder / "good", folder / "poor")
    assert (code, err) == (0, "")
    assert lines[0].startswith(f"{folder}/good: test accuracy ")
    assert lines[2] == "  config.optim.learning_rate = 0.0001"
    right = []
    for name in ("good", "poor"):
        with np.load(folder / name / files.PREDICTIONS) as stored:
            right.append(stored["logits"].argmax(-1) == stored["labels"])
    points = 100 * (right[1].mean() - right[0].mean())
    assert lines[3].startswith(f"  worse ({points:+.2f} points): ")
    assert f"{(right[0] & ~right[1]).sum()} the other way round; McNemar's exact test" in lines[3]


def test_two_runs_over_seeds_by_pairs(folder, capsys):
    code, lines, _ = say(capsys, folder / "goods", folder / "poors")
    assert code == 0
    assert lines[0].endswith("(n = 3)")
    assert lines[3].startswith("  worse (-")
    assert "paired t-test over 3 members" in lines[3]


def test_a_run_is_not_better_than_itself(folder, capsys):
    for name in ("good", "goods", "folds"):
        _, lines, _ = say(capsys, folder / name, folder / name)
        assert lines[-1].startswith("  no clear difference (+0.00 points)")


def test_folds_of_other_examples_make_no_pairs(folder):
    """The same seed and the same fold, but folds drawn by another seed, or another number."""
    ours = compare.read(folder / "folds")
    assert len(ours.accuracies) == 2
    summary = files.read_json(folder / "folds" / files.SUMMARY)
    for change in ({"seed": 1}, {"folds": 3}):
        other = folder / f"folds {change}"
        shutil.copytree(folder / "folds", other)
        (other / files.SUMMARY).write_text(json.dumps(summary | change))
        with pytest.raises(UserError, match="fewer than two seeds or folds in common"):
            compare.sentence(ours, compare.read(other))


def test_the_same_difference_each_time_is_told_and_not_tested(folder):
    ours = compare.read(folder / "goods")
    better = {pair: accuracy + 0.01 for pair, accuracy in ours.accuracies.items()}
    said = compare.sentence(ours, ours._replace(accuracies=better))
    assert said.startswith("no clear difference (+1.00 points): the same in all 3 members")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["good"], "RUN: give at least two workdirs"),
        (["good", "nowhere"], "there is no run"),
        (["goods", "folds"], "fewer than two seeds or folds in common"),
        (["good", "unfinished"], "is not finished"),
    ],
)
def test_what_cannot_be_compared(folder, capsys, runs, message):
    (folder / "unfinished").mkdir(exist_ok=True)
    config = (folder / "good" / files.CONFIG).read_text()
    (folder / "unfinished" / files.CONFIG).write_text(config)
    code, lines, err = say(capsys, *(folder / name for name in runs))
    assert (code, lines) == (2, [])
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
