"""A run that is stopped, damaged or out of disk space resumes to the bits of an unbroken one."""

import itertools
import re
import resource
import shutil
import signal
import subprocess

import jax
import pytest
from tiny_runs import ROOT, bits, environment, is_whole_and_the_same, restored, rows

from mnist_jax import main, train
from mnist_jax.cli import flags
from mnist_jax.data import splits
from mnist_jax.runs import loop, training
from mnist_jax.runtime import output, progress
from mnist_jax.types import UserError
from mnist_jax.workdir import files
from mnist_jax.workdir.writer import Writer

pytestmark = pytest.mark.usefixtures("folder")

MLP = [
    f"--config={ROOT}/configs/mlp.py:digits",
    "--config.model.widths=(16,)",
    "--config.train.epochs=6",
]


@pytest.fixture(scope="module")
def config():
    return flags.parse(MLP).config


@pytest.fixture(scope="module")
def examples(config):
    return splits.load(config)


@pytest.fixture(scope="module")
def unbroken(config, examples, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    training.train_run(config, examples, workdir, log=lambda line: None)
    return workdir


def at_epoch(epoch, act):
    """A log that acts on the line of an epoch."""
    return lambda line: act() if line.startswith(f"epoch {epoch}/") else None


def stop(config, examples, workdir, epoch):
    """Run until an epoch is saved."""
    ask = at_epoch(epoch, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(progress.Stopped, match=f"after epoch {epoch} of 6"):
        training.train_run(config, examples, workdir, log=ask)
    return workdir


def damage(checkpoint_path):
    """Flip a bit in the middle of every array's file."""
    arrays = [path for path in checkpoint_path.glob("state/**/d/*") if path.is_file()]
    assert arrays
    for path in arrays:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def test_the_second_signal_stops_at_once(config, examples, unbroken, tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        training.train_run(config, examples, tmp_path / "run", log=at_epoch(2, twice))
    # Epoch 1 was saved while epoch 2 was computed.
    assert len(rows(tmp_path / "run")) == 1
    assert restored(tmp_path / "run").epoch == 1
    training.train_run(config, examples, tmp_path / "run", log=lambda line: None)
    is_whole_and_the_same(tmp_path / "run", unbroken)


def test_a_signal_in_the_last_epoch_changes_nothing(config, examples, unbroken, tmp_path):
    ask = at_epoch(6, lambda: signal.raise_signal(signal.SIGTERM))
    training.train_run(config, examples, tmp_path / "run", log=ask)
    is_whole_and_the_same(tmp_path / "run", unbroken)


@pytest.mark.parametrize("lost", [[files.SUMMARY], [files.SUMMARY, files.METRICS]])
def test_a_trained_run_is_not_trained_again(
    config, examples, unbroken, tmp_path, monkeypatch, lost
):
    """The run was killed between its last checkpoint and its summary."""
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    for name in lost:
        (workdir / name).unlink()
    monkeypatch.setattr(loop, "start_epoch", lambda *args: pytest.fail("it trains"))
    lines = []
    training.train_run(config, examples, workdir, log=lines.append)
    is_whole_and_the_same(workdir, unbroken)
    before, after = ((w / files.METRICS).read_text() for w in (unbroken, workdir))
    assert before == after  # its wall clock too
    assert lines[1:] == [f"{workdir}: is trained already"]


def test_a_finished_run_is_left_alone(config, examples, unbroken, monkeypatch):
    monkeypatch.setattr(loop, "compile_programs", lambda *args: pytest.fail("it compiles"))
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")}
    lines = []
    returned = training.train_run(config, examples, unbroken, log=lines.append)
    assert returned == files.read_json(unbroken / files.SUMMARY)
    assert lines == [f"{unbroken}: is finished; --overwrite starts it again"]
    assert {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")} == before


def test_a_run_in_a_directory_with_brackets(config, examples, unbroken, tmp_path):
    workdir = stop(config, examples, tmp_path / "course [2026]" / "run*?", 4)
    lines = []
    training.train_run(config, examples, workdir, log=lines.append)
    assert lines[1] == f"{workdir}: resumes after epoch 4/6"
    is_whole_and_the_same(workdir, unbroken)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_locked_workdir_is_not_touched(config, examples, unbroken, overwrite):
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")}
    with (
        files.locked(unbroken),
        pytest.raises(UserError, match=f"^{unbroken}: another run is using it"),
    ):
        training.train_run(config, examples, unbroken, overwrite=overwrite)
    assert {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")} == before


def test_overwrite_starts_again(config, examples, unbroken, tmp_path):
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    lines = []
    training.train_run(config, examples, workdir, overwrite=True, log=lines.append)
    assert [line.split()[1] for line in lines[1:]] == [f"{epoch}/6" for epoch in range(1, 7)]
    is_whole_and_the_same(workdir, unbroken)


def test_a_damaged_newest_checkpoint_is_passed_over(config, examples, unbroken, tmp_path):
    workdir = stop(config, examples, tmp_path / "run", 4)
    damage(workdir / files.CHECKPOINTS / "0" / "4")
    lines = []
    training.train_run(config, examples, workdir, log=lines.append)
    assert lines[1].startswith(f"{workdir}/{files.CHECKPOINTS}/0/4: skipping a damaged checkpoint")
    assert lines[2] == f"{workdir}: resumes after epoch 3/6"
    assert [line.split()[1] for line in lines[3:]] == ["4/6", "5/6", "6/6"]
    is_whole_and_the_same(workdir, unbroken)


def test_all_checkpoints_are_damaged(config, examples, tmp_path, capsys):
    workdir = stop(config, examples, tmp_path / "run", 3)
    for epoch in (2, 3):
        damage(workdir / files.CHECKPOINTS / "0" / str(epoch))
    capsys.readouterr()
    assert main.main([*MLP, f"--workdir={workdir}"]) == 2
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()[1:]] == [
        f"{workdir}/{files.CHECKPOINTS}/0/{epoch}" for epoch in (3, 2)
    ]
    assert re.fullmatch(r"error: \S+/checkpoints/0: every checkpoint is damaged; .*\n", err)


# --- a full disk ---------------------------------------------------------------------------------


def test_no_space_for_a_checkpoint(config, examples, unbroken, tmp_path):
    """From epoch 3 on no file may be larger than 16 kB, as when the disk is full."""
    workdir = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = at_epoch(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, hard)))
    try:
        with pytest.raises(UserError, match=r"checkpoints/0: cannot write.*make room") as error:
            training.train_run(config, examples, workdir, log=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert restored(workdir).epoch in (1, 2)  # the save of epoch 2 may have been under way
    training.train_run(config, examples, workdir, log=lambda line: None)
    is_whole_and_the_same(workdir, unbroken)


def no_new_files(directory):
    """Put a file in the place of a directory; the returned function undoes this."""
    moved = directory.rename(directory.with_name(f".{directory.name}"))
    directory.write_text("in the way")

    def undo():
        directory.unlink()
        moved.rename(directory)

    return undo


@pytest.mark.parametrize("name", [files.CHECKPOINTS, files.TENSORBOARD])
def test_a_directory_that_cannot_be_used(config, examples, unbroken, tmp_path, capsys, name):
    workdir = stop(config, examples, tmp_path / "run", 2)
    undo = no_new_files(workdir / name)
    capsys.readouterr()
    assert main.main([*MLP, f"--workdir={workdir}"]) == 2
    assert re.fullmatch(rf"error: {workdir}/{name}(/0)?: can ?not .*\n", capsys.readouterr().err)
    undo()
    training.train_run(config, examples, workdir, log=lambda line: None)
    is_whole_and_the_same(workdir, unbroken)


def test_metrics_that_cannot_be_written(config, examples, unbroken, tmp_path):
    """The epoch whose row cannot be written is not lost: its checkpoint is written first."""
    workdir = tmp_path / "run"

    def block():
        (workdir / files.METRICS).unlink()
        (workdir / files.METRICS).mkdir()

    with pytest.raises(UserError, match=r"metrics.jsonl: cannot be written \(.*\); make room"):
        training.train_run(config, examples, workdir, log=at_epoch(2, block))
    assert restored(workdir).epoch == 2
    (workdir / files.METRICS).rmdir()
    training.train_run(config, examples, workdir, log=lambda line: None)
    is_whole_and_the_same(workdir, unbroken)


# --- saving during the next epoch ----------------------------------------------------------------


def test_a_checkpoint_is_written_while_the_next_epoch_is_computed(
    config, examples, unbroken, tmp_path, monkeypatch
):
    """The saved arrays are those of the epoch, although the next one overwrites its arrays."""
    events, steps = [], []
    start_epoch, save = loop.start_epoch, Writer.save

    def started(group, programs, chunks, epoch):
        jobs = start_epoch(group, programs, chunks, epoch)
        events.append(f"start {epoch}")
        return jobs

    def saved(self, epoch, states, rows):
        events.append(f"save {epoch}")
        steps.append((int(states.state.step[0]), rows[-1]["step"], len(rows)))
        save(self, epoch, states, rows)

    monkeypatch.setattr(loop, "start_epoch", started)
    monkeypatch.setattr(Writer, "save", saved)
    workdir = tmp_path / "run"

    def log(line):
        if line.startswith("epoch"):
            events.append(line.partition("/")[0])

    training.train_run(config, examples, workdir, log=log)
    later = [(f"start {n}", f"save {n - 1}", f"epoch {n}") for n in range(2, 7)]
    assert events == ["start 1", "epoch 1", *itertools.chain(*later), "save 6"]
    assert steps == [(10 * n, 10 * n, n) for n in range(1, 7)]
    is_whole_and_the_same(workdir, unbroken)


def test_a_checkpoint_of_an_unbroken_run_is_that_of_a_stopped_one(
    config, examples, tmp_path, monkeypatch
):
    found = {}
    save = Writer.save

    def saved(self, number, states, rows):
        found[number] = bits(states)
        save(self, number, states, rows)

    monkeypatch.setattr(Writer, "save", saved)
    training.train_run(config, examples, tmp_path / "whole", log=lambda line: None)
    expected = found[3]
    stopped = restored(stop(config, examples, tmp_path / "stopped", 3))
    assert bits(stopped.state) == expected


# --- compilation ---------------------------------------------------------------------------------


def test_an_epoch_is_traced_once_per_process(config, examples, tmp_path, monkeypatch):
    jax.clear_caches()  # other runs of this config have been traced
    traced = []
    step = train.train_step
    monkeypatch.setattr(train.step, "train_step", lambda *args: traced.append(1) or step(*args))
    workdir = stop(config, examples, tmp_path / "run", 3)
    assert len(traced) == 1
    training.train_run(config, examples, workdir, log=lambda line: None)
    assert len(traced) == 1


def test_the_command_says_how_to_resume(unbroken, tmp_path, capsys, monkeypatch, folder):
    """And that command resumes the run."""
    workdir = tmp_path / "a run"  # a name that needs quotes in a shell
    say = at_epoch(2, lambda: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(output, "say", lambda line, **end: print(line, **end) or say(line))
    assert main.main([*MLP, f"--workdir={workdir}"]) == 143
    command = capsys.readouterr().out.splitlines()[-1]
    env = environment(folder) | {  # for the same bits
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(jax.config.read("jax_disable_most_optimizations")),
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    }
    done = subprocess.run(command, shell=True, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == f"{workdir}: resumes after epoch 2/6"
    is_whole_and_the_same(workdir, unbroken)
