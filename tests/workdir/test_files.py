"""The directory of a run: whose it is, what may be deleted, files that are whole or not there."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_jax import config
from mnist_jax.types import UserError
from mnist_jax.workdir import files

FILES = {
    "metrics.jsonl": "{}",
    "trials.jsonl": "{}",
    "summary.json": "{}",
    "predictions.npz": "",
    "out_of_fold.npz": "",
    "report.html": "",
    "checkpoints/1/record": "{}",
    "tensorboard/events": "",
}


def fields(**changes) -> dict:
    whole = config.default()
    whole.update_from_flattened_dict({key.replace("__", "."): v for key, v in changes.items()})
    return whole.to_dict()


def prepare(path: Path, fingerprint: str = "abc", overwrite: bool = False, **changes) -> None:
    with files.locked(path):
        files.prepare(path, fields(**changes), fingerprint, overwrite=overwrite)


def fill(path: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)


def content(path: Path) -> dict[str, bytes]:
    files = (file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.fixture
def run(tmp_path):
    """A run with everything that a run leaves."""
    path = tmp_path / "run"
    prepare(path)
    fill(path, FILES)
    return path


def refusal(path: Path, **how) -> str:
    """Why a directory is refused; that leaves all of it as it was."""
    before = content(path)
    with pytest.raises(UserError) as refused:
        prepare(path, **how)
    assert content(path) == before
    return str(refused.value)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_directory_is_made_with_its_parents_and_holds_the_config(tmp_path, overwrite):
    path = tmp_path / "some" / "where"
    prepare(path, overwrite=overwrite, model__widths=(8, 4))
    assert list(content(path)) == ["config.json"]
    stored, fingerprint = files.read_config(path)
    assert fingerprint == "abc"
    assert config.differences(stored.to_dict(), fields(model__widths=(8, 4))) == []


def test_an_empty_directory_is_as_good_as_none(tmp_path):
    prepare(tmp_path)
    assert list(content(tmp_path)) == ["config.json"]


def test_a_run_of_the_same_config_is_left_as_it_is(run):
    before = content(run)
    prepare(run)
    assert content(run) == before


@pytest.mark.parametrize("place", ["data__archives", "data__data_dir"])
def test_where_the_data_lies_is_no_difference(run, place):
    before = content(run)
    prepare(run, **{place: "/some/where/else"}, data__offline_fallback=True)
    assert content(run) == before


def test_a_run_that_an_earlier_release_began_can_be_resumed(run):
    """Its config lacks keys that were added since; they have their defaults."""
    path = run / "config.json"
    there = json.loads(path.read_text())
    del there["sweep"], there["optim"]["clip"], there["seed"]
    path.write_text(json.dumps(there))
    before = content(run)
    prepare(run)
    assert content(run) == before
    assert "differs in config.optim.clip; " in refusal(run, optim__clip=1.0)
    path.write_text(json.dumps({**there, "quantum": True}))
    assert "differs in config.quantum; " in refusal(run)


def test_a_run_of_another_config_is_refused_with_the_keys_that_differ(run):
    message = refusal(run, seed=1, optim__learning_rate=0.5)
    assert (
        "holds another run, which differs in config.optim.learning_rate, config.seed; " in message
    )
    assert "--overwrite to start again" in message


def test_a_run_on_other_data_of_the_same_name_is_refused(run):
    assert "differs in the data (another fingerprint)" in refusal(run, fingerprint="xyz")


def test_data_of_the_same_fingerprint_may_move_and_its_new_place_is_stored(tmp_path):
    prepare(tmp_path, data__name="csv:t.csv")
    before = content(tmp_path)
    prepare(tmp_path, data__name="csv:t.csv")
    assert content(tmp_path) == before
    prepare(tmp_path, data__name="csv:/new/u.csv.gz", data__label_column="last")
    stored, fingerprint = files.read_config(tmp_path)
    assert (stored.data.name, stored.data.label_column) == ("csv:/new/u.csv.gz", "last")
    assert fingerprint == "abc"
    before = content(tmp_path)
    message = refusal(tmp_path, data__name="csv:t.csv", fingerprint="xyz")
    assert "differs in config.data.label_column, config.data.name; " in message
    message = refusal(tmp_path, data__name="csv:t.csv", seed=1)
    assert "differs in config.seed; " in message


def test_the_keys_say_more_than_the_fingerprint(run):
    assert "differs in config.data.name; " in refusal(run, fingerprint="xyz", data__name="digits")


@pytest.mark.parametrize("changes", [{}, {"seed": 1}])
def test_overwrite_starts_anew_and_deletes_nothing_that_is_not_the_runs(run, changes):
    fill(run, {"notes.txt": "mine", "figures/one.png": "mine"})
    prepare(run, overwrite=True, fingerprint="xyz", **changes)
    assert sorted(content(run)) == ["config.json", "figures/one.png", "notes.txt"]
    stored, fingerprint = files.read_config(run)
    assert (stored.seed, fingerprint) == (changes.get("seed", 0), "xyz")


def test_overwrite_killed_at_any_moment_leaves_no_run_that_seems_finished(run, monkeypatch):
    """A summary says that the rest is there, so it goes first."""
    deleted = []
    monkeypatch.setattr(Path, "unlink", lambda path, **_: deleted.append(path.name))
    monkeypatch.setattr(files.shutil, "rmtree", lambda path: deleted.append(path.name))
    monkeypatch.setattr(files, "write", lambda *_: None)
    prepare(run, overwrite=True)
    assert deleted[0] == "summary.json"
    assert set(deleted) == {name.partition("/")[0] for name in FILES}


@pytest.mark.parametrize("new", [True, False])
def test_one_run_at_a_time(tmp_path, new):
    path = tmp_path / "some" / "where" if new else tmp_path
    with files.locked(path):
        with (
            pytest.raises(UserError, match="another run is using it; wait for its end, or"),
            files.locked(path),
        ):
            pass
        with files.locked(tmp_path / "another"):
            pass
    assert content(path) == {}
    with files.locked(path):
        pass


def test_a_run_that_is_killed_keeps_nobody_out(tmp_path):
    imports = "import os, pathlib; from mnist_jax.workdir import files"
    lock = f"files.locked(pathlib.Path({str(tmp_path)!r})).__enter__()"
    killed = f"{imports}; {lock}; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -9
    with files.locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with files.locked(tmp_path):
        prepare(tmp_path)
    assert files.read_config(tmp_path)[1] == "abc"


FOREIGN = {
    "a note": {"notes.txt": "mine"},
    "a hidden file": {".git/HEAD": "mine"},
    "another program's config": {"config.json": '{"model_type": "bert"}', "weights.bin": "mine"},
    "another kind of config": {"config.json": "[1, 2]"},
    "results without a config": FILES,
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_other_peoples_files_are_refused_and_left_intact(tmp_path, foreign, overwrite):
    fill(tmp_path, foreign)
    message = refusal(tmp_path, overwrite=overwrite)
    assert message == f"{tmp_path}: holds files but no run; give another --workdir"
    with pytest.raises(UserError, match="there is no run"):
        files.read_config(tmp_path)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_config_that_is_not_json_is_refused_and_left_intact(tmp_path, overwrite):
    fill(tmp_path, {"config.json": "{"})
    message = refusal(tmp_path, overwrite=overwrite)
    assert message.startswith(f"{tmp_path}/config.json: is not JSON")


KILLED = """
import os, sys
from pathlib import Path
from mnist_jax import config
from mnist_jax.workdir import files
path = Path(sys.argv[1])
Path.replace = lambda aside, to: os.kill(os.getpid(), 9)
files.prepare(path, config.default().to_dict(), "abc", overwrite=False)
files.write(path / sys.argv[2], "{}")
"""


def kill_while_it_writes(path: Path, name: str) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, path, name]).returncode == -9
    # Written aside, not yet in its place.
    assert any(left.startswith(f".{name}.") for left in content(path))


def test_a_start_killed_while_it_wrote_the_config_can_be_repeated(tmp_path):
    kill_while_it_writes(tmp_path, "config.json")
    prepare(tmp_path)
    assert list(content(tmp_path)) == ["config.json"]
    assert files.read_config(tmp_path)[1] == "abc"


def test_what_a_killed_run_was_writing_goes_when_it_goes_on(run):
    fill(run, {".metrics.jsonl.swp": "mine", ".notes.txt.12": "mine", "report.html.12": "mine"})
    before = content(run)
    kill_while_it_writes(run, "metrics.jsonl")
    fill(run, {f".{name}.12": "" for name in FILES if "/" not in name})
    refusal(run, seed=1)
    prepare(run)
    assert content(run) == before


@pytest.mark.parametrize("name", ["file", "file/inside"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_place_of_the_directory(tmp_path, name, overwrite):
    (tmp_path / "file").write_text("mine")
    message = refusal(tmp_path / name, overwrite=overwrite)
    assert message == (
        f"{tmp_path}/{name}: cannot write there (Not a directory); give another --workdir"
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_that_may_not_be_written(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write everywhere
    message = refusal(tmp_path / "new")
    assert "cannot write there (Permission denied); give another --workdir" in message


@pytest.mark.parametrize("name", ["a\\b", os.fsdecode(b"Andr\xe9")])
def test_a_path_where_no_checkpoint_can_be_kept_is_refused_at_once(tmp_path, monkeypatch, name):
    message = refusal(tmp_path / name)
    assert "backslash or bytes that are not UTF-8" in message
    assert message.endswith("give another --workdir")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)  # the whole path counts
    assert "backslash or bytes" in refusal(Path("run"))
    assert list((tmp_path / name).iterdir()) == []


@pytest.mark.parametrize("name", ["nothing", "file", "file/inside"])
def test_there_is_no_run_to_read(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"{name}: there is no run"):
        files.read_config(tmp_path / name)


def test_a_config_comes_back_with_its_types_and_what_is_newer_has_its_default(tmp_path):
    prepare(tmp_path, model__widths=(16,))
    path = tmp_path / "config.json"
    there = json.loads(path.read_text())
    del there["sweep"], there["optim"]["clip"]
    path.write_text(json.dumps(there))
    stored, _ = files.read_config(tmp_path)
    assert stored.to_dict() == fields(model__widths=(16,))
    assert stored.model.get_type("dropout") is tuple  # of a placeholder, which JSON has as null


def test_a_run_of_version_0_1_is_refused_in_one_line(run):
    """Its config has a section of members, which is now the sweep."""
    path = run / "config.json"
    there = json.loads(path.read_text())
    there["members"] = there.pop("sweep")
    path.write_text(json.dumps(there))
    message = refusal(run)
    assert message.startswith(
        f"{run}: was written by mnist_jax 0.1, which this version cannot read"
    )
    assert "\n" not in message
    for read in (files.read_config, files.read_summary):
        with pytest.raises(UserError, match=r"was written by mnist_jax 0\.1"):
            read(run)
    prepare(run, overwrite=True)
    assert files.read_config(run)[1] == "abc"


@pytest.mark.parametrize("change", [{"quantum": True}, {"seed": "one"}])
def test_a_config_of_another_version_is_refused(run, change):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(
        UserError, match=r"config\.json: is of another version of mnist_jax \(.*\);"
    ):
        files.read_config(run)


@pytest.mark.parametrize("unfinished", [{}, {"config.json": "{}"}])
def test_a_summary_is_of_a_finished_run(tmp_path, unfinished):
    fill(tmp_path, unfinished)
    with pytest.raises(UserError, match="there is no run"):
        files.read_summary(tmp_path)


def test_an_unfinished_run_has_no_summary(tmp_path):
    prepare(tmp_path)
    with pytest.raises(UserError, match="is not finished; repeat its command to"):
        files.read_summary(tmp_path)
    fill(tmp_path, {"summary.json": '{"dataset": "digits"}'})
    assert files.read_summary(tmp_path) == {"dataset": "digits"}


def test_a_run_that_cannot_be_read(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config\.json: cannot be read \(Is a directory\)"):
        files.read_config(tmp_path)


@pytest.mark.parametrize("text", ["ü\n", b"\x00\xff"])
def test_write_replaces_the_whole_file(tmp_path, text):
    path = tmp_path / "file"
    path.write_text("a longer text that was there")
    files.write(path, text)
    assert path.read_bytes() == (text if isinstance(text, bytes) else text.encode())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("owner", "step"), [(os, "fsync"), (Path, "replace")])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path, monkeypatch, owner, step
):
    path = tmp_path / "file"
    path.write_text("old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(owner, step, full)
    with pytest.raises(UserError, match=r"file: cannot be written \(No space left on device\)"):
        files.write(path, "new")
    assert content(tmp_path) == {"file": b"old"}


def test_a_reader_never_sees_half_a_file(tmp_path, monkeypatch):
    """Whatever is written goes elsewhere until it is complete."""
    path = tmp_path / "file"
    path.write_text("old")
    seen = []
    original = Path.replace

    def replace(self, target):
        seen.append((self.read_text(), path.read_text()))
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    files.write(path, "new")
    assert seen == [("new", "old")]
    assert path.read_text() == "new"


def test_what_has_its_name_is_on_the_disk(tmp_path, monkeypatch):
    """Without a sync, a power failure may leave the name without the content."""
    steps, synced, renamed = [], os.fsync, Path.replace

    def fsync(file):
        steps.append(("content", os.fstat(file).st_size))
        synced(file)

    def replace(self, target):
        steps.append(("name", target.name))
        return renamed(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    files.write(tmp_path / "file", "new")
    assert steps == [("content", 3), ("name", "file")]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_numbers_that_other_programs_cannot_read(value):
    with pytest.raises(ValueError, match="JSON"):
        files.to_json({"loss": value})
    with pytest.raises(ValueError, match="JSON"):
        files.to_rows([{"loss": value}])


def test_json_and_rows_are_read_back(tmp_path):
    rows = [{"epoch": 1, "val_loss": None}, {"epoch": 2, "val_loss": 0.1 + 0.2}]
    files.write(tmp_path / "rows", files.to_rows(rows))
    assert files.read_rows(tmp_path / "rows") == rows
    assert (tmp_path / "rows").read_text().count("\n") == 2
    files.write(tmp_path / "json", files.to_json(rows))
    assert files.read_json(tmp_path / "json") == json.loads((tmp_path / "json").read_text()) == rows
    assert (tmp_path / "json").read_text().endswith("]\n")
