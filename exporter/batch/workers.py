"""Where the workers of a batch come from: copies of a process that has imported what they need."""

from __future__ import annotations

import time

import psutil

from exporter.child_process import Spawn, share_bytes, spawn_worker
from exporter.fork_client import IS_POSSIBLE, ForkServer
from exporter.readers import is_only_read
from exporter.records import Job

# What a worker of a batch has in common with the others: the libraries, measured 450 of 600 MB.
SHARED_BYTES = 400 * 10**6
# The system goes through all pages of a process for it, which takes 10 to 20 ms.
LOOKING_SECONDS = 1.0


class Workers:
    """One server for jobs that need the framework and one for those that only read files, each made when needed.

    `reading` is one of the latter that has been begun already.
    """

    def __init__(self, reading: ForkServer | None = None, *, forking: bool = IS_POSSIBLE) -> None:
        self._reading = (reading or ForkServer("reading")) if forking else None
        self._framework = ForkServer("framework") if forking else None
        self._held, self._looked = 0, -LOOKING_SECONDS
        self.shared_bytes = SHARED_BYTES if forking else 0

    def spawn_for(self, job: Job) -> Spawn:
        server = self._reading if is_only_read(job) else self._framework
        return server.spawn if server else spawn_worker

    def held_bytes(self) -> int:
        """What the servers hold, less what their workers share with them; looked at once a second at most."""
        now = time.monotonic()
        if now - self._looked >= LOOKING_SECONDS:
            self._held, self._looked = sum(map(share_bytes, self._processes())), now
        return self._held

    def give_up(self) -> None:
        """The batch is to stop now: servers that still import would keep it waiting."""
        for server in (self._reading, self._framework):
            if server is not None:
                server.give_up()

    def close(self) -> None:
        for server in (self._reading, self._framework):
            if server is not None:
                server.close()

    def _processes(self) -> list[psutil.Process]:
        servers = [server for server in (self._reading, self._framework) if server is not None]
        return [psutil.Process(server.pid) for server in servers if server.pid is not None]
