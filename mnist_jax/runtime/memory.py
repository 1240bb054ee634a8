"""The most memory that a process has held."""

import resource
import sys
from pathlib import Path


def peak_rss_bytes() -> int:
    """On the host; of this program alone, not of the one that started it.

    Linux lets a new program inherit its parent's peak in `ru_maxrss`, so it is not asked there.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
