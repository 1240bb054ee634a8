"""The output of a running training, and stopping it."""

import fcntl
import io
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from shell import terminal

from mnist_jax.runtime import progress

ROOT = Path(__file__).parents[2]
ROW = {
    "epoch": 2,
    "step": 20,
    "train_loss": 0.25,
    "train_accuracy": 0.925,
    "val_loss": 0.125,
    "val_accuracy": 0.9375,
    "learning_rate": 1e-3,
    "seconds": 1.25,
    "examples_per_second": 43210.0,
}
UNVALIDATED = {**ROW, "val_loss": None, "val_accuracy": None}
LINE = "epoch 2/6  loss 0.2500 acc 92.50%"


# --- lines and bars ------------------------------------------------------------------------------


def test_an_epoch_in_one_line():
    line = progress.epoch_line([ROW], 1, 6, 1.25)
    assert line == f"{LINE}  val loss 0.1250 acc 93.75%  1.2 s"
    assert progress.epoch_line([UNVALIDATED], 1, 6, 1.25) == f"{LINE}  1.2 s"
    without = {**ROW, "train_accuracy": None, "val_accuracy": None}
    assert (
        progress.epoch_line([without], 1, 6, 2.0)
        == "epoch 2/6  loss 0.2500  val loss 0.1250  2.0 s"
    )


def test_a_long_epoch_fits_80_columns():
    row = {**ROW, "epoch": 99, "train_loss": 1.25e30, "train_accuracy": 1.0, "val_loss": 123456.0}
    assert len(progress.epoch_line([row], 1, 100, 1234.5)) <= 80
    other = {**row, "train_accuracy": 0.0, "val_accuracy": 0.0}
    assert len(progress.epoch_line([row, other], 2, 100, 1234.5)) <= 80


def test_elsewhere_than_on_a_terminal_there_are_lines(capfd):
    lines = []
    with progress.phase("compiling"):
        pass
    with progress.Bar(6, 1, 100, lines.append) as bar:
        bar.start_epoch(100)
        bar.describe("epoch 2/6")
        bar.tick()
        bar.add(100)
        bar.end_epoch("epoch 2/6  loss 0.2500")
        bar.write("note")
    assert lines == ["epoch 2/6  loss 0.2500"]
    assert capfd.readouterr() == ("", "note\n")


def test_within_an_epoch_the_bar_moves_at_the_speed_of_the_one_before(monkeypatch):
    """As far as the end of the epoch; two of its three trials are added in the middle."""
    clock = [10.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    with progress.Bar(4, 0, 300, lambda line: None) as bar:
        seen = []

        def wait(seconds):
            clock[0] += seconds
            bar.tick()
            seen.append(bar.bar.n)

        bar.start_epoch(300)
        wait(5)
        wait(5)
        bar.add(300)
        bar.end_epoch("")
        bar.start_epoch(300)
        for _ in range(3):
            wait(2.5)
        bar.add(250)
        wait(1)
        wait(90)
        bar.add(50)
        assert (seen, bar.bar.n) == ([0, 0, 375, 450, 525, 555, 597], 600)


ARGV = [
    sys.executable,
    "-m",
    "mnist_jax.main",
    "--config=configs/linear.py:digits",
    "--config.train.epochs=3",
    "--config.train.batch_size=1",  # an epoch of some tenths of a second
]


def on_terminal(workdir, **streams):
    """Runs the command with a terminal in the place of its streams; what the terminal got."""
    ours, theirs = terminal()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, **streams}
    process = subprocess.Popen([*ARGV, f"--workdir={workdir}"], cwd=ROOT, **streams)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # Linux's error for a terminal that no process has open
        pass
    os.close(ours)
    out = process.stdout.read().decode() if process.stdout else ""
    if process.stdout:
        process.stdout.close()
    assert process.wait() == 0, shown.decode() + out
    return shown.decode().replace("\r\n", "\n"), out


def test_several_trials_in_a_line():
    """Mean and standard deviation; of one trial its own numbers; diverged ones are in no mean."""
    row = {"epoch": 2, "train_loss": 0.5, "train_accuracy": 0.9, "val_accuracy": 0.8}
    other = {**row, "train_accuracy": 0.94, "val_accuracy": None, "train_loss": None}
    line = progress.epoch_line([row, other], 3, 5, 1.25)
    assert line == "epoch 2/5  trials 2 of 3  acc 92.00 ± 2.83%  val acc 80.00%  diverged 1  1.2 s"
    line = progress.epoch_line([{**row, "val_accuracy": None}], 2, 5, 1.0)
    assert line == "epoch 2/5  trials 1 of 2  acc 90.00%  1.0 s"


def test_a_terminal_of_80_columns_shows_a_bar_and_keeps_a_line_per_epoch(tmp_path):
    shown, _ = on_terminal(tmp_path / "run")
    # What is left on the screen: of each line what was last drawn over it.
    left = [line.rpartition("\r")[2] for line in shown.split("\n")]
    loss, percent = r"\d\.\d{4}", r"\d+\.\d\d%"
    result = rf"loss {loss} acc {percent}  val loss {loss} acc {percent}  \d+\.\d s"
    first, *epochs, headline, rest = left
    assert first.endswith(" on digits: 1,293 train, 144 val, 360 test")
    assert len(epochs) == 3
    for number, line in enumerate(epochs, 1):
        assert re.fullmatch(rf"epoch {number}/3  {result}", line), line
    assert headline.startswith("digits: test accuracy ")
    assert headline.endswith(f"report: {tmp_path}/run/report.html")
    assert rest == ""
    # Meanwhile: the phases, and a bar that has room beside the numbers.
    drawn = [text.rstrip() for text in shown.split("\r")]
    assert [text for text in drawn if text.endswith(" ...")] == [
        "compiling ...",
        "testing ...",
        "explaining ...",
        "writing the report ...",
    ]
    bars = [text for text in drawn if "|" in text]
    times = r"\d\d:\d\d<(\d\d:\d\d|\?), ( *[\d.]+k?|\?) examples/s"
    for text in bars:
        assert re.fullmatch(rf"epoch [123]/3 +\d+%\|.{{24,}}\| {times}", text), text
        assert len(text) <= 80
    assert sum(text.startswith("epoch 1/3   0%|") for text in bars) > 2  # the clock moves


def test_into_a_file_there_are_lines_though_errors_go_to_a_terminal(tmp_path):
    shown, out = on_terminal(tmp_path / "run", stdout=subprocess.PIPE)
    assert shown == ""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out)  # control characters
    starts = [line.split("  ")[0] for line in out.splitlines()]
    assert starts[1:4] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]


# --- signals -------------------------------------------------------------------------------------

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers():
    """Every test leaves the handlers that it found."""
    before = [signal.getsignal(signum) for signum in SIGNALS]
    yield
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


@pytest.mark.parametrize("signum", SIGNALS)
def test_the_first_signal_asks_and_the_second_acts(signum):
    lines = []
    with progress.interruptible(lines.append) as asked:
        assert asked() == 0
        signal.raise_signal(signum)
        assert asked() == signum
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert lines == ["stopping after this epoch, which will be saved; the same again stops at once"]


def test_an_error_brings_the_handlers_back():
    with pytest.raises(ZeroDivisionError), progress.interruptible(lambda line: None):
        raise ZeroDivisionError


def test_a_signal_in_the_middle_of_a_write():
    """Python refuses to write to a stream from within a write to it; the request stands."""

    class Device(io.RawIOBase):
        def __init__(self):
            self.signals = 1

        def writable(self):
            return True

        def write(self, data):
            while self.signals:
                self.signals -= 1
                signal.raise_signal(signal.SIGTERM)
            return len(data)

    stream = io.TextIOWrapper(io.BufferedWriter(Device()), line_buffering=True)
    with progress.interruptible(lambda line: print(line, file=stream)) as asked:
        print("busy", file=stream)
        assert asked() == signal.SIGTERM


def test_off_the_main_thread_nothing_is_asked():
    """In a thread of a notebook or server Python allows no signal handlers; the run needs none."""
    seen = []

    def work():
        with progress.interruptible(seen.append) as asked:
            seen.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]
