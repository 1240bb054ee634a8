"""The most memory held: in bytes, of this process alone."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mnist_jax.runtime import memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")


@linux
def test_the_peak_is_in_bytes_and_stays_after_the_memory_is_free():
    def from_linux() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])

    ballast = np.ones(2**28, np.uint8)  # more than the process held before, maybe
    held = from_linux()
    del ballast
    assert memory.peak_rss_bytes() == pytest.approx(held, rel=0.02)


@linux
def test_a_process_does_not_inherit_the_peak_of_the_one_that_starts_it():
    ballast = np.ones(2**28, np.uint8)
    code = "from mnist_jax import memory; print(memory.peak_rss_bytes())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 2**20 < int(done.stdout) < len(ballast) // 2


@pytest.mark.parametrize(("system", "unit"), [("darwin", 1), ("freebsd14", 1024)])
def test_the_peak_of_other_systems(monkeypatch, system, unit):
    usage = SimpleNamespace(ru_maxrss=5000)
    monkeypatch.setattr(memory.resource, "getrusage", lambda _: usage)
    monkeypatch.setattr(sys, "platform", system)
    assert memory.peak_rss_bytes() == 5000 * unit
