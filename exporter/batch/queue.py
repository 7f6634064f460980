"""The queue of a batch: starts jobs as room allows, tries again what may pass, and stops in good order.

One thread, this one, decides everything; executors only carry out. Ctrl-C once lets finish what runs, twice stops it;
SIGTERM and SIGHUP stop at once.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from exporter.batch.executor import Ended, Event, Executor, Message, Started
from exporter.batch.listener import Listener
from exporter.batch.tasks import NOT_RUN, BatchResult, Policy, Result, Task
from exporter.errors import MAY_PASS, InUseError
from exporter.records import Outcome

TICK_SECONDS = 0.25
# How long to leave a folder alone that another batch is working in.
IN_USE_SECONDS = 2.0
# How many jobs that do not fit are passed over in search of one that does.
LOOKAHEAD = 32
# A large job waits for room while at most so many smaller ones behind it in the queue are started.
OVERTAKEN = 8
# What was killed for want of memory is tried again as if it needed this much of what it had then.
GROWTH = 1.5


@dataclass
class Progress:
    """What has happened to a task so far. `alone`: beside others it was too large."""

    attempts: int = 0
    started: float | None = None
    waited_seconds: float = 0.0
    not_before: float = 0.0
    alone: bool = False
    overtaken: int = 0
    waits: bool = False


class Interrupts:
    """How often the user, and whether the system, has asked to stop."""

    def __init__(self) -> None:
        self.count = 0

    def take(self, number: int, frame: FrameType | None) -> None:
        self.count += 1 if number == signal.SIGINT else 2


@contextmanager
def _interrupts() -> Iterator[Interrupts]:
    """Signals only count as long as the block lasts; one that is ignored (`nohup`) stays so."""
    interrupts, before = Interrupts(), {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, interrupts.take)
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_batch(
    tasks: Sequence[Task],
    executor: Executor,
    policy: Policy,
    listener: Listener,
    refused: Sequence[Outcome] = (),
) -> BatchResult:
    """Run all tasks; whatever befalls one of them is its outcome. The executor is closed at the end."""
    with _interrupts() as interrupts:
        queue = _Queue(tasks, executor, policy, listener, interrupts)
        listener.begin(tasks, refused)
        if refused:
            queue.heed_failure(refused[0].name)
        try:
            queue.run()
        finally:
            executor.close()
        batch = queue.result()
        listener.end(batch)
        return batch


class _Queue:
    def __init__(
        self, tasks: Sequence[Task], executor: Executor, policy: Policy, listener: Listener, interrupts: Interrupts
    ) -> None:
        self.executor, self.policy, self.listener, self.interrupts = executor, policy, listener, interrupts
        self.begun = time.monotonic()
        self.tasks = list(tasks)
        self.waiting = {task.number: task for task in tasks}
        self.running: dict[int, Task] = {}
        self.progress = {task.number: Progress() for task in tasks}
        self.results: dict[int, Result] = {}
        self.peak_bytes = 0
        self.ticked = -TICK_SECONDS
        self.ended = self.stopped = False
        self.has_changed = True

    def run(self) -> None:
        while self.running or (self.waiting and not self.ended):
            self._heed_interrupts()
            if not self.ended and self.has_changed:
                self._start_what_fits()
            for message in self.executor.messages(TICK_SECONDS):
                self._take(message)
            if time.monotonic() - self.ticked >= TICK_SECONDS:
                self._tick()

    def _tick(self) -> None:
        """Now and then room comes by itself: memory is given back, a folder in use may be free."""
        self.ticked = time.monotonic()
        self.has_changed = True
        used = self.executor.watch_memory()
        self.peak_bytes = max(self.peak_bytes, used)
        self.listener.tick(used)

    def result(self) -> BatchResult:
        for task in self.waiting.values():
            self._finish(task, Outcome(task.job.name, NOT_RUN, task.job.output_path), tell=False)
        ordered = tuple(self.results[task.number] for task in self.tasks)
        interrupted = self.interrupts.count > 0
        return BatchResult(ordered, interrupted, time.monotonic() - self.begun, self.peak_bytes)

    def _heed_interrupts(self) -> None:
        if self.interrupts.count and not self.ended:
            self.ended = True
            names = ", ".join(task.job.name for task in self.running.values())
            more = f"{names} will be finished, Ctrl-C again stops now" if names else "nothing runs"
            self.listener.stopping(f"interrupted: {more}" if self.interrupts.count == 1 else "stopped")
            self.executor.recall()
        if self.interrupts.count > 1 and not self.stopped:
            self.stopped = True
            for task in self.running.values():
                self.executor.stop(task, "the batch was stopped")

    def _start_what_fits(self) -> None:
        """In order; a job that does not fit is overtaken by smaller ones, but not for ever."""
        self.has_changed = False
        now, passed = time.monotonic(), []
        for task in list(self.waiting.values()):
            progress = self.progress[task.number]
            if progress.not_before > now:
                continue
            if not self._fits(task, progress):
                passed.append(progress)
                if progress.overtaken >= OVERTAKEN or progress.alone or len(passed) >= LOOKAHEAD:
                    return
                continue
            for other in passed:
                other.overtaken += 1
            self._start(task, progress)

    def _fits(self, task: Task, progress: Progress) -> bool:
        running = list(self.running.values())
        if any(self.progress[number].alone for number in self.running):
            return False
        return not running or (not progress.alone and self.executor.room_for(task, running))

    def _start(self, task: Task, progress: Progress) -> None:
        del self.waiting[task.number]
        self.running[task.number] = task
        progress.started, progress.waited_seconds = time.time(), time.monotonic() - self.begun
        self.executor.start(task)

    def _take(self, message: Message) -> None:
        task, progress = message.task, self.progress[message.task.number]
        if isinstance(message, Started):
            progress.attempts += 1
            progress.started, progress.waited_seconds = time.time(), time.monotonic() - self.begun
            progress.waits = False
            self.listener.started(task, progress.attempts)
        elif isinstance(message, Event):
            self.listener.event(task, message.event)
        else:
            del self.running[task.number]
            self.has_changed = True
            self._end(message, progress)

    def _end(self, message: Ended, progress: Progress) -> None:
        task, outcome = message.task, message.outcome
        kind = str((outcome.error or {}).get("type", ""))
        if self.stopped and outcome.status == "failed":
            self._finish(task, replace(outcome, status=NOT_RUN, error=None))
        elif self.ended and (message.evicted or kind == InUseError.__name__):
            self.waiting[task.number] = task
        elif kind == InUseError.__name__:
            self._wait(task, progress, str((outcome.error or {}).get("why", "")))
        elif message.evicted and progress.attempts <= self.policy.retries + 1:
            self._try_again(_grown(task, outcome), "it needed more memory than estimated; once more, alone", outcome)
        elif kind in MAY_PASS and progress.attempts <= self.policy.retries and not self.ended:
            self._try_again(_grown(task, outcome), "once more, alone", outcome)
        else:
            self._finish(task, outcome)

    def _wait(self, task: Task, progress: Progress, why: str) -> None:
        progress.not_before = time.monotonic() + IN_USE_SECONDS
        self.waiting[task.number] = task
        if not progress.waits:
            self.listener.waiting(task, why)
        progress.waits = True

    def _try_again(self, task: Task, why: str, outcome: Outcome) -> None:
        self.progress[task.number].alone = True
        self.waiting[task.number] = task
        self.listener.retried(task, outcome, why)

    def _finish(self, task: Task, outcome: Outcome, *, tell: bool = True) -> None:
        progress = self.progress[task.number]
        result = Result(task, outcome, progress.attempts, progress.started, progress.waited_seconds)
        self.results[task.number] = result
        if tell:
            self.listener.finished(result)
        if outcome.status in ("failed", "mismatch"):
            self.heed_failure(task.job.name)

    def heed_failure(self, name: str) -> None:
        """Nothing more is started, where that is wanted."""
        if self.policy.fail_fast and not self.ended:
            self.ended = True
            self.listener.stopping(f"{name} failed, and --fail-fast was given")
            self.executor.recall()


def _grown(task: Task, outcome: Outcome) -> Task:
    seen = max(outcome.tree_peak_rss_bytes, outcome.peak_rss_bytes)
    return replace(task, need_bytes=max(task.need_bytes, int(GROWTH * seen)))
