"""The queue of a batch decides in good order; nothing runs here but a script of what executors tell."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest

from exporter.batch.executor import Ended, Message, Started
from exporter.batch.listener import Listener
from exporter.batch.queue import OVERTAKEN, run_batch
from exporter.batch.tasks import NOT_RUN, BatchResult, Policy, Task
from exporter.errors import ExportError, InUseError, ResourceError, SourceError, TransientError, UsageError
from exporter.records import Job, Outcome

JOB = Job("X", "application", "x", "out/x", ("onnx",), "f", "d")
Say = Callable[[int], Outcome | ExportError]


def tasks(*needs: int) -> list[Task]:
    return [
        Task(number, replace(JOB, name=f"m{number}", output_path=f"out/m{number}"), need)
        for number, need in enumerate(needs, 1)
    ]


class Scripted:
    """Ends what runs in the order of starting; `says` gives the outcome of each attempt of a task."""

    def __init__(self, room: int = 100, says: dict[int, list[Outcome | ExportError | str]] | None = None) -> None:
        self.room, self.says = room, says or {}
        self.jobs, self.limit_bytes = 8, room
        self.started: list[int] = []
        self.side_by_side: list[set[int]] = []
        self.running: list[Task] = []
        self.stopped: list[int] = []
        self.closed = False
        self.used = 0
        self.on_messages: Callable[[], None] = lambda: None

    def room_for(self, task: Task, running: Collection[Task]) -> bool:
        return sum(each.need_bytes for each in running) + task.need_bytes <= self.room

    def start(self, task: Task) -> None:
        self.started.append(task.number)
        self.running.append(task)
        self.side_by_side.append({each.number for each in self.running})

    def messages(self, timeout: float) -> list[Message]:
        self.on_messages()
        if not self.running:
            return []
        task = self.running.pop(0)
        script = self.says.get(task.number, [])
        said = script.pop(0) if script else "done"
        if task.number in self.stopped:
            return [Started(task), Ended(task, _failed(task, TransientError("was stopped")))]
        if said == "evicted":
            return [Started(task), Ended(task, _failed(task, TransientError("was stopped")), evicted=True)]
        if isinstance(said, InUseError):
            return [Ended(task, _failed(task, said))]
        outcome = _failed(task, said) if isinstance(said, ExportError) else _done(task)
        return [Started(task), Ended(task, outcome)]

    def stop(self, task: Task, why: str) -> None:
        self.stopped.append(task.number)

    def recall(self) -> None:
        """All that was started has begun."""

    def watch_memory(self) -> int:
        return self.used

    def close(self) -> None:
        self.closed = True


def _done(task: Task) -> Outcome:
    return Outcome(task.job.name, "done", task.job.output_path, tree_peak_rss_bytes=10)


def _failed(task: Task, error: ExportError) -> Outcome:
    return Outcome(task.job.name, "failed", task.job.output_path, tree_peak_rss_bytes=10, error=error.as_record())


class Heard(Listener):
    def __init__(self) -> None:
        self.retries: list[tuple[str, str]] = []
        self.waits: list[str] = []
        self.stops: list[str] = []

    def retried(self, task: Task, outcome: Outcome, why: str) -> None:
        self.retries.append((task.job.name, why))

    def waiting(self, task: Task, why: str) -> None:
        self.waits.append(task.job.name)

    def stopping(self, why: str) -> None:
        self.stops.append(why)


def run(executor: Scripted, these: list[Task], **policy: Any) -> tuple[BatchResult, Heard]:
    heard = Heard()
    batch = run_batch(these, executor, Policy(**policy), heard)
    assert executor.closed
    assert [result.task.job.name for result in batch.results] == [task.job.name for task in these]
    return batch, heard


def statuses(batch: BatchResult) -> list[str]:
    return [result.outcome.status for result in batch.results]


def test_all_run_in_order_and_results_keep_it() -> None:
    executor = Scripted(room=2)
    batch, _ = run(executor, tasks(1, 1, 1, 1))
    assert executor.started == [1, 2, 3, 4]
    assert statuses(batch) == ["done"] * 4
    assert [result.attempts for result in batch.results] == [1] * 4
    assert max(map(len, executor.side_by_side)) == 2
    assert not batch.interrupted


def test_small_jobs_pass_a_large_one_that_has_to_wait() -> None:
    executor = Scripted(room=10)
    run(executor, tasks(6, 6, 4))
    assert executor.started == [1, 3, 2]


def test_a_large_job_is_not_overtaken_for_ever() -> None:
    executor = Scripted(room=10)
    run(executor, tasks(1, 10, *[1] * 30))
    assert executor.started.index(2) <= OVERTAKEN + 10


def test_a_job_above_all_limits_runs_alone() -> None:
    executor = Scripted(room=10)
    batch, _ = run(executor, tasks(1, 50, 1))
    assert {2} in executor.side_by_side
    assert statuses(batch) == ["done"] * 3


def test_what_may_pass_is_tried_again_alone() -> None:
    executor = Scripted(says={1: [TransientError("was killed by SIGKILL")]})
    batch, heard = run(executor, tasks(1, 1, 1))
    assert executor.started == [1, 2, 3, 1]
    assert executor.side_by_side[-1] == {1}
    assert batch.results[0].attempts == 2
    assert [name for name, _ in heard.retries] == ["m1"]
    assert statuses(batch) == ["done"] * 3


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (3, 4)])
def test_the_number_of_attempts(retries: int, attempts: int) -> None:
    executor = Scripted(says={1: [TransientError("was killed")] * 10})
    batch, _ = run(executor, tasks(1), retries=retries)
    assert (batch.results[0].attempts, statuses(batch)) == (attempts, ["failed"])


@pytest.mark.parametrize("error", [SourceError("is truncated"), ResourceError("took longer than --timeout 3 s")])
def test_what_cannot_pass_is_not_tried_again(error: ExportError) -> None:
    batch, heard = run(Scripted(says={1: [error]}), tasks(1, 1))
    assert statuses(batch) == ["failed", "done"]
    assert batch.results[0].attempts == 1
    assert not heard.retries


def test_what_made_room_is_tried_again_with_a_larger_estimate() -> None:
    executor = Scripted(says={1: ["evicted"]})
    batch, heard = run(executor, tasks(1, 1), retries=0)
    assert statuses(batch) == ["done", "done"]
    assert executor.side_by_side[-1] == {1}
    assert "more memory than estimated" in heard.retries[0][1]


@pytest.mark.slow
def test_a_folder_in_use_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.batch.queue.IN_USE_SECONDS", 0.01)
    executor = Scripted(says={1: [InUseError("is in use")] * 3})
    batch, heard = run(executor, tasks(1, 1), retries=0)
    assert statuses(batch) == ["done", "done"]
    assert batch.results[0].attempts == 1
    # Told once, however often it is looked at.
    assert heard.waits == ["m1"]
    assert executor.started[:2] == [1, 2]


def test_fail_fast_lets_finish_what_runs() -> None:
    executor = Scripted(room=2, says={1: [SourceError("is truncated")]})
    batch, heard = run(executor, tasks(1, 1, 1, 1), fail_fast=True)
    assert statuses(batch) == ["failed", "done", NOT_RUN, NOT_RUN]
    assert heard.stops == ["m1 failed, and --fail-fast was given"]
    assert not batch.interrupted
    assert batch.results[3].started is None


def test_fail_fast_starts_nothing_where_a_source_was_refused_before() -> None:
    executor, heard = Scripted(), Heard()
    refused = [Outcome("broken.keras", "failed", error=SourceError("is truncated").as_record())]
    batch = run_batch(tasks(1, 1), executor, Policy(fail_fast=True), heard, refused)
    assert statuses(batch) == [NOT_RUN, NOT_RUN]
    assert (executor.started, executor.closed) == ([], True)
    assert heard.stops == ["broken.keras failed, and --fail-fast was given"]
    batch = run_batch(tasks(1, 1), Scripted(), Policy(), Heard(), refused)
    assert statuses(batch) == ["done", "done"]


def test_ctrl_c_once_finishes_what_runs() -> None:
    executor = Scripted(room=2)
    executor.on_messages = _once(lambda: os.kill(os.getpid(), signal.SIGINT))
    batch, heard = run(executor, tasks(1, 1, 1))
    # A signal is heeded when something has happened: one more may have taken the place of the first.
    assert statuses(batch)[:2] == ["done", "done"]
    assert statuses(batch)[-1] == NOT_RUN
    assert executor.stopped == []
    assert batch.interrupted
    assert "Ctrl-C again stops now" in heard.stops[0]


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,), (signal.SIGHUP,)])
def test_ctrl_c_twice_or_sigterm_stops_now(signals: tuple[signal.Signals, ...]) -> None:
    executor = Scripted(room=2)
    executor.on_messages = _once(lambda: [os.kill(os.getpid(), number) for number in signals])
    batch, _ = run(executor, tasks(1, 1, 1, 1))
    assert executor.stopped == [2]
    assert statuses(batch) == ["done", NOT_RUN, NOT_RUN, NOT_RUN]
    assert batch.interrupted
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _once(act: Callable[[], object]) -> Callable[[], None]:
    acts = [act]
    return lambda: acts.pop()() and None if acts else None


def test_the_peak_is_the_highest_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.batch.queue.TICK_SECONDS", 0.0)
    executor = Scripted()
    used = iter([3, 9, 4, 0, 0])
    executor.on_messages = lambda: setattr(executor, "used", next(used))
    batch, _ = run(executor, tasks(1, 1, 1))
    assert batch.peak_bytes == 9


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"retries": -1}, {"timeout_seconds": 0.0}])
def test_policies_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is not possible"):
        Policy(**wrong)


def test_an_empty_batch_is_over_at_once() -> None:
    batch, _ = run(Scripted(), [])
    assert batch.results == ()
