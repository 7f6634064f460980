"""A batch as lines that stay: for logs and pipes, and, above the table that moves, what deserves to stay."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from exporter import console, wire
from exporter.batch.listener import Listener
from exporter.batch.tasks import BatchResult, Result, Task
from exporter.memory import format_bytes
from exporter.records import Outcome
from exporter.reports.entries import DONE, SKIPPED, duration
from exporter.reports.failures import failure
from exporter.reports.tally import Tally

YELLOW: dict[str, Any] = {"fg": "yellow"}


class Lines(Listener):
    """`12/40 resnet50: done in 6.3 s, verified, peak memory 685 MB`; with `-v` each stage, with `-q` errors alone."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, debug: bool = False) -> None:
        self.quiet, self.verbose, self.debug = quiet, verbose, debug
        self.tally = Tally()

    def begin(self, tasks: Sequence[Task], refused: Sequence[Outcome]) -> None:
        self.tally.begin(tasks, refused)
        for outcome in refused:
            self.report(outcome)

    def started(self, task: Task, attempt: int) -> None:
        self.tally.started(task, attempt)
        if self.verbose or attempt > 1:
            self.tell(task, "started" if attempt == 1 else f"started, attempt {attempt}")

    def event(self, task: Task, event: wire.Event) -> None:
        self.tally.event(task, event)
        if isinstance(event, wire.StageEvent) and event.state == "end" and self.verbose:
            self.tell(task, console.stage_line(event))
        elif isinstance(event, wire.NoteEvent):
            self.tell(task, f"note: {event.text}", **YELLOW)
        elif isinstance(event, wire.LogEvent) and self.debug and event.tail.strip():
            self.tell(task, f"the worker printed:\n{event.tail.rstrip()}")

    def waiting(self, task: Task, why: str) -> None:
        self.tally.waiting(task, why)
        self.tell(task, f"waits: {why}")

    def retried(self, task: Task, outcome: Outcome, why: str) -> None:
        self.tally.retried(task, outcome, why)
        self.tell(task, f"{failure(outcome)}; {why}", **YELLOW)

    def finished(self, result: Result) -> None:
        self.tally.finished(result)
        text = finished_text(result.outcome)
        if self.is_worth_a_line(result.outcome) and not self.quiet:
            self.say(f"{self.tally.finished_count}/{self.tally.planned} {result.task.job.name}: {text}")
        self.report(result.outcome)

    def is_worth_a_line(self, outcome: Outcome) -> bool:
        """A thousand lines that say that nothing had to be done say too much."""
        return self.verbose or outcome.status != SKIPPED

    def stopping(self, why: str) -> None:
        self.say(why, **YELLOW)

    def tick(self, used_bytes: int) -> None:
        self.tally.tick(used_bytes)

    def end(self, batch: BatchResult) -> None:
        self.tally.end(batch)

    def tell(self, task: Task, text: str, **style: Any) -> None:
        """About one model, unless nobody wants to know."""
        if not self.quiet:
            self.say(f"{task.job.name}: {text}", **style)

    def report(self, outcome: Outcome) -> None:
        if error := failure(outcome):
            self.say(f"error: {error}", fg="red")
            if error.hint:
                self.say(f"  try: {error.hint}")
            if self.debug and (trace := str((outcome.error or {}).get("trace", "")).rstrip()):
                self.say(trace)

    def say(self, text: str, **style: Any) -> None:
        console.say(text, **style)


class OneModel(Listener):
    """A single model, which has the whole display of `exporter.console` to itself."""

    def __init__(self, display: console.Display, *, quiet: bool = False) -> None:
        self.display, self.quiet = display, quiet
        self._lines = Lines(quiet=True, debug=display.debug)
        self._is_open = False

    def begin(self, tasks: Sequence[Task], refused: Sequence[Outcome]) -> None:
        self._lines.begin(tasks, refused)

    def started(self, task: Task, attempt: int) -> None:
        self.display.begin(task.job.name)
        self._is_open = True

    def event(self, task: Task, event: wire.Event) -> None:
        self.display.take(event)

    def waiting(self, task: Task, why: str) -> None:
        self._close()
        if not self.quiet:
            console.say(f"{task.job.name}: waits: {why}")

    def retried(self, task: Task, outcome: Outcome, why: str) -> None:
        self._close()
        if not self.quiet:
            console.say(f"{task.job.name}: {failure(outcome)}; {why}", **YELLOW)

    def finished(self, result: Result) -> None:
        self._close()
        self._lines.finished(result)

    def stopping(self, why: str) -> None:
        self._close()
        self._lines.stopping(why)

    def end(self, batch: BatchResult) -> None:
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.display.end()


def finished_text(outcome: Outcome) -> str:
    """`done in 6.3 s, verified, peak memory 685 MB`."""
    if outcome.status == SKIPPED:
        return "up to date"
    parts = [f"{outcome.status} {'in' if outcome.status == DONE else 'after'} {duration(outcome.seconds)}"]
    if outcome.status == DONE and any(file.name == "model.onnx" for file in outcome.files):
        passed = outcome.verification is not None and outcome.verification.status == "passed"
        parts.append("verified" if passed else "NOT verified")
    if memory := outcome.tree_peak_rss_bytes or outcome.peak_rss_bytes:
        parts.append(f"peak memory {format_bytes(memory)}")
    return ", ".join(parts)


def clock(since: float) -> str:
    """Time since a moment of `time.monotonic`, as `3:07`."""
    minutes, seconds = divmod(int(time.monotonic() - since), 60)
    return f"{minutes}:{seconds:02}"
