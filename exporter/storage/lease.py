"""One writer at a time in a folder of an object store, which has no locks: a small file that its holder keeps renewing.

The store decides who creates the file (a conditional request). A holder that was killed stops renewing; who finds
the same content for `EXPIRY_SECONDS` takes over, by its own clock alone, so that clocks need not agree. What this
cannot do: a holder that sleeps longer than that between its last look and its last request is not stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from exporter.errors import InUseError
from exporter.storage.addresses import joined
from exporter.storage.failures import failures, output_error
from exporter.storage.objects import ObjectStore

# Hidden, so that queries do not take its folder for an export.
LEASE = ".export-lease.json"
RENEWAL_SECONDS = 10.0
EXPIRY_SECONDS = 45.0
LOOK_SECONDS = 1.0
# The owner of a lease that is only there for what it remembers.
NOBODY = ""
# Process ids mean something inside of one of these (Linux).
# What leases of living processes of this machine held when, for a batch that looks again and again.
_watched: dict[str, tuple[bytes, float]] = {}
SYSTEM = ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid")


class Lease:
    """Held inside of a `with` block. Entering raises InUseError when another export is alive there, and OutputError."""

    def __init__(self, store: ObjectStore, stop: threading.Event | None = None) -> None:
        self._store, self._stop = store, stop or threading.Event()
        self._owner, self._count = uuid.uuid4().hex, 0
        self._ended = threading.Event()
        self._lock = threading.Lock()
        # Files of an export whose replacement did not come to its end.
        self.left: tuple[str, ...] = ()

    def __enter__(self) -> Lease:
        try:
            while not self._store.create(LEASE, self._content()):
                self._take_over()
        except failures() as error:
            raise output_error(error, joined(self._store.address, LEASE)) from error
        self._renewing = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._renewing.join()
        # Where the store is out of reach now, the lease expires.
        with suppress(*failures()):
            if not self._is_ours():
                return
            if self.left:
                self._owner = NOBODY
                self._store.write(LEASE, self._content())
            else:
                self._store.remove([LEASE])

    def require(self) -> None:
        """Raises InUseError when somebody else has taken over, as after a long sleep of this machine."""
        if not self._is_ours():
            raise self._in_use()

    def remember(self, names: tuple[str, ...]) -> None:
        """What whoever comes after us has to remove, should we not come to the end."""
        with self._lock:
            self.left = names
            self._store.write(LEASE, self._content())

    def forget(self) -> None:
        """We have come to the end."""
        self.left = ()

    def _take_over(self) -> None:
        """Remove the lease of a holder that is gone. Raises InUseError for one that is alive."""
        before = self._store.read(LEASE)
        if before is None:
            return
        held = _parsed(before)
        if _is_neighbour(held):
            if not _is_stale(self._store.address, before):
                raise self._in_use()
        elif not _is_dead(held):
            deadline = time.monotonic() + EXPIRY_SECONDS
            while time.monotonic() < deadline:
                if self._stop.wait(LOOK_SECONDS) or self._store.read(LEASE) != before:
                    raise self._in_use()
        left = _parsed(before).get("left")
        self.left = tuple(map(str, left)) if isinstance(left, list) else ()
        self._store.abort_uploads()
        self._store.remove([LEASE])

    def _renew(self) -> None:
        while not self._ended.wait(RENEWAL_SECONDS):
            # The next time may work; if none does, the lease expires, and `require` says so.
            with suppress(*failures()), self._lock:
                if self._is_ours():
                    self._count += 1
                    self._store.write(LEASE, self._content())

    def _is_ours(self) -> bool:
        return _parsed(self._store.read(LEASE)).get("owner") == self._owner

    def _content(self) -> bytes:
        data = {"owner": self._owner, "renewed": self._count, "left": list(self.left), **_this_process()}
        return json.dumps(data).encode()

    def _in_use(self) -> InUseError:
        why, hint = "another export is writing there", "wait for it, or choose another place with --output"
        return InUseError("is in use", where=self._store.address, why=why, hint=hint)


def _parsed(content: bytes | None) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        found = json.loads(content or b"{}")
        return found if isinstance(found, dict) else {}
    return {}


def _this_process() -> dict[str, Any]:
    """Who holds it, for processes of the same machine, without its name."""
    words = [str(uuid.getnode()), str(os.getuid())]
    with suppress(OSError):
        words += [Path(SYSTEM[0]).read_text("utf-8"), os.readlink(SYSTEM[1])]
    machine = hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]
    return {"machine": machine, "process": os.getpid(), "started": _started(os.getpid())}


def _started(process: int) -> str | None:
    """When a process was started, in ticks since the machine was, which no clock changes (proc(5), field 22 of stat).

    None where it is not running, or where the system does not tell.
    """
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    return None


def _is_neighbour(held: dict[str, Any]) -> bool:
    """Whether its holder is a process of this machine that is alive."""
    process, started = held.get("process"), held.get("started")
    same = held.get("machine") == _this_process()["machine"] and held.get("owner") != NOBODY
    return same and isinstance(process, int) and started is not None and _started(process) == started


def _is_stale(address: str, content: bytes) -> bool:
    """Whether this process has seen the same content for too long: its holder could not give it back, and goes on."""
    before, since = _watched.get(address, (b"", 0.0))
    if before != content:
        _watched[address] = content, time.monotonic()
        return False
    return time.monotonic() - since > EXPIRY_SECONDS


def _is_dead(held: dict[str, Any]) -> bool:
    """Whether it was given back, or its holder was a process of this machine that has ended: nobody has to wait."""
    process = held.get("process")
    if held.get("owner") == NOBODY:
        return True
    if held.get("machine") != _this_process()["machine"] or not isinstance(process, int):
        return False
    return not psutil.pid_exists(process) or _started(process) != held.get("started")
