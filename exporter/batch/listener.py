"""Who wants to know how a batch goes: displays, logs, metrics. All is told in the main thread."""

from __future__ import annotations

from collections.abc import Sequence

from exporter import wire
from exporter.batch.tasks import BatchResult, Result, Task
from exporter.records import Outcome


class Listener:
    """Hears nothing: what a real one does not care about."""

    def begin(self, tasks: Sequence[Task], refused: Sequence[Outcome]) -> None:
        """The batch starts; `refused` are sources that could not become jobs."""

    def started(self, task: Task, attempt: int) -> None:
        """A worker has the job; one that is up to date is never started."""

    def event(self, task: Task, event: wire.Event) -> None:
        """What the worker, or who watches it, has to tell."""

    def waiting(self, task: Task, why: str) -> None:
        """The job has to wait for something outside of this batch."""

    def retried(self, task: Task, outcome: Outcome, why: str) -> None:
        """An attempt failed, and there will be another one."""

    def finished(self, result: Result) -> None:
        """The job has its final outcome."""

    def stopping(self, why: str) -> None:
        """Nothing new is started any more."""

    def tick(self, used_bytes: int) -> None:
        """About four times a second; the memory of all processes of the batch."""

    def end(self, batch: BatchResult) -> None:
        """All is over."""


class Listeners(Listener):
    """Several, in order."""

    def __init__(self, members: Sequence[Listener]) -> None:
        self.members = list(members)

    def begin(self, tasks: Sequence[Task], refused: Sequence[Outcome]) -> None:
        for member in self.members:
            member.begin(tasks, refused)

    def started(self, task: Task, attempt: int) -> None:
        for member in self.members:
            member.started(task, attempt)

    def event(self, task: Task, event: wire.Event) -> None:
        for member in self.members:
            member.event(task, event)

    def waiting(self, task: Task, why: str) -> None:
        for member in self.members:
            member.waiting(task, why)

    def retried(self, task: Task, outcome: Outcome, why: str) -> None:
        for member in self.members:
            member.retried(task, outcome, why)

    def finished(self, result: Result) -> None:
        for member in self.members:
            member.finished(result)

    def stopping(self, why: str) -> None:
        for member in self.members:
            member.stopping(why)

    def tick(self, used_bytes: int) -> None:
        for member in self.members:
            member.tick(used_bytes)

    def end(self, batch: BatchResult) -> None:
        for member in self.members:
            member.end(batch)
