"""`--log-format json`: a line of JSON on stderr for each thing that happens. docs/batches.md describes the fields."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from exporter import wire
from exporter.batch.listener import Listener
from exporter.batch.tasks import BatchResult, Result, Task
from exporter.errors import ExportError
from exporter.records import Outcome
from exporter.reports.exit_status import exit_status
from exporter.reports.failures import failure
from exporter.reports.tally import Budget, Tally

PROGRESS_SECONDS = 10.0
# The fields of each event beside `time` and `event`; all are always there, null where unknown.
FIELDS = {
    "batch_started": ("models", "jobs", "max_memory_bytes"),
    "model_refused": ("model", "error"),
    "model_started": ("model", "attempt", "need_bytes"),
    "stage_started": ("model", "attempt", "stage"),
    "stage_finished": ("model", "attempt", "stage", "seconds", "peak_rss_bytes"),
    "progress": ("model", "attempt", "stage", "done_bytes", "total_bytes", "rss_bytes"),
    "note": ("model", "attempt", "text"),
    "worker_output": ("model", "attempt", "text"),
    "model_waiting": ("model", "why"),
    "model_retried": ("model", "attempt", "why", "error"),
    "model_finished": (
        *("model", "attempt", "status", "seconds", "waited_seconds", "peak_rss_bytes", "tree_peak_rss_bytes"),
        *("verification", "weights", "folder", "files", "bytes", "error"),
    ),
    "batch_stopping": ("why",),
    "batch_finished": ("status", "seconds", "peak_bytes", "interrupted", "counts", "retries"),
    "error": ("error",),
}


class JsonLog(Listener):
    """Stages are not told with `quiet`, what the workers printed only with `debug`."""

    def __init__(self, budget: Budget, *, quiet: bool = False, debug: bool = False) -> None:
        self.budget, self.quiet, self.debug = budget, quiet, debug
        self.tally = Tally()
        self._refused: Sequence[Outcome] = ()
        self._told: dict[int, float] = {}

    def begin(self, tasks: Sequence[Task], refused: Sequence[Outcome]) -> None:
        self.tally.begin(tasks, refused)
        self._refused = refused
        models, limit = len(tasks) + len(refused), self.budget.max_memory_bytes
        write("batch_started", models=models, jobs=self.budget.jobs, max_memory_bytes=limit)
        for outcome in refused:
            write("model_refused", model=outcome.name, error=self._error(outcome))

    def started(self, task: Task, attempt: int) -> None:
        self.tally.started(task, attempt)
        write("model_started", model=task.job.name, attempt=attempt, need_bytes=task.need_bytes)

    def event(self, task: Task, event: wire.Event) -> None:
        self.tally.event(task, event)
        running = self.tally.running.get(task.number)
        about = {"model": task.job.name, "attempt": running.attempt if running else None}
        if isinstance(event, wire.StageEvent):
            self._stage(about, event)
        elif isinstance(event, wire.NoteEvent):
            write("note", **about, text=event.text)
        elif isinstance(event, wire.LogEvent) and self.debug and event.tail.strip():
            write("worker_output", **about, text=event.tail)
        elif isinstance(event, wire.ProgressEvent) and running and not self.quiet and self._is_due(task):
            amount = {"done_bytes": event.done_bytes, "total_bytes": event.total_bytes}
            write("progress", **about, stage=event.stage, **amount, rss_bytes=running.rss_bytes or None)

    def _stage(self, about: dict[str, Any], event: wire.StageEvent) -> None:
        if self.quiet:
            return
        if event.state == "start":
            write("stage_started", **about, stage=event.stage)
        else:
            peak = event.peak_rss_bytes
            write("stage_finished", **about, stage=event.stage, seconds=event.seconds, peak_rss_bytes=peak)

    def _is_due(self, task: Task) -> bool:
        now = time.monotonic()
        due = now - self._told.get(task.number, 0.0) >= PROGRESS_SECONDS
        if due:
            self._told[task.number] = now
        return due

    def waiting(self, task: Task, why: str) -> None:
        self.tally.waiting(task, why)
        write("model_waiting", model=task.job.name, why=why)

    def retried(self, task: Task, outcome: Outcome, why: str) -> None:
        running = self.tally.running.get(task.number)
        attempt = running.attempt if running else None
        self.tally.retried(task, outcome, why)
        write("model_retried", model=task.job.name, attempt=attempt, why=why, error=self._error(outcome))

    def finished(self, result: Result) -> None:
        self.tally.finished(result)
        outcome = result.outcome
        write(
            "model_finished",
            model=result.task.job.name,
            attempt=result.attempts,
            status=outcome.status,
            seconds=outcome.seconds if result.attempts else None,
            waited_seconds=result.waited_seconds,
            peak_rss_bytes=outcome.peak_rss_bytes or None,
            tree_peak_rss_bytes=outcome.tree_peak_rss_bytes or None,
            verification=outcome.verification.status if outcome.verification else None,
            weights=outcome.weights or None,
            folder=outcome.output_path,
            files=[file.name for file in outcome.files],
            bytes=sum(file.nbytes for file in outcome.files),
            error=self._error(outcome),
        )

    def stopping(self, why: str) -> None:
        write("batch_stopping", why=why)

    def tick(self, used_bytes: int) -> None:
        self.tally.tick(used_bytes)

    def end(self, batch: BatchResult) -> None:
        self.tally.end(batch)
        write(
            "batch_finished",
            status=exit_status(self._refused, batch),
            seconds=batch.seconds,
            peak_bytes=batch.peak_bytes or None,
            interrupted=batch.interrupted,
            counts=self.tally.counts,
            retries=self.tally.retries,
        )

    def _error(self, outcome: Outcome) -> dict[str, Any] | None:
        error = failure(outcome)
        if error is None:
            return None
        trace = str((outcome.error or {}).get("trace", "")) if self.debug else ""
        return error_record(error, trace)


def error_record(error: ExportError, trace: str = "") -> dict[str, Any]:
    record = error.as_record() | {"status": error.status}
    return record | {"trace": trace} if trace else record


def write(event: str, **fields: Any) -> None:
    """One line; ASCII, so that no encoding and no terminal escape in a model's name matters."""
    assert set(fields) == set(FIELDS[event]), event
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    click.echo(json.dumps({"time": moment, "event": event, **fields}, allow_nan=False, default=str), err=True)


def is_wanted(words: Sequence[str]) -> bool:
    """Whether a command line asks for it, for errors that come before it has been understood."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return "--log-format=json" in words or ("--log-format", "json") in pairs
