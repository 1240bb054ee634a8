"""Provenance of a result: machine, memory, versions, git revision. Loads JAX only on demand."""

import os
import platform
import re
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "mnist_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tensorflow-datasets",
    "ml-collections",
    "numpy",
)
CPUINFO = Path("/proc/cpuinfo")


def device() -> str:
    """Describe the accelerators in use, or the processor and its cores: "2 cores of AMD EPYC"."""
    import jax

    devices = jax.devices()
    if devices[0].platform == "cpu":
        count = f"{jax.process_count()} processes, each on " if jax.process_count() > 1 else ""
        return f"{count}{cores()} cores of {_processor()}"
    return f"{len(devices)} x {devices[0].device_kind}"


def cores() -> int:
    """Number of cores that this process may use, where the system reports it; else all."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_rss_bytes() -> int:
    """Peak memory of this program on the host, without its parent's.

    On Linux `ru_maxrss` includes the peak of the program that started this one.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def git_revision() -> str | None:
    """Return the commit of this code, "-dirty" with changes; None outside its checkout."""
    here = Path(__file__)
    try:
        # An environment inside another project's checkout must not report that project's commit.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    """Return the processor's model, where Linux reports it, else its architecture."""
    info = CPUINFO.read_text() if CPUINFO.exists() else ""
    model = re.search(r"^model name\s*: (.+)$", info, re.MULTILINE)
    return model[1] if model else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is used without being installed
        return "not installed"


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
