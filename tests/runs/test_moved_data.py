"""A run whose CSV file or folder of pictures is moved: its data is known by its fingerprint."""

import json
import shutil

import numpy as np
import pytest
from shell import LINEAR, content, refusal

from mnist_jax import main
from mnist_jax.compare import __main__ as compare_command
from mnist_jax.compare import comparison
from mnist_jax.workdir import files

OPTIONS = ["--config.train.epochs=1", "--config.train.batch_size=16"]


def write(path, seed=0):
    """100 images of noise of the classes 1 and 2."""
    pixels = np.random.default_rng(seed).integers(0, 256, (100, 784))
    np.savetxt(path, np.column_stack([1 + np.arange(100) % 2, pixels]), "%d", ",")


@pytest.fixture
def run(here, folder):
    """A finished run, in the working directory."""
    trained = folder / "trained"
    if not trained.exists():
        write("t.csv")
        assert main.main([f"{LINEAR}:csv:t.csv", *OPTIONS, f"--workdir={trained}"]) == 0
        shutil.copy("t.csv", trained.with_suffix(".csv"))
    shutil.copy(trained.with_suffix(".csv"), "t.csv")
    return shutil.copytree(trained, here / "runs/linear-csv-t-s0-epochs-1-batch_size-16")


def test_another_spelling_is_the_same_run(run, here, capsys):
    summary = (run / "summary.json").read_bytes()
    for path in ("t.csv", "./t.csv", f"{here}/t.csv", "runs/../t.csv"):
        assert main.main([f"{LINEAR}:csv:{path}", *OPTIONS]) == 0  # in the same default workdir
        assert (run / "summary.json").read_bytes() == summary
        assert f"report: {run.relative_to(here)}/report.html" in capsys.readouterr().out
    assert [path.name for path in run.parent.iterdir()] == [run.name]


def test_the_command_with_the_new_path_resumes_and_stores_it(run, here, capsys):
    (here / "new").mkdir()
    (here / "t.csv").rename("new/u.csv")
    evaluate = ["--mode=evaluate", f"--workdir={run}"]
    message = refusal(capsys, *evaluate)
    assert message == (
        "t.csv: cannot be read as CSV: it is not there; if it was moved, give the same command its "
        "new path"
    )
    assert comparison.test_images(comparison.read(run)) is None
    before = content(run)
    again = [f"{LINEAR}:csv:new/u.csv", *OPTIONS, f"--workdir={run}"]
    assert main.main(again) == 0
    changed = {name for name, what in content(run).items() if what != before.get(name)}
    assert changed == {str(run / "config.json")}
    assert json.loads((run / "config.json").read_text())["data"]["name"] == "csv:new/u.csv"
    assert main.main(evaluate) == 0
    assert comparison.test_images(comparison.read(run)) is not None


def test_runs_of_moved_data_are_compared(run, here, capsys):
    other = shutil.copytree(run, here / "other")
    stored = json.loads((other / files.CONFIG).read_text())
    stored["data"]["name"] = "csv:elsewhere/t.csv"
    (other / files.CONFIG).write_text(json.dumps(stored))
    assert compare_command.main([str(run), str(other)]) == 0
    out = capsys.readouterr().out
    assert "no clear difference" in out
    assert "config." not in out


def test_other_data_in_the_same_place_is_refused(run, capsys):
    write("t.csv", seed=1)
    message = refusal(capsys, f"{LINEAR}:csv:t.csv", *OPTIONS, f"--workdir={run}")
    assert "differs in the data (another fingerprint)" in message
    assert "was trained on other data" in refusal(capsys, "--mode=evaluate", f"--workdir={run}")


def test_the_kind_of_images_and_the_classes_are_in_the_summary(run):
    summary = files.read_summary(run)
    assert (summary["image_kind"], summary["class_names"]) == ("digits", ["1", "2"])
