"""Memory in bytes: what a process uses, what the machine has, and the bound that conversions keep."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import resource
import sys
from pathlib import Path

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
FIXED_ALLOWANCE_BYTES = 200 * 10**6


def conversion_bound_bytes(import_rss_bytes: int, largest_tensor_bytes: int) -> int:
    """The bound that every conversion keeps: importing TensorFlow + 2 × the largest tensor + 200 MB."""
    return import_rss_bytes + 2 * largest_tensor_bytes + FIXED_ALLOWANCE_BYTES


def parse_bytes(text: str) -> int:
    """`"4GiB"` → 4294967296; `"500 MB"` → 500000000. Raises ValueError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write a number and a unit, such as 500MB or 4GiB")
    return int(float(match[1]) * UNITS[match[2] or ""])


def format_bytes(nbytes: int) -> str:
    """Decimal units, three significant digits: `178 MB`."""
    size = float(nbytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.3g} {unit}"


def peak_rss_bytes() -> int:
    """The highest resident set of this process so far.

    Linux's `VmHWM` belongs to this program alone; `ru_maxrss` also remembers the parent that forked it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes() -> int:
    """What this process may still use: the machine's available memory, or the cgroup's rest where that is less."""
    import psutil

    machine = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        return min(machine, int(limit.read_text()) - int(used.read_text()))
    return machine


def processors() -> int:
    """Those that this process may use: `taskset` and a cgroup's quota count."""
    import psutil

    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    words = quota.read_text().split() if quota.exists() else ["max"]
    return affine if words[0] == "max" else max(1, min(affine, round(int(words[0]) / int(words[1]))))


def rss_bytes() -> int:
    """The resident set of this process now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def release_unused() -> None:
    """Free what only cycles refer to, and have the C library (glibc) give free memory back to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
