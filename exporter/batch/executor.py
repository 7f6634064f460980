"""Where jobs are run: on this machine (`local`) or on a cluster (`ray_executor`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from exporter import wire
from exporter.batch.tasks import Task
from exporter.records import Outcome


@dataclass(frozen=True)
class Started:
    """The job was not up to date, and a worker has it now."""

    task: Task


@dataclass(frozen=True)
class Event:
    task: Task
    event: wire.Event


@dataclass(frozen=True)
class Ended:
    """An attempt is over. `evicted`: this batch stopped it to make room, which is no failure of the job."""

    task: Task
    outcome: Outcome
    evicted: bool = False


Message = Started | Event | Ended


class Executor(Protocol):
    """Runs jobs; all methods are called by one thread.

    `jobs` are its places, `limit_bytes` is the memory for all jobs together.
    """

    jobs: int
    limit_bytes: int

    def room_for(self, task: Task, running: Collection[Task]) -> bool:
        """Whether it may be started beside those that run; always true where nothing runs."""

    def start(self, task: Task) -> None:
        """Returns at once; whatever happens comes as a message."""

    def messages(self, timeout: float) -> list[Message]:
        """What has happened, at the latest after so many seconds."""

    def stop(self, task: Task, why: str) -> None:
        """End it now. Its `Ended` comes as usual."""

    def recall(self) -> None:
        """Take back what has not begun; its `Ended` comes as of a job that was evicted."""

    def watch_memory(self) -> int:
        """The memory of all processes of this batch on this machine; above its limit a job is ended to make room."""

    def close(self) -> None:
        """End all that still runs, and give back what was taken."""
