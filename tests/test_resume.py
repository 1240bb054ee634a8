"""A run that is killed, stopped, or finds no room goes on to the same bits as an unbroken one."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from test_board import scalars

from mnist_jax import checkpoint, cli, commands, main, progress, run, splits, train
from mnist_jax import workdir as files
from mnist_jax.types import UserError

ROOT = Path(__file__).parent.parent
MLP = [
    f"--config={ROOT}/configs/mlp.py:digits",
    "--config.model.widths=(16,)",
    "--config.train.epochs=6",
]
# Everything that carries state from one epoch to the next, on a net that compiles in seconds.
EVERYTHING = [
    "--config=configs/cnn.py:digits",
    "--config.model.channels=(4,)",
    "--config.model.widths=(16,)",
    "--config.model.dropout=(0.3,)",
    "--config.model.batch_norm=True",
    "--config.train.batch_size=16",  # an epoch of a third of a second: there is time to act in it
    "--config.train.augment.erase=0.5",
    "--config.optim.schedule=plateau",
    "--config.optim.decay_epochs=1",
    "--config.optim.decay=0.5",
    "--config.optim.learning_rate=0.01",
    "--config.optim.ema=0.9",
]


# What is compiled is kept in a folder, by this process and by others: most of a tiny run's time.
KEEP_ALL = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@contextmanager
def compiled_in(folder):
    """JAX keeps what it compiles in a folder."""
    ours = {**KEEP_ALL, "jax_compilation_cache_dir": str(folder)}
    theirs = {name: getattr(jax.config, name) for name in ours}
    try:
        _configure(ours)
        yield
    finally:
        _configure(theirs)


def _configure(values):
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Of the runs of this file that are processes, and of what all runs compile."""
    folder = tmp_path_factory.mktemp("runs")
    with compiled_in(folder / "compiled"):
        yield folder


# --- what must be the same -----------------------------------------------------------------------


def rows(workdir):
    """metrics.jsonl without the wall clock."""
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")}
        for row in files.read_rows(workdir / files.METRICS)
    ]


def summary(workdir):
    """summary.json without the wall clock, the memory and the code's history."""
    other = ("train_seconds", "compile_seconds", "seconds_per_epoch", "peak_rss_bytes")
    content = files.read_json(workdir / files.SUMMARY)
    return {k: v for k, v in content.items() if k not in (*other, "git_revision")}


def restored(workdir):
    """The latest and the best checkpoint."""
    config, _ = files.read_config(workdir)
    examples = splits.load(config)
    recipe = train.make_recipe(config, len(examples.class_names), len(examples.train.labels))
    hparams, root = train.make_hparams(config), jax.random.key(config.seed)
    like = jax.eval_shape(lambda: train.init_state(recipe, hparams, root))
    with checkpoint.open_directory(workdir / files.CHECKPOINTS) as manager:
        return checkpoint.restore_latest(manager, like), checkpoint.restore_best(manager, like)


def bits(state):
    """Every array of a state, by its path."""
    leaves, _ = jax.tree.flatten_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def is_whole_and_the_same(workdir, unbroken):
    assert rows(workdir) == rows(unbroken)
    assert summary(workdir) == summary(unbroken)
    logits = [(w / files.PREDICTIONS).read_bytes() for w in (workdir, unbroken)]
    assert logits[0] == logits[1]
    for ours, theirs in zip(restored(workdir), restored(unbroken), strict=True):
        assert ours.history == files.read_rows(workdir / files.METRICS)[: ours.epoch]
        assert ours.epoch == theirs.epoch
        assert bits(ours.state) == bits(theirs.state)
    shown = [
        (epoch, value)
        for tag, epoch, value in scalars(workdir / files.TENSORBOARD)
        if tag == "train_loss"
    ]
    assert shown == [(row["epoch"], np.float32(row["train_loss"])) for row in rows(workdir)]
    for part in (".", files.CHECKPOINTS):  # no litter, but for damage that was put aside
        there, wanted = ({x.name for x in (w / part).iterdir()} for w in (workdir, unbroken))
        assert {name for name in there if not name.endswith(".damaged")} == wanted


# --- kills and signals, in processes of their own ------------------------------------------------


def environment(folder):
    """Of a process that runs in a folder; this Python is the first on its path."""
    return {
        **os.environ,
        **{name.upper(): str(value) for name, value in KEEP_ALL.items()},
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def start(workdir, epochs):
    """The command, in the background."""
    argv = [*EVERYTHING, f"--config.train.epochs={epochs}", f"--workdir={workdir}"]
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_jax.main", *argv],
        cwd=ROOT,
        env=environment(workdir.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(workdir, epochs):
    """Runs the command to its end."""
    process = start(workdir, epochs)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, ""), out + err
    return out


def unbroken_run(folder, epochs):
    """The workdir of a run that nothing befell."""
    workdir = folder / f"unbroken-{epochs}"
    if not workdir.exists():
        finish(workdir, epochs)
    return workdir


def half_saved(workdir):
    """The directories that orbax is writing a checkpoint into."""
    return set((workdir / files.CHECKPOINTS).glob("*.orbax-checkpoint-tmp*"))


def num_rows(workdir):
    path = workdir / files.METRICS
    return len(path.read_text().splitlines()) if path.exists() else 0


MOMENTS = {"after an epoch": 0.4, "during a save": 0.02, "at the start": 6}  # s until the kill


def wait_for(moment, process, workdir):
    """Waits until a process has come to its next such moment, or has ended."""
    rows, saving = num_rows(workdir), half_saved(workdir)
    reached = {
        "after an epoch": lambda: num_rows(workdir) > rows,
        "during a save": lambda: half_saved(workdir) - saving,
        "at the start": lambda: True,
    }[moment]
    while process.poll() is None and not reached():
        time.sleep(0.001)


def kill_and_resume(tmp_path, kills, seed):
    """Kills a run at random moments, resumes it each time, and compares it with an unbroken one.

    Args:
      tmp_path: a folder for the runs; unbroken ones in it are used again.
      kills: how many.
      seed: of the moments.

    Returns:
      What each kill hit, for a person to read.
    """
    rng, epochs = random.Random(seed), 6 + 3 * kills
    unbroken = unbroken_run(tmp_path, epochs)
    workdir = tmp_path / f"killed-{seed}"
    hits = []
    for n in range(kills):
        moment = list(MOMENTS)[(n + seed) % len(MOMENTS)]
        process = start(workdir, epochs)
        if moment != "at the start":
            for _ in range(rng.randint(0, 2)):
                wait_for("after an epoch", process, workdir)
        wait_for(moment, process, workdir)
        delay = rng.uniform(0, MOMENTS[moment])
        time.sleep(delay)
        process.kill()
        out, err = process.communicate()
        hits.append(
            f"{moment} + {delay:.3f} s: {num_rows(workdir)} of {epochs} epochs in metrics.jsonl, "
            f"saving {[path.name for path in half_saved(workdir)]}"
        )
        print(f"seed {seed}: {hits[-1]}")
        assert process.returncode == -signal.SIGKILL, f"it ended before it was killed: {out}{err}"
    finish(workdir, epochs)
    is_whole_and_the_same(workdir, unbroken)
    return hits


def test_killed_at_random_moments(folder):
    kill_and_resume(folder, kills=3, seed=random.randrange(1000))


def test_stopped_by_signals(folder):
    """SIGTERM, SIGINT, and SIGINT twice; then on to the end."""
    epochs = 15  # those of the test above: the unbroken run is the same
    unbroken = unbroken_run(folder, epochs)
    workdir = folder / "stopped"
    command = (
        f"  python -m mnist_jax.main .*--config.train.epochs={epochs} --workdir={workdir}\n"
    ).replace("(", r"\(")

    for signum, code, epoch in ((signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 4)):
        process = start(workdir, epochs)
        first = next(line for line in process.stdout if line.startswith(f"epoch {epoch}/"))
        process.send_signal(signum)
        out, err = process.communicate()
        assert process.returncode == code, first + out + err
        assert err == "stopping once this epoch is done and saved; the same again stops at once\n"
        # The signal may find the next epoch begun.
        stopped = re.search(
            rf"stopped after epoch (\d+) of {epochs}, which is saved; to go on:\n{command}$", out
        )
        assert stopped, out
        assert epoch <= int(stopped[1]) <= epoch + 1 < epochs
        assert num_rows(workdir) == int(stopped[1])
        assert restored(workdir)[0].epoch == int(stopped[1])
        assert not (workdir / files.SUMMARY).exists()

    process = start(workdir, epochs)
    lines = iter(process.stdout.readline, "")
    next(lines)  # what it trains on
    assert next(lines) == f"{workdir}: goes on after epoch {stopped[1]} of {epochs}\n"
    assert next(lines).startswith(f"epoch {int(stopped[1]) + 1}/")
    process.send_signal(signal.SIGINT)
    asked = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, out + err
    assert asked.startswith("stopping once")
    assert err == "stopped at once; the same command goes on after the last epoch\n"

    finish(workdir, epochs)
    is_whole_and_the_same(workdir, unbroken)


# --- the rest in this process, on a net that compiles in a moment --------------------------------


@pytest.fixture(scope="module")
def config():
    return cli.parse(MLP).config


@pytest.fixture(scope="module")
def examples(config):
    return splits.load(config)


@pytest.fixture(scope="module")
def unbroken(config, examples, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    run.run(config, examples, workdir, echo=lambda line: None)
    return workdir


def at_epoch(epoch, act):
    """An echo that acts when it is told of an epoch."""
    return lambda line: act() if line.startswith(f"epoch {epoch}/") else None


def stop(config, examples, workdir, epoch):
    """Runs until an epoch is saved."""
    ask = at_epoch(epoch, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(progress.Stopped, match=f"after epoch {epoch} of 6"):
        run.run(config, examples, workdir, echo=ask)
    return workdir


def damage(checkpoint_path):
    """Flips a bit in the middle of every array's file."""
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
        run.run(config, examples, tmp_path / "run", echo=at_epoch(2, twice))
    assert num_rows(tmp_path / "run") == 2
    run.run(config, examples, tmp_path / "run", echo=lambda line: None)
    is_whole_and_the_same(tmp_path / "run", unbroken)


def test_a_signal_in_the_last_epoch_changes_nothing(config, examples, unbroken, tmp_path):
    ask = at_epoch(6, lambda: signal.raise_signal(signal.SIGTERM))
    run.run(config, examples, tmp_path / "run", echo=ask)
    is_whole_and_the_same(tmp_path / "run", unbroken)


@pytest.mark.parametrize("lost", [[files.SUMMARY], [files.SUMMARY, files.METRICS]])
def test_what_is_trained_is_not_trained_again(
    config, examples, unbroken, tmp_path, monkeypatch, lost
):
    """The run was killed between its last checkpoint and its summary."""
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    for name in lost:
        (workdir / name).unlink()
    monkeypatch.setattr(run, "_train_epoch", lambda *args: pytest.fail("it trains"))
    lines = []
    run.run(config, examples, workdir, echo=lines.append)
    is_whole_and_the_same(workdir, unbroken)
    before, after = ((w / files.METRICS).read_text() for w in (unbroken, workdir))
    assert before == after  # its wall clock too
    assert lines[1:] == [f"{workdir}: goes on after epoch 6 of 6"]


def test_a_finished_run_is_left_alone(config, examples, unbroken, monkeypatch):
    monkeypatch.setattr(run, "compile_program", lambda *args: pytest.fail("it compiles"))
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")}
    lines = []
    returned = run.run(config, examples, unbroken, echo=lines.append)
    assert returned == files.read_json(unbroken / files.SUMMARY)
    assert lines == [f"{unbroken}: is finished; --overwrite starts it anew"]
    assert {path: path.stat().st_mtime_ns for path in unbroken.rglob("*")} == before


def test_overwrite_starts_anew(config, examples, unbroken, tmp_path):
    workdir = shutil.copytree(unbroken, tmp_path / "run")
    lines = []
    run.run(config, examples, workdir, overwrite=True, echo=lines.append)
    assert [line.split()[1] for line in lines[1:]] == [f"{epoch}/6" for epoch in range(1, 7)]
    is_whole_and_the_same(workdir, unbroken)


def test_a_damaged_newest_checkpoint_is_passed_over(config, examples, unbroken, tmp_path):
    workdir = stop(config, examples, tmp_path / "run", 4)
    damage(workdir / files.CHECKPOINTS / "4")
    lines = []
    run.run(config, examples, workdir, echo=lines.append)
    assert lines[1].startswith(f"{workdir}/{files.CHECKPOINTS}/4: damaged checkpoint passed over")
    assert lines[2] == f"{workdir}: goes on after epoch 3 of 6"
    assert [line.split()[1] for line in lines[3:]] == ["4/6", "5/6", "6/6"]
    is_whole_and_the_same(workdir, unbroken)


def test_nothing_but_damaged_checkpoints(config, examples, tmp_path, capsys):
    workdir = stop(config, examples, tmp_path / "run", 3)
    for epoch in (2, 3):
        damage(workdir / files.CHECKPOINTS / str(epoch))
    capsys.readouterr()
    assert main.main([*MLP, f"--workdir={workdir}"]) == 2
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()[1:]] == [
        f"{workdir}/{files.CHECKPOINTS}/{epoch}" for epoch in (3, 2)
    ]
    assert re.fullmatch(r"error: \S+/checkpoints: every checkpoint is damaged: .*\n", err)


# --- no room -------------------------------------------------------------------------------------


def test_no_room_for_a_checkpoint(config, examples, unbroken, tmp_path):
    """From epoch 3 on no file may be larger than 16 kB, as when the disk is full."""
    workdir = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = at_epoch(3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, hard)))
    try:
        with pytest.raises(UserError, match=r"checkpoints: can not write.*make room") as error:
            run.run(config, examples, workdir, echo=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert restored(workdir)[0].epoch >= 3 - 1  # the third's save may have been under way
    run.run(config, examples, workdir, echo=lambda line: None)
    is_whole_and_the_same(workdir, unbroken)


def no_new_files(directory):
    """Puts a file in the place of a directory; undone by what it returns."""
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
    assert re.fullmatch(rf"error: {workdir}/{name}: can ?not .*\n", capsys.readouterr().err)
    undo()
    run.run(config, examples, workdir, echo=lambda line: None)
    is_whole_and_the_same(workdir, unbroken)


def test_metrics_that_cannot_be_written(config, examples, unbroken, tmp_path):
    """The epoch whose row has no room is not lost: its checkpoint was on its way."""
    workdir = tmp_path / "run"

    def block():
        (workdir / files.METRICS).unlink()
        (workdir / files.METRICS).mkdir()

    with pytest.raises(UserError, match=r"metrics.jsonl: cannot be written \(.*\); make room"):
        run.run(config, examples, workdir, echo=at_epoch(2, block))
    assert restored(workdir)[0].epoch == 3
    (workdir / files.METRICS).rmdir()
    run.run(config, examples, workdir, echo=lambda line: None)
    is_whole_and_the_same(workdir, unbroken)


# --- what is compiled ----------------------------------------------------------------------------


def test_an_epoch_is_traced_once_a_process(config, examples, tmp_path, monkeypatch):
    traced = []
    step = train.train_step
    monkeypatch.setattr(train, "train_step", lambda *args: traced.append(1) or step(*args))
    workdir = stop(config, examples, tmp_path / "run", 3)
    assert len(traced) == 1
    run.run(config, examples, workdir, echo=lambda line: None)
    assert len(traced) == 2


def test_the_command_says_how_to_go_on(unbroken, tmp_path, capsys, monkeypatch, folder):
    """And what it says does go on."""
    workdir = tmp_path / "a run"  # a name that a shell takes apart
    say = at_epoch(2, lambda: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(commands, "_say", lambda line: print(line) or say(line))
    assert main.main([*MLP, f"--workdir={workdir}"]) == 143
    command = capsys.readouterr().out.splitlines()[-1]
    env = environment(folder)
    done = subprocess.run(command, shell=True, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == f"{workdir}: goes on after epoch 2 of 6"
    is_whole_and_the_same(workdir, unbroken)
