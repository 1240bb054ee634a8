"""The command, typed in a process of its own or called here, and what it leaves."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import forks
import pytest

from mnist_jax import main

ROOT = Path(__file__).parent.parent
LINEAR, MLP, CNN, STUDY = (
    f"--config={ROOT / 'configs' / name}.py" for name in ("linear", "mlp", "cnn", "study")
)
DIGITS = f"{LINEAR}:digits"


def typed(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m mnist_jax.main` in a process of its own."""
    return forks.run(["-m", "mnist_jax.main", *args], cwd, {**os.environ, **env})


def unread(module: str, *args: str | Path) -> tuple[int, str]:
    """Return the exit code and the errors of a command without a reader, as in `| head`."""
    there, here = os.pipe()
    os.close(there)
    command = [sys.executable, "-m", f"mnist_jax.{module}", *args]
    done = subprocess.run(command, cwd=ROOT, stdout=here, stderr=subprocess.PIPE, text=True)
    os.close(here)
    return done.returncode, done.stderr


def terminal() -> tuple[int, int]:
    """Open a terminal and return both ends; skip the test without one."""
    try:
        return pty.openpty()
    except OSError as error:
        pytest.skip(f"this machine has no pseudo-terminals: {error}")


def content(path: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's bytes and time of change."""
    files = (file for file in path.rglob("*") if file.is_file())
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def refusal(capsys, *args: str) -> str:
    """Return the one-line message of a user error."""
    assert main.main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+\n", err), f"not one line: {err!r}"
    return err.removeprefix("error: ").rstrip("\n")
