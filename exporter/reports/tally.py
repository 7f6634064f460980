"""How a batch stands at this moment, for what shows it: displays and the metrics file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from exporter import wire
from exporter.batch.listener import Listener
from exporter.batch.tasks import BatchResult, Result, Task
from exporter.records import Outcome
from exporter.reports.entries import DONE, EXPORTED, FAILED, NOT_RUN, SKIPPED, TITLES


@dataclass(frozen=True)
class Budget:
    """What a batch may use: models at once, and the memory of all processes. None is unknown."""

    jobs: int | None = None
    max_memory_bytes: int | None = None


@dataclass
class Running:
    """A model that a worker has. `since` is of `time.monotonic`; bytes are those of the stage."""

    task: Task
    attempt: int
    since: float = field(default_factory=time.monotonic)
    stage: str = "start"
    done_bytes: int = 0
    total_bytes: int = 0
    rss_bytes: int = 0


class Tally(Listener):
    """Counts; models of the plan are in exactly one of `counts`, `running` and `waiting_count`."""

    def __init__(self) -> None:
        self.planned = self.retries = self.used_bytes = self.output_bytes = 0
        self.counts = dict.fromkeys(TITLES, 0)
        self.running: dict[int, Running] = {}
        self.tried = 0
        self.tried_seconds = 0.0
        self.begun = time.monotonic()
        self.started_time: float = time.time()
        self.success_time: float | None = None
        self.end_time: float | None = None

    @property
    def waiting_count(self) -> int:
        return max(0, self.planned - sum(self.counts.values()) - len(self.running))

    @property
    def finished_count(self) -> int:
        return sum(self.counts.values()) - self.counts[NOT_RUN]

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self.begun

    def seconds_left(self) -> float | None:
        """From the mean of those that were tried; what runs is taken to be half done. None as long as none has been."""
        left = self.waiting_count + len(self.running) / 2
        if not self.tried:
            return None
        return self.tried_seconds / self.tried * left / max(1, len(self.running))

    def begin(self, tasks: Sequence[Task], refused: Sequence[Outcome]) -> None:
        self.planned = len(tasks) + len(refused)
        self.counts[FAILED] += len(refused)
        self.begun, self.started_time = time.monotonic(), time.time()

    def started(self, task: Task, attempt: int) -> None:
        self.running[task.number] = Running(task, attempt)

    def event(self, task: Task, event: wire.Event) -> None:
        running = self.running.get(task.number)
        if running is None:
            return
        if isinstance(event, wire.MemoryEvent):
            running.rss_bytes = event.rss_bytes
        elif isinstance(event, wire.ProgressEvent):
            running.done_bytes, running.total_bytes = event.done_bytes, event.total_bytes
        elif isinstance(event, wire.StageEvent):
            running.stage = event.stage if event.state == "start" else "…"
            running.done_bytes = running.total_bytes = 0

    def waiting(self, task: Task, why: str) -> None:
        self.running.pop(task.number, None)

    def retried(self, task: Task, outcome: Outcome, why: str) -> None:
        self.running.pop(task.number, None)
        self.retries += 1

    def finished(self, result: Result) -> None:
        self.running.pop(result.task.number, None)
        outcome = result.outcome
        self.counts[outcome.status] += 1
        if outcome.status in (SKIPPED, NOT_RUN):
            return
        self.tried += 1
        self.tried_seconds += outcome.seconds
        if outcome.status in EXPORTED:
            self.output_bytes += sum(file.nbytes for file in outcome.files)
        if outcome.status == DONE:
            self.success_time = time.time()

    def tick(self, used_bytes: int) -> None:
        self.used_bytes = used_bytes

    def end(self, batch: BatchResult) -> None:
        """What never ran was not told of before."""
        self.running.clear()
        self.counts[NOT_RUN] = sum(result.outcome.status == NOT_RUN for result in batch.results)
        self.used_bytes = 0
        self.end_time = time.time()
