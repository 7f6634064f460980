"""Gathers what a batch did, and writes it as a table and two pages into the batch's own folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from exporter import files
from exporter.batch.listener import Listener
from exporter.batch.tasks import BatchResult, Result, Task
from exporter.errors import from_record
from exporter.records import Outcome
from exporter.reports.entries import NOT_RUN, SKIPPED, BatchReport, Entry
from exporter.reports.gathering import finished, not_run, refused, up_to_date
from exporter.reports.tally import Budget
from exporter.startup import hidden


class Gathering(Listener):
    """`report` is there when the batch has ended."""

    def __init__(self, name: str, budget: Budget) -> None:
        self.name, self.budget = name, budget
        self.report: BatchReport | None = None
        self._refused: Sequence[Outcome] = ()
        self._started = time.time()
        self._retries = 0
        self._entries: dict[int, Entry] = {}

    def begin(self, tasks: Sequence[Task], refused: Sequence[Outcome]) -> None:
        self._refused, self._started = refused, time.time()

    def retried(self, task: Task, outcome: Outcome, why: str) -> None:
        self._retries += 1

    def finished(self, result: Result) -> None:
        """Its receipt is read now, beside those that run, and not all of them at the end."""
        self._entries[result.task.number] = entry(result)

    def end(self, batch: BatchResult) -> None:
        entries = [refused(outcome.name, from_record(dict(outcome.error or {}))) for outcome in self._refused]
        self.report = BatchReport(
            name=self.name,
            entries=[*entries, *map(self._entry, batch.results)],
            started=self._started,
            seconds=batch.seconds,
            jobs=self.budget.jobs,
            max_memory_bytes=self.budget.max_memory_bytes,
            memory_bytes=batch.peak_bytes or None,
            retries=self._retries,
            interrupted=batch.interrupted,
        )

    def _entry(self, result: Result) -> Entry:
        return self._entries.get(result.task.number) or entry(result)


def entry(result: Result) -> Entry:
    job, need_bytes = result.task.job, result.task.need_bytes
    if result.outcome.status == SKIPPED:
        return up_to_date(job, need_bytes)
    if result.outcome.status == NOT_RUN:
        return not_run(job, need_bytes)
    return finished(
        job,
        result.outcome,
        attempts=result.attempts,
        started=result.started,
        waited_seconds=result.waited_seconds,
        need_bytes=need_bytes,
    )


def write_reports(report: BatchReport, folder: Path) -> tuple[Path, ...]:
    """All three into a folder of this machine, each whole or not at all. Raises OutputError."""
    from exporter.reports import batch_markdown, batch_page, batch_table

    modules = (batch_table, batch_markdown, batch_page)
    names = [module.FILE for module in modules]
    # pyarrow imports pandas, if it can, to see whether a value is one of its series: half a second.
    with files.reserved(folder, names), hidden(("pandas",)):
        for module in modules:
            module.write(report, folder)
    return tuple(folder / name for name in names)
