"""One call of `export-model batch`: plan, hand the jobs to an executor, say how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from exporter import console, plan, summary, wire
from exporter.batch.execution import execute
from exporter.batch.listener import Listener, Listeners
from exporter.batch.local import LocalExecutor
from exporter.batch.needs import need_bytes
from exporter.batch.queue import run_batch
from exporter.batch.tasks import NOT_RUN, BatchResult, Policy, Result, Task
from exporter.batch.workers import Workers
from exporter.memory import format_bytes
from exporter.records import Job, Outcome
from exporter.session import Run, StoppedError


class BatchSession:
    """`run` carries out one job; the others say how much is printed."""

    def __init__(self, run: Run, policy: Policy, *, quiet: bool, verbose: bool, debug: bool) -> None:
        self.run, self.policy = run, policy
        self.quiet, self.verbose, self.debug = quiet, verbose, debug

    def export(self, entries: Sequence[plan.Entry]) -> int:
        """The exit status: that of the first source that failed. Raises UsageError and StoppedError."""
        planned = plan.plan_entries(entries)
        refused = [
            Outcome(each.source, "failed", error=each.error.as_record())
            for each in planned
            if not isinstance(each, Job)
        ]
        jobs = [entry for entry in planned if isinstance(entry, Job)]
        tasks = [Task(number, job, need_bytes(job)) for number, job in enumerate(jobs, 1)]
        batch = run_batch(tasks, self._executor(), self.policy, self._listener(), refused)
        return self._status(refused, batch)

    def _executor(self) -> LocalExecutor:
        receipts = None if self.policy.force else plan
        timeout = self.policy.timeout_seconds
        return LocalExecutor(
            partial(execute, run=self.run, receipts=receipts, timeout_seconds=timeout), self.policy, Workers()
        )

    def _listener(self) -> Listener:
        return Listeners([Lines(quiet=self.quiet, verbose=self.verbose, debug=self.debug)])

    def _status(self, refused: Sequence[Outcome], batch: BatchResult) -> int:
        outcomes = [*refused, *(result.outcome for result in batch.results)]
        run = [outcome for outcome in outcomes if outcome.status != NOT_RUN]
        if not self.quiet:
            summary.show(run, verbose=self.verbose)
        if batch.interrupted:
            finished = sum(outcome.status != "failed" for outcome in run)
            why = f"{finished} of {len(outcomes)} finished and kept"
            raise StoppedError("interrupted", why=why, hint="the same command again: it skips what is finished")
        return next((error.status for error in map(summary.failure, run) if error is not None), 0)


class Lines(Listener):
    """A line for each thing that happens, on stderr."""

    def __init__(self, *, quiet: bool, verbose: bool, debug: bool) -> None:
        self.quiet, self.verbose, self.debug = quiet, verbose, debug
        self.count = self.done = 0

    def begin(self, tasks: Sequence[Task], refused: Sequence[Outcome]) -> None:
        self.count = len(tasks)
        for outcome in refused:
            self._report(outcome)

    def started(self, task: Task, attempt: int) -> None:
        self._say(task, "started" if attempt == 1 else f"started, attempt {attempt}")

    def event(self, task: Task, event: wire.Event) -> None:
        if isinstance(event, wire.StageEvent) and event.state == "end" and self.verbose:
            self._say(task, console.stage_line(event))
        elif isinstance(event, wire.LogEvent) and self.debug and event.tail.strip():
            self._say(task, f"the worker printed:\n{event.tail.rstrip()}")

    def waiting(self, task: Task, why: str) -> None:
        self._say(task, f"waits: {why}")

    def retried(self, task: Task, outcome: Outcome, why: str) -> None:
        self._say(task, f"{summary.failure(outcome)}; {why}")

    def finished(self, result: Result) -> None:
        self.done += 1
        outcome = result.outcome
        if outcome.status == "done":
            memory = format_bytes(outcome.tree_peak_rss_bytes)
            text = f"done in {outcome.seconds:.1f} s, peak memory {memory} ({self.done} of {self.count})"
            self._say(result.task, text)
        self._report(outcome)

    def stopping(self, why: str) -> None:
        console.say(why, fg="yellow")

    def _say(self, task: Task, text: str) -> None:
        if not self.quiet:
            console.say(f"{task.job.name}: {text}")

    def _report(self, outcome: Outcome) -> None:
        if error := summary.failure(outcome):
            trace = str((outcome.error or {}).get("trace", "")) if self.debug else ""
            console.report(error, trace)


def policy_of(flags: dict[str, Any]) -> Policy:
    """Takes what is no option of a single export out of the flags. Raises UsageError."""
    from exporter.options import checked

    limit = checked(plan.ExportOptions(max_memory=flags["max_memory"])).max_memory_bytes
    taken = {name: flags.pop(name) for name in ("jobs", "retries", "fail_fast", "force")}
    return replace(Policy(**taken), max_memory_bytes=limit, timeout_seconds=flags.pop("timeout"))
