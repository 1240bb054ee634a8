"""Runs of version 0.1 are refused in one line, and its keys answer with their new names."""

import json
import shutil

import pytest
from shell import content, refusal
from tiny_runs import LINEAR, ROOT, make_config, train_run

from mnist_jax import main
from mnist_jax.cli import flags
from mnist_jax.compare import __main__ as compare_main
from mnist_jax.predict import __main__ as predict_main
from mnist_jax.runs import evaluation
from mnist_jax.types import UserError
from mnist_jax.workdir import files

pytestmark = pytest.mark.usefixtures("folder")

ARGV = [f"--config={ROOT}/configs/linear.py:digits", "--config.train.epochs=1"]


@pytest.fixture(scope="module")
def current(folder):
    """A finished run of this version."""
    train_run(make_config(LINEAR, train__epochs=1), folder / "current")
    return folder / "current"


@pytest.fixture
def old(current, tmp_path):
    """The directory of a run as version 0.1 wrote it."""
    workdir = shutil.copytree(current, tmp_path / "old")
    config = files.read_json(workdir / files.CONFIG)
    sweep = config.pop("sweep")
    del config["data"]["split_seed"]
    (workdir / files.CONFIG).write_text(json.dumps({**config, "members": sweep}))
    return workdir


def commands(workdir, current):
    """The commands that read a run, each with its arguments."""
    return {
        "train": (main.main, [*ARGV, f"--workdir={workdir}"]),
        "evaluate": (main.main, ["--mode=evaluate", f"--workdir={workdir}"]),
        "predict": (predict_main.main, [f"--workdir={workdir}", "picture.png"]),
        "compare": (compare_main.main, [str(workdir), str(current)]),
        "compare with": (compare_main.main, [str(current), str(workdir)]),
    }


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "compare", "compare with"])
def test_runs_of_version_0_1_are_refused(old, current, capsys, name):
    before = content(old)
    command, argv = commands(old, current)[name]
    assert command(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"error: {old}: was written by mnist_jax 0.1, which this version cannot read; train it "
        "again with --overwrite, or use version 0.1\n"
    )
    assert content(old) == before


def test_functions_refuse_runs_of_version_0_1(old):
    for read in (lambda: evaluation.evaluate_run(old, "test"), lambda: files.read_summary(old)):
        with pytest.raises(UserError, match=r"was written by mnist_jax 0\.1"):
            read()


def test_overwrite_replaces_a_run_of_version_0_1(old):
    config = make_config(LINEAR, train__epochs=1)
    train_run(config, old, overwrite=True)
    assert files.read_config(old)[0].to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("members.seeds", "sweep.seeds", 2),
        ("members.share_batches", "sweep.share_batches", False),
        ("members.patience", "train.patience", 3),
        ("sweep.patience", "train.patience", 3),
    ],
)
def test_old_keys_answer_with_their_new_names_and_work(capsys, old, new, value):
    options = flags.parse([*ARGV, f"--config.{old}={value}"])
    assert capsys.readouterr() == ("", f"config.{old}: is now config.{new}\n")
    assert options.overridden == {"train.epochs": 1, new: value}
    assert options.config == flags.parse([*ARGV, f"--config.{new}={value}"]).config
    assert capsys.readouterr() == ("", "")
    flags.parse([*ARGV, f"--config.{old}={value}"], dataset="digits")  # after a parse without
    assert capsys.readouterr() == ("", "")


def test_an_old_switch_works(capsys):
    options = flags.parse([*ARGV, "--noconfig.members.share_batches"])
    assert options.overridden == {"train.epochs": 1, "sweep.share_batches": False}
    assert "is now config.sweep.share_batches" in capsys.readouterr().err


def test_old_keys_of_a_config_file_answer_with_their_new_names(capsys, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from mnist_jax import config\n\ndef get_config():\n  c = config.default()\n"
        "  c.members = {'seeds': 3}\n  return c\n"
    )
    assert refusal(capsys, f"--config={file}") == "config.members.seeds: is now config.sweep.seeds"
