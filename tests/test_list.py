"""The list of runs: `python -m mnist_jax.list`."""

import json
from pathlib import Path

import pytest

from mnist_jax import config
from mnist_jax import list as listing
from mnist_jax.workdir import files


def make_run(path: Path, summary: dict | None = None, **changes) -> None:
    """Write the files of a run that are listed."""
    fields = config.default()
    fields.update_from_flattened_dict({key.replace("__", "."): v for key, v in changes.items()})
    path.mkdir(parents=True)
    files.prepare(path, fields.to_dict(), "abc", overwrite=False)
    if summary is not None:
        (path / files.SUMMARY).write_text(json.dumps(summary))


def finished(day: int, **more) -> dict:
    return {"score": "accuracy", "date": f"2020-11-{day:02d}T12:00:00+00:00", **more}


def say(capsys, *argv) -> tuple[int, list[str], str]:
    code = listing.main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_all_runs_are_listed_oldest_first_with_their_differences(here, capsys):
    make_run(here / "runs" / "c", finished(1, test_accuracy=0.9876))
    more = {"test_accuracy": 0.99, "test": {"accuracy": {"sd": 0.001}}}
    make_run(here / "runs" / "deep" / "a", finished(3, **more), seed=1, sweep__seeds=3)
    make_run(
        here / "runs" / "b",
        finished(2, score="psnr", test_psnr=21.5),
        model__name="linear",
        task__name="denoise",
    )
    make_run(here / "runs" / "d")
    (here / "runs" / "d" / files.METRICS).write_text('{"epoch": 1}\n{"epoch": 2}\n')
    (here / "runs" / "compare.html").write_text("")
    code, (header, *lines), err = say(capsys)
    assert (code, err) == (0, "")
    assert header.split()[:3] == ["run", "data", "net"]
    assert [line.split()[0] for line in lines] == ["c", "b", "deep/a", "d"]
    assert lines[0].split()[1:4] == ["mnist", "mlp", "98.76%"]
    assert lines[0].endswith(tuple("0123456789"))  # the first of its kind differs in nothing
    assert "21.50 dB" in lines[1]
    assert "99.00% ± 0.10" in lines[2]
    assert lines[2].endswith("seed=1 sweep.seeds=3")
    assert "unfinished, epoch 2 of 10" in lines[3]
    assert " 2020-11-0" in lines[0]


def test_a_run_can_be_listed_by_itself(here, capsys):
    make_run(here / "one", finished(1, test_accuracy=0.5))
    code, lines, _ = say(capsys, "one")
    assert (code, len(lines)) == (0, 2)
    assert lines[1].startswith("one ")


def test_what_cannot_be_listed_is_named(here, capsys):
    make_run(here / "runs" / "good")
    make_run(here / "runs" / "other")
    path = here / "runs" / "other" / files.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantum": True}))
    make_run(here / "runs" / "broken")
    (here / "runs" / "broken" / files.CONFIG).write_text("{")
    code, lines, err = say(capsys)
    assert (code, len(lines)) == (0, 2)
    assert [line.split(":")[:2] for line in err.splitlines()] == [
        ["skipped", " runs/broken/config.json"],
        ["skipped", " runs/other/config.json"],
    ]


@pytest.mark.parametrize("folder", ["empty", "nowhere"])
def test_a_folder_without_runs(here, capsys, folder):
    (here / "empty").mkdir()
    code, lines, err = say(capsys, folder)
    assert (code, lines) == (2, [])
    assert err == f"error: {folder}: there are no runs; give the folder that holds them\n"


def test_names_and_values_are_printable(here, capsys):
    make_run(here / "runs" / "a\x1b[31m", finished(1), data__name="csv:\x07")
    make_run(here / "runs" / "b", finished(2), sweep__grid={"optim.learning_rate": [0.1] * 9})
    _, lines, err = say(capsys)
    assert all(line.isprintable() for line in lines)
    assert err == ""
