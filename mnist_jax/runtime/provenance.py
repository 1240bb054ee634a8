"""Where a result comes from: machine, versions, revision."""

import os
import platform
import re
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

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
    """The accelerators in use, or the processor and its cores: "2 cores of AMD EPYC"."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        count = f"{jax.process_count()} processes, each on " if jax.process_count() > 1 else ""
        return f"{count}{cores()} cores of {_processor()}"
    return f"{len(devices)} x {devices[0].device_kind}"


def cores() -> int:
    """Return the number of cores that this process may use: in a container fewer than exist."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def peak_rss_bytes() -> int:
    """On the host; of this program alone, not of the one that started it.

    Linux lets a new program inherit its parent's peak in `ru_maxrss`, so it is not asked there.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def jax_peak_bytes() -> int | None:
    """On JAX's first device; None where it is the CPU."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def git_revision() -> str | None:
    """The commit this code is at, "-dirty" with changes; None outside a checkout of it."""
    here = Path(__file__)
    try:
        # An environment inside another project's checkout must not report that project's commit.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    """Its model, where Linux names it; its architecture."""
    info = CPUINFO.read_text() if CPUINFO.exists() else ""
    model = re.search(r"^model name\s*: (.+)$", info, re.MULTILINE)
    return model[1] if model else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is used as it is
        return "not installed"


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
