"""The worker's process: how it is started, what it and its descendants hold in memory, how they are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import psutil

WORKER = (sys.executable, "-m", "exporter.worker")
# Results must not depend on the machine's mood: oneDNN reorders sums, hash seeds reorder sets. PYTHONSAFEPATH keeps the
# modules of the folder that the user happens to be in from being imported, in the worker's children too.
# glibc raises its threshold for mapping a block by itself whenever a large one is freed, and then keeps large tensors
# in fragmented arenas; a fixed one gives each of them back to the system (ConvNeXtXLarge: 882 instead of 991 MB).
# With it comes a threshold of 128 KiB for giving back free memory at the end of an arena, which would happen after
# every piece of a weight.
FIXED_ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
    "PYTHONHASHSEED": "0",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}
DEFAULT_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
# Finding children looks at every process of the machine (4 ms), so it is done more rarely than memory is read.
LISTING_SECONDS = 0.25
# What was killed is over within moments, unless the system itself waits for a disk that does not answer.
KILLED_SECONDS = 10.0
ENDING_SECONDS = 0.002
# For a share of memory the system looks at every page of a process, which takes it 10 to 50 ms where pages are shared:
# this part of the time is for looking.
LOOKING_SHARE = 0.03


class Child(Protocol):
    """A worker that was started. Its process stays, if only as a zombie, until it is reaped."""

    @property
    def pid(self) -> int: ...

    def reap(self) -> tuple[int, int]:
        """Wait for its end: exit status, negative for a signal, and the highest resident set in bytes."""


class Spawn(Protocol):
    """Starts a worker as the leader of a new session, so that its whole group can be killed."""

    def __call__(self, job_path: Path, result_path: Path, events_descriptor: int, log: BinaryIO) -> Child: ...


class SpawnedChild:
    """A child of this very process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid

    def reap(self) -> tuple[int, int]:
        """Linux counts the parent's own memory at the start into `ru_maxrss`; a worker is always above that."""
        _, status, usage = os.wait4(self.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def spawn_worker(
    job_path: Path, result_path: Path, events_descriptor: int, log: BinaryIO, command: Sequence[str] = WORKER
) -> Child:
    """The real runner; whatever the child and its libraries print goes to `log`. Raises OSError."""
    process = subprocess.Popen(
        [*command, str(job_path), str(result_path), str(events_descriptor)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=(events_descriptor,),
        start_new_session=True,
        env=child_environment(),
    )
    return SpawnedChild(process)


def child_environment() -> dict[str, str]:
    """This process's environment, with what a reproducible and silent worker needs."""
    environment = DEFAULT_ENVIRONMENT | dict(os.environ) | FIXED_ENVIRONMENT
    root = str(Path(__file__).resolve().parent.parent)
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        # Not installed, or installed for development: without the current folder the child would not find us.
        inherited = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([root, inherited] if inherited else [root])
    return environment


class ProcessTree:
    """The process `pid`, leader of its own process group and not yet waited for, and its descendants."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._members = [self._root]
        self._listed = time.monotonic()
        self._rss_bytes: dict[psutil.Process, int] = {}
        self._share_bytes, self._next_look = 0, 0.0

    def ended(self) -> bool:
        """Whether the process itself has ended; it stays a zombie, and its id its own, until it is waited for."""
        return _has_ended(self._root)

    def held_bytes(self) -> int:
        """What they hold together: the resident set of a single process, of several the sum of their shares.

        Memory that processes share (after a `fork`) counts once, divided among them; see `proc_pid_smaps(5)`, Pss.
        Between two looks at the shares they grow as the resident sets do.
        """
        if time.monotonic() - self._listed >= LISTING_SECONDS:
            self._list()
        if len(self._members) == 1:
            return _rss_bytes(self._root)
        sizes = {member: _rss_bytes(member) for member in self._members}
        if sizes.keys() != self._rss_bytes.keys() or time.monotonic() >= self._next_look:
            return self.look()
        grown = sum(max(0, size - self._rss_bytes[member]) for member, size in sizes.items())
        return max(sizes[self._root], self._share_bytes + grown)

    def look(self) -> int:
        """As `held_bytes`, as it is at this moment."""
        begun = time.monotonic()
        self._rss_bytes = {member: _rss_bytes(member) for member in self._members}
        counted = [member for member in self._members if member is self._root or _has_started(member)]
        self._share_bytes = sum(map(share_bytes, counted)) if len(counted) > 1 else 0
        ended = time.monotonic()
        pause = (ended - begun) / LOOKING_SHARE if len(counted) == len(self._members) else 0.0
        self._next_look = ended + max(LISTING_SECONDS, pause)
        return max(self._rss_bytes[self._root], self._share_bytes)

    def kill(self) -> None:
        """SIGKILL for all, those included that have left the process group; afterwards none of them writes any more."""
        self._list()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._root.pid, signal.SIGKILL)
        for member in self._members:
            with suppress(psutil.Error):
                member.kill()
        deadline = time.monotonic() + KILLED_SECONDS
        while not all(map(_has_ended, self._members)) and time.monotonic() < deadline:
            time.sleep(ENDING_SECONDS)

    def _list(self) -> None:
        """Descendants seen before stay known: when their parent has ended nobody else finds them."""
        found = [self._root]
        with suppress(psutil.Error):
            found += self._root.children(recursive=True)
        self._members = found + [known for known in self._members if known not in found and known.is_running()]
        self._listed = time.monotonic()


def _has_ended(process: psutil.Process) -> bool:
    """Also where nobody has waited for it yet."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _has_started(process: psutil.Process) -> bool:
    """Whether it runs a program of its own; until then `vfork` lends it its parent's memory, which counts once."""
    try:
        parent = process.parent()
        return parent is None or process.cmdline() != parent.cmdline() or process.name() != parent.name()
    except psutil.Error:
        return False


def share_bytes(process: psutil.Process) -> int:
    """Its resident memory, less what others share of it; 0 for a process that has ended."""
    try:
        found = process.memory_full_info()
        return int(getattr(found, "pss", found.rss))
    except psutil.Error:
        return 0


def _rss_bytes(process: psutil.Process) -> int:
    """0 for a process that has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
