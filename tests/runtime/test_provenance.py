"""The machine, memory, versions and revision of a result."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mnist_jax.runtime import provenance

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with this module in it, committed."""
    module = tmp_path / "package" / "provenance.py"
    module.parent.mkdir()
    module.write_text("pass\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--message=one")
    monkeypatch.setattr(provenance, "__file__", str(module))
    return tmp_path


def test_revision_of_a_clean_checkout(checkout):
    assert provenance.git_revision() == git(checkout, "rev-parse", "HEAD")


def test_a_tag_does_not_hide_the_revision(checkout):
    git(checkout, "tag", "--annotate", "v1", "--message=v1")
    assert provenance.git_revision() == git(checkout, "rev-parse", "HEAD")


def test_revision_says_that_the_code_was_changed(checkout):
    (checkout / "package" / "provenance.py").write_text("changed = True\n")
    assert provenance.git_revision() == git(checkout, "rev-parse", "HEAD") + "-dirty"


def test_no_revision_of_a_project_that_has_the_package_installed_inside(checkout):
    git(checkout, "rm", "--cached", "package/provenance.py")
    git(checkout, "commit", "--allow-empty", "--message=two")
    assert git(checkout, "rev-parse", "HEAD")
    assert provenance.git_revision() is None


def test_no_revision_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.git_revision() is None


def test_no_revision_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_revision() is None


def test_versions_are_those_that_are_installed():
    versions = provenance.versions()
    assert list(versions) == ["python", *provenance.PACKAGES]
    assert versions["python"] == platform.python_version()
    assert versions["jax"] == jax.__version__
    assert versions["numpy"] == np.__version__


def test_a_checkout_that_is_not_installed_has_versions_too(monkeypatch):
    """Or a run from it would fail at its very end."""

    def lookup(name):
        if name == "mnist_jax":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(provenance, "version", lookup)
    assert provenance.versions()["mnist_jax"] == "not installed"
    assert provenance.versions()["jax"] == jax.__version__


@linux
def test_the_cores_are_those_that_we_may_use(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert provenance.device() == f"3 cores of {platform.machine()}"


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("processor\t: 0\nmodel name\t: A Chip @ 2 GHz\nmodel\t\t: 17\n", "A Chip @ 2 GHz"),
        ("processor\t: 0\nCPU part\t: 0xd40\n", platform.machine()),
    ],
)
def test_the_processor_has_its_name_where_it_says_it(tmp_path, monkeypatch, lines, name):
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "cpuinfo")
    provenance.CPUINFO.write_text(lines)
    assert provenance.device().endswith(f" cores of {name}")


def test_the_cores_where_the_system_does_not_say_which_we_may_use(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert provenance.device() == f"10 cores of {platform.machine()}"


def test_the_processes_on_cpus_are_counted(monkeypatch):
    alone = provenance.device()
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    assert provenance.device() == f"4 processes, each on {alone}"


def test_the_accelerators_are_counted(monkeypatch):
    gpu = SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")
    monkeypatch.setattr(jax, "devices", lambda: [gpu, gpu])
    assert provenance.device() == "2 x NVIDIA H200"


@linux
def test_the_peak_is_in_bytes_and_stays_after_the_memory_is_free():
    def from_linux() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])

    ballast = np.ones(2**28, np.uint8)  # more than the process held before, maybe
    held = from_linux()
    del ballast
    assert provenance.peak_rss_bytes() == pytest.approx(held, rel=0.02)


@linux
def test_a_process_does_not_inherit_the_peak_of_the_one_that_starts_it():
    ballast = np.ones(2**28, np.uint8)
    code = "from mnist_jax.runtime import provenance; print(provenance.peak_rss_bytes())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 2**20 < int(done.stdout) < len(ballast) // 2


@pytest.mark.parametrize(("system", "unit"), [("darwin", 1), ("freebsd14", 1024)])
def test_the_peak_of_other_systems(monkeypatch, system, unit):
    usage = SimpleNamespace(ru_maxrss=5000)
    monkeypatch.setattr(provenance.resource, "getrusage", lambda _: usage)
    monkeypatch.setattr(sys, "platform", system)
    assert provenance.peak_rss_bytes() == 5000 * unit
