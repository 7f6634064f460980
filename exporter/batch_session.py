"""Several models in one call: plan, hand the jobs to an executor, say how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from exporter import console, early_start, plan, resuming
from exporter.batch.execution import execute
from exporter.batch.executor import Executor
from exporter.batch.local import LocalExecutor
from exporter.batch.needs import need_bytes
from exporter.batch.queue import run_batch
from exporter.batch.tasks import NOT_RUN, BatchResult, Policy, Task
from exporter.batch.workers import Workers
from exporter.displays.telling import Telling, TellingOptions
from exporter.errors import StoppedError, UsageError
from exporter.records import Job, Outcome
from exporter.reports.tally import Budget
from exporter.session import Planned, Run
from exporter.storage.addresses import is_address, local, redacted
from exporter.supervisor import termination_interrupts

# More are in the report.
MOST_NAMES = 20
EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Place:
    """Where jobs are run: one of `EXECUTORS`, and the address of the cluster where one is given."""

    executor: str = EXECUTORS[0]
    ray_address: str | None = None


@dataclass(frozen=True)
class Ending:
    """The exit status of a batch, and its outcomes in the order of the plan."""

    status: int
    outcomes: list[Outcome]


class BatchSession:
    """`run` carries out one job, in some `place`; `telling` says what is told of the batch, and where."""

    def __init__(self, run: Run, policy: Policy, telling: TellingOptions, place: Place = Place()) -> None:
        """Raises UsageError for a place that contradicts itself."""
        if place.ray_address and place.executor != "ray":
            raise UsageError("--ray-address is for Ray", why="--executor is not ray", hint="--executor ray")
        self.run, self.policy, self.telling, self.place = run, policy, telling, place

    @termination_interrupts()
    def export(self, entries: Sequence[plan.Entry]) -> int:
        """The exit status: that of the gravest failure. Raises UsageError and StoppedError.

        SIGTERM and SIGHUP end it as Ctrl-C does, also while it plans and while it writes the report.
        """
        # It is said for all models together.
        output = entries[0].options.output
        return self.carry_out(plan.plan_entries(entries), output, then_prepare=True).status

    @termination_interrupts()
    def carry_out(self, planned: Sequence[Planned], output: str, *, then_prepare: bool = False) -> Ending:
        """What became of them; `then_prepare` makes the first query over `output` quick. Raises StoppedError."""
        refused = [_refused(each) for each in planned if not isinstance(each, Job)]
        jobs = [entry for entry in planned if isinstance(entry, Job)]
        tasks = [Task(number, job, need_bytes(job)) for number, job in enumerate(jobs, 1)]
        executor = self._executor()
        budget = Budget(executor.jobs, executor.limit_bytes)
        with Telling(self.telling, output, len(planned), budget) as telling:
            batch = run_batch(tasks, executor, self.policy, telling.listener, refused)
        status = telling.conclude(refused, batch)
        if then_prepare and not is_address(output):
            _prepare_queries(local(output))
        if batch.interrupted:
            raise _interrupted(batch)
        return Ending(status, _in_order(planned, refused, batch))

    def _executor(self) -> Executor:
        receipts = None if self.policy.force else resuming
        timeout = self.policy.timeout_seconds
        work = partial(execute, run=self.run, receipts=receipts, timeout_seconds=timeout)
        if self.place.executor != "ray":
            return LocalExecutor(work, self.policy, Workers(early_start.reading_server()))
        from exporter.batch.ray_executor import RayExecutor

        cluster = RayExecutor(work, self.policy, address=self.place.ray_address)
        if not self.telling.quiet:
            console.say(cluster.description)
        return cluster


def _prepare_queries(folder: str) -> None:
    """pyarrow is imported for it, which nothing before had to wait for."""
    from exporter.query import preparing

    preparing.prepare(folder)


def _refused(refusal: plan.Refusal) -> Outcome:
    return Outcome(redacted(refusal.source), "failed", error=refusal.error.as_record())


def _in_order(planned: Sequence[Planned], refused: Sequence[Outcome], batch: BatchResult) -> list[Outcome]:
    """Those of the plan, of which jobs and what was refused each are in order."""
    left, results = iter(refused), iter(batch.results)
    return [next(results).outcome if isinstance(entry, Job) else next(left) for entry in planned]


def _interrupted(batch: BatchResult) -> StoppedError:
    left = [result.task.job.name for result in batch.results if result.outcome.status == NOT_RUN]
    kept = sum(result.outcome.status in ("done", "mismatch", "skipped") for result in batch.results)
    names = f", not finished: {', '.join(left[:MOST_NAMES])}" + (" …" if len(left) > MOST_NAMES else "")
    return StoppedError(
        "interrupted",
        why=f"{kept} of {len(batch.results)} finished and kept{names if left else ''}",
        hint="the same command again: it skips what is finished",
    )


def policy_of(flags: dict[str, Any]) -> Policy:
    """Takes what is no option of a single export out of the flags. Raises UsageError."""
    from exporter.options import checked

    limit = checked(plan.ExportOptions(max_memory=flags["max_memory"])).max_memory_bytes
    taken = {name: flags.pop(name) for name in ("jobs", "retries", "fail_fast", "force")}
    return replace(Policy(**taken), max_memory_bytes=limit, timeout_seconds=flags.pop("timeout"))


def telling_of(flags: dict[str, Any]) -> TellingOptions:
    """Takes what says how a batch is reported out of the flags. Raises UsageError."""
    return TellingOptions(**{field.name: flags.pop(field.name) for field in fields(TellingOptions)})


def place_of(flags: dict[str, Any]) -> Place:
    """Takes what says where jobs are run out of the flags. Raises UsageError."""
    return Place(flags.pop("executor"), flags.pop("ray_address"))


def taken_of(flags: dict[str, Any]) -> tuple[Policy, TellingOptions, Place]:
    """How the batch is run, what it tells, and where. Raises UsageError."""
    return policy_of(flags), telling_of(flags), place_of(flags)
