"""Workers from a `fork_server`, for who runs many jobs one after the other; see there."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from exporter.child_process import Child, child_environment, spawn_worker

REPLY_BYTES = 65_536
# The first answer waits for the import of TensorFlow, on a busy machine with a cold disk; a server that is silent for
# longer (stopped, or swapped out) is ended, and another one takes its place.
ANSWER_SECONDS = 300.0
IS_POSSIBLE = sys.platform == "linux"


@dataclass(frozen=True)
class ForkedChild:
    """A worker whose parent is the server."""

    server: ForkServer
    server_pid: int | None
    pid: int

    def reap(self) -> tuple[int, int]:
        """When the server is gone nobody knows how the worker ended; as if it had been killed, then."""
        if self.server.pid == self.server_pid:
            with suppress(OSError, ValueError):
                found = self.server.ask({"reap": self.pid})
                return found["status"], found["peak_rss_bytes"]
        return -signal.SIGKILL, 0


class ForkServer:
    """Started when the first worker is asked for. Threads may share it.

    Where it cannot be started, or has died, workers are started as usual: that only takes longer.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._has_answered = self._is_given_up = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def begin(self) -> None:
        """Start it now; the first worker need not wait for its imports then. Where it cannot be, nothing happens."""
        with self._lock, suppress(OSError):
            self._started()

    def spawn(self, job_path: Path, result_path: Path, events_descriptor: int, log: BinaryIO) -> Child:
        """As `spawn_worker`. Raises OSError."""
        request = {"job": str(job_path), "result": str(result_path)}
        try:
            answer = self.ask(request, (events_descriptor, log.fileno()))
        except (OSError, ValueError):
            return spawn_worker(job_path, result_path, events_descriptor, log)
        return ForkedChild(self, self.pid, answer["pid"])

    def ask(self, request: dict[str, Any], descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        """Raises OSError and ValueError when the server does not answer."""
        with self._lock:
            if self._is_given_up:
                raise OSError("nobody waits for it any more")
            control = self._started()
            try:
                socket.send_fds(control, [json.dumps(request).encode()], list(descriptors))
                answer: dict[str, Any] = json.loads(control.recv(REPLY_BYTES))
            except (OSError, ValueError):
                # The next request starts another one.
                self._end()
                raise
            self._has_answered = True
            return answer

    def give_up(self) -> None:
        """Let nobody wait for one that is still importing; whoever asks is told at once that there is none."""
        self._is_given_up = not self._has_answered
        if self._is_given_up and (process := self._process):
            process.kill()

    def close(self) -> None:
        """Its workers must have ended before."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None

    def _started(self) -> socket.socket:
        if self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "exporter.fork_server", str(theirs.fileno()), self._kind],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env=child_environment(),
                )
            ours.settimeout(ANSWER_SECONDS)
            self._control = ours
        return self._control
