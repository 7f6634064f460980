"""The executor of this machine: a thread for each running job, which only watches the job's own processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

from exporter import memory, wire
from exporter.batch.execution import failed
from exporter.batch.executor import Ended, Event, Message, Started
from exporter.batch.tasks import Policy, Task
from exporter.batch.workers import Workers
from exporter.child_process import Spawn
from exporter.errors import InternalError
from exporter.private_folder import remove_abandoned
from exporter.records import Job, Outcome
from exporter.supervisor import Watch

# What the machine needs beside a batch that was given no limit.
SHARE_OF_FREE_MEMORY = 0.9


class Execute(Protocol):
    """`exporter.batch.execution.execute`, or what takes its place in tests."""

    def __call__(
        self, job: Job, *, begin: Callable[[], None], watch: Watch, spawn: Spawn, stop: threading.Event
    ) -> Outcome: ...


@dataclass
class _Running:
    task: Task
    thread: threading.Thread
    stop: threading.Event = field(default_factory=threading.Event)
    rss_bytes: int = 0
    evicted: bool = False


class LocalExecutor:
    """Keeps the sum of what the running jobs need below `limit_bytes`."""

    def __init__(self, execute: Execute, policy: Policy, workers: Workers) -> None:
        remove_abandoned()
        self._execute, self._workers = execute, workers
        self.limit_bytes = policy.max_memory_bytes or int(SHARE_OF_FREE_MEMORY * memory.available_bytes())
        self.jobs = policy.jobs or memory.processors()
        self._running: dict[int, _Running] = {}
        self._messages: SimpleQueue[Message] = SimpleQueue()

    def room_for(self, task: Task, running: Collection[Task]) -> bool:
        if len(self._running) >= self.jobs:
            return not self._running
        shared = self._workers.shared_bytes
        charged = sum(max(each.rss_bytes, each.task.need_bytes - shared) for each in self._running.values())
        beside = memory.rss_bytes() + self._workers.held_bytes()
        return not self._running or beside + charged + task.need_bytes - shared <= self.limit_bytes

    def start(self, task: Task) -> None:
        thread = threading.Thread(target=self._carry_out, args=(task,), name=task.job.name, daemon=True)
        self._running[task.number] = _Running(task, thread)
        thread.start()

    def messages(self, timeout: float) -> list[Message]:
        found: list[Message] = []
        try:
            found.append(self._messages.get(timeout=timeout))
            while True:
                found.append(self._messages.get_nowait())
        except Empty:
            pass
        for message in found:
            self._note(message)
        return found

    def stop(self, task: Task, why: str) -> None:
        self._running[task.number].stop.set()
        self._workers.give_up()

    def recall(self) -> None:
        """Nothing: what is started here begins at once."""

    def watch_memory(self) -> int:
        """Above the limit the job that is farthest above its estimate is ended, unless it is the only one."""
        used = memory.rss_bytes() + self._workers.held_bytes() + sum(each.rss_bytes for each in self._running.values())
        going = [each for each in self._running.values() if not each.stop.is_set()]
        if used > self.limit_bytes and len(going) > 1 and len(going) == len(self._running):
            victim = max(going, key=lambda each: each.rss_bytes - each.task.need_bytes)
            victim.evicted = True
            victim.stop.set()
        return used

    def close(self) -> None:
        for each in self._running.values():
            each.stop.set()
        for each in list(self._running.values()):
            each.thread.join()
        self._running.clear()
        self._workers.close()

    def _carry_out(self, task: Task) -> None:
        running = self._running[task.number]
        try:
            outcome = self._execute(
                task.job,
                begin=partial(self._messages.put, Started(task)),
                watch=lambda event: self._messages.put(Event(task, event)),
                spawn=self._workers.spawn_for(task.job),
                stop=running.stop,
            )
        except Exception as error:  # noqa: BLE001 (the boundary of this thread: a defect is the outcome of its job alone)
            outcome = failed(task.job, InternalError(f"unexpected {type(error).__name__}", why=str(error)[:500]))
        self._messages.put(Ended(task, outcome, running.evicted and outcome.status == "failed"))

    def _note(self, message: Message) -> None:
        if isinstance(message, Ended):
            del self._running[message.task.number]
        elif isinstance(message, Event) and isinstance(message.event, wire.MemoryEvent):
            self._running[message.task.number].rss_bytes = message.event.rss_bytes
