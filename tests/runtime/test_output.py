"""Standard output and error that cannot be written, or cannot encode what is written."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from shell import DIGITS, ROOT, terminal

from mnist_jax import main
from mnist_jax.runtime import exits, output
from mnist_jax.workdir import files

RUN = [DIGITS, "--config.train.epochs=2"]


@pytest.fixture(autouse=True)
def streams():
    """Every test leaves the streams and the handler that it found."""
    before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGHUP)
    yield
    sys.stdout, sys.stderr, _ = before
    assert signal.getsignal(signal.SIGHUP) == before[2]


def is_finished(workdir: Path) -> bool:
    return (workdir / files.SUMMARY).exists() and (workdir / files.REPORT).exists()


# Training


def test_characters_that_standard_output_cannot_encode_are_replaced(tmp_path):
    """The ± sign in ASCII."""
    written = io.BytesIO()
    sys.stdout = io.TextIOWrapper(written, encoding="ascii", errors="strict")
    assert main.main([*RUN, "--config.sweep.seeds=2", f"--workdir={tmp_path}/run"]) == 0
    lines = written.getvalue().decode("ascii").splitlines()
    assert any(line.startswith("epoch 2/2  trials 2  acc ") and " ? " in line for line in lines)
    assert " ? " in lines[-1]
    assert is_finished(tmp_path / "run")


def test_training_continues_if_the_disk_of_its_output_is_full(tmp_path, capsys):
    with Path("/dev/full").open("w") as sys.stdout:
        assert main.main([*RUN, f"--workdir={tmp_path}/run"]) == 0
    assert is_finished(tmp_path / "run")
    assert capsys.readouterr().err == (
        "warning: standard output: cannot be written (No space left on device); send it somewhere "
        "else; the run continues\n"
    )


def test_training_continues_without_standard_streams(tmp_path):
    sys.stdout = sys.stderr = None
    assert main.main([*RUN, f"--workdir={tmp_path}/run"]) == 0
    assert is_finished(tmp_path / "run")


def test_training_continues_when_its_terminal_is_closed(tmp_path):
    """The terminal that controls the process hangs up after the first epoch."""
    ours, theirs = terminal()
    become = "import fcntl, os, runpy, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    run = "runpy.run_module('mnist_jax.main', run_name='__main__', alter_sys=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", become + run, *RUN, f"--workdir={tmp_path}/run"],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while b"epoch 1/2  " not in shown:
        shown += os.read(ours, 65536)
    os.close(ours)
    assert process.wait() == 0
    assert is_finished(tmp_path / "run")


def test_sighup_stops_nothing_meanwhile(capsys):
    with output.without_reader() as log:
        signal.raise_signal(signal.SIGHUP)
        log("still here")
    assert capsys.readouterr() == ("still here\n", "")


def test_a_closed_pipe_is_reported_at_the_end():
    there, here = os.pipe()
    os.close(there)
    lines = []

    def work():
        with output.without_reader() as log:
            for line in ("one", "two"):
                log(line)
                lines.append(line)

    with os.fdopen(here, "w") as sys.stdout, pytest.raises(output.Unwritable):
        work()
    assert lines == ["one", "two"]


# Other commands


@exits.command
def greet(argv):
    output.say("hello")
    return 0


def test_other_commands_report_a_full_disk_in_one_line(capsys):
    with Path("/dev/full").open("w") as sys.stdout:
        assert greet([]) == 2
    assert capsys.readouterr().err == (
        "error: standard output: cannot be written (No space left on device); send it somewhere "
        "else\n"
    )


def test_other_commands_end_quietly_with_a_closed_pipe(capsys):
    there, here = os.pipe()
    os.close(there)
    with os.fdopen(here, "w") as sys.stdout:
        assert greet([]) == 141
    assert capsys.readouterr().err == ""


def test_what_libraries_print_is_written_before_the_end(capsys):
    """Else Python would report the error when it ends, with a traceback."""

    @exits.command
    def prints(argv):
        print("a line that stays in the buffer")
        return 0

    with Path("/dev/full").open("w") as sys.stdout:
        assert prints([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_errors_are_lost_if_standard_error_cannot_be_written():
    with Path("/dev/full").open("w") as sys.stderr:
        output.warn("a line")
        assert greet([]) == 0


@pytest.mark.parametrize("closed", [["stdout"], ["stderr"], ["stdout", "stderr"]])
def test_the_descriptor_of_a_closed_stream_is_not_given_to_a_file(tmp_path, closed):
    """Otherwise prints of C libraries would get into the next file that is opened."""
    code = (
        "import os, sys\n"
        "from mnist_jax.runtime import output\n"
        "output.prepare()\n"
        "with open(sys.argv[1], 'w') as file: os.write(1, b'x'); os.write(2, b'x')\n"
        "output.say('x'); output.warn('x')"
    )
    numbers = {"stdout": 1, "stderr": 2}
    redirections = " ".join(f"{numbers[name]}>&-" for name in closed)
    file = tmp_path / "file"
    command = f'exec "$0" -c "$1" "$2" {redirections}'
    done = subprocess.run(["sh", "-c", command, sys.executable, code, file], cwd=ROOT, check=True)
    assert done.returncode == 0
    assert file.read_text() == ""


def test_blocks_are_shown_on_a_terminal_that_has_them(monkeypatch):
    for encoding, shows in (("utf-8", True), ("ascii", False), ("latin-1", False)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
        monkeypatch.setattr(sys, "stdout", stream)
        assert output.shows_blocks() is shows
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert not output.shows_blocks()
