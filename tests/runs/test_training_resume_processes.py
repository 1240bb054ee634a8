"""A command that is killed or stopped at any moment resumes to the bits of an unbroken one."""

import random
import re
import signal
import time

import forks
import pytest
from tiny_runs import ROOT, environment, is_whole_and_the_same, restored

from mnist_jax.workdir import files

pytestmark = pytest.mark.usefixtures("folder")

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


def start(workdir, epochs):
    """The command, in the background."""
    argv = [*EVERYTHING, f"--config.train.epochs={epochs}", f"--workdir={workdir}"]
    return forks.Process(["-m", "mnist_jax.main", *argv], ROOT, environment(workdir.parent))


def finish(workdir, epochs):
    """Runs the command to its end."""
    process = start(workdir, epochs)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, ""), out + err
    return out


def unbroken_run(folder, epochs):
    """The workdir of an unbroken run."""
    workdir = folder / f"unbroken-{epochs}"
    if not workdir.exists():
        finish(workdir, epochs)
    return workdir


def half_saved(workdir):
    """The directories that orbax is writing a checkpoint into."""
    return set((workdir / files.CHECKPOINTS).glob("0/*.orbax-checkpoint-tmp*"))


def num_rows(workdir):
    path = workdir / files.METRICS
    return len(path.read_text().splitlines()) if path.exists() else 0


MOMENTS = {"after an epoch": 0.4, "during a save": 0.02, "at the start": 6}  # s until the kill


def wait_for(moment, process, workdir):
    """Wait for the next such moment of a process, or for its end."""
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
        if n and process.returncode == 0:  # of few epochs that were left, it ended before
            break
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
        assert (
            err == "stopping after this epoch, which will be saved; the same again stops at once\n"
        )
        # The signal may find the next epoch begun.
        stopped = re.search(
            rf"stopped after epoch (\d+) of {epochs}, which is saved; to resume:\n{command}$", out
        )
        assert stopped, out
        assert epoch <= int(stopped[1]) <= epoch + 1 < epochs
        assert num_rows(workdir) == int(stopped[1])
        assert restored(workdir).epoch == int(stopped[1])
        assert not (workdir / files.SUMMARY).exists()

    process = start(workdir, epochs)
    lines = iter(process.stdout.readline, "")
    next(lines)  # the data
    assert next(lines) == f"{workdir}: resumes after epoch {stopped[1]}/{epochs}\n"
    assert next(lines).startswith(f"epoch {int(stopped[1]) + 1}/")
    process.send_signal(signal.SIGINT)
    asked = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, out + err
    assert asked.startswith("stopping after")
    assert err == "stopped at once; the same command without --overwrite resumes the run\n"

    finish(workdir, epochs)
    is_whole_and_the_same(workdir, unbroken)
