"""Workers that are copies of a process: each has a process of its own, and ends as any other worker."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import psutil
import pytest
from exporting import job_for

from exporter import files, supervisor, wire
from exporter.batch.execution import execute
from exporter.batch.executor import Ended, Message, Started
from exporter.batch.local import LocalExecutor
from exporter.batch.tasks import Policy, Task
from exporter.batch.workers import Workers
from exporter.child_process import Child, spawn_worker
from exporter.fork_client import IS_POSSIBLE, ForkedChild, ForkServer
from exporter.records import Job, Outcome

pytestmark = pytest.mark.skipif(not IS_POSSIBLE, reason="copies of a process are made on Linux only")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.ReLU()]).save(path)
    return path


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """One that reads files: it is there within a second."""
    server = ForkServer("reading")
    yield server
    server.close()


def reading_job(archive: Path, folder: Path, name: str = "m") -> Job:
    return job_for(archive, folder / name, formats=("parquet",))


def digests(folder: str) -> dict[str, str]:
    return {path.name: files.sha256(path) for path in Path(folder).iterdir() if path.name != files.MANIFEST}


@pytest.mark.slow
def test_a_copy_does_what_a_new_process_does(server: ForkServer, archive: Path, tmp_path: Path) -> None:
    jobs = [reading_job(archive, tmp_path, name) for name in ("forked", "again", "new")]
    forked, again, new = (
        supervisor.run(job, watch=lambda event: None, spawn=spawn)
        for job, spawn in zip(jobs, (server.spawn, server.spawn, supervisor.spawn_worker), strict=True)
    )
    assert [outcome.status for outcome in (forked, again, new)] == ["done"] * 3
    assert digests(forked.output_path) == digests(again.output_path) == digests(new.output_path)
    # Import is what the copy is spared of.
    assert "import" not in [stage.name for stage in forked.stages]
    assert 0 < forked.peak_rss_bytes < 300_000_000


@pytest.mark.slow
def test_each_worker_leads_a_group_of_its_own_and_is_reaped(server: ForkServer, archive: Path, tmp_path: Path) -> None:
    children: list[ForkedChild] = []

    def spawn(*arguments: object) -> ForkedChild:
        child = server.spawn(*arguments)  # type: ignore[arg-type]
        assert isinstance(child, ForkedChild)
        assert os.getpgid(child.pid) == child.pid
        children.append(child)
        return child

    for name in ("a", "b"):
        outcome = supervisor.run(reading_job(archive, tmp_path, name), watch=lambda event: None, spawn=spawn)
        assert outcome.status == "done"
    assert len({child.pid for child in children}) == 2
    assert all(not psutil.pid_exists(child.pid) for child in children)
    assert {child.server_pid for child in children} == {server.pid}


def test_a_copy_that_is_killed_is_a_sentence(server: ForkServer, archive: Path, tmp_path: Path) -> None:
    """While it waits for its job, which nobody writes into the pipe: one that has its job may be too quick."""
    job = reading_job(archive, tmp_path)
    os.mkfifo(tmp_path / "job.json")

    def spawn(job_path: Path, *rest: object) -> Child:
        child = server.spawn(tmp_path / "job.json", *rest)  # type: ignore[arg-type]
        os.kill(child.pid, signal.SIGKILL)
        return child

    outcome = supervisor.run(job, watch=lambda event: None, spawn=spawn)
    assert outcome.error is not None
    assert (outcome.error["type"], outcome.error["what"]) == ("TransientError", "was killed by SIGKILL")
    assert not Path(job.output_path).exists()


@pytest.mark.slow
def test_a_server_that_dies_is_replaced(archive: Path, tmp_path: Path) -> None:
    server = ForkServer("reading")
    try:
        first = supervisor.run(reading_job(archive, tmp_path, "a"), watch=lambda event: None, spawn=server.spawn)
        before = server.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        # The first to notice starts its worker as usual, and the next one has a new server.
        second = supervisor.run(reading_job(archive, tmp_path, "b"), watch=lambda event: None, spawn=server.spawn)
        third = supervisor.run(reading_job(archive, tmp_path, "c"), watch=lambda event: None, spawn=server.spawn)
        assert [outcome.status for outcome in (first, second, third)] == ["done"] * 3
        assert server.pid not in (None, before)
    finally:
        server.close()


@pytest.mark.slow
def test_a_server_that_is_silent_is_replaced(archive: Path, tmp_path: Path) -> None:
    """Stopped but not dead: only its silence tells."""
    server = ForkServer("reading")
    try:
        server.begin()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        assert server._control is not None
        server._control.settimeout(0.2)
        outcome = supervisor.run(reading_job(archive, tmp_path), watch=lambda event: None, spawn=server.spawn)
        assert outcome.status == "done"
    finally:
        server.close()


def test_nobody_waits_for_a_server_that_imports_when_all_is_to_stop() -> None:
    """Stopped before it can answer, as one that takes long to import; who asks then, and later, is told at once."""
    server = ForkServer("reading")
    told = []

    def ask() -> None:
        with pytest.raises((OSError, ValueError)):
            server.ask({"reap": 1})
        told.append(1)

    try:
        server.begin()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        waiting = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
        for thread in waiting:
            thread.start()
        server.give_up()
        for thread in waiting:
            thread.join(10)
        assert told == [1, 1]
        assert server.pid is None
    finally:
        server.close()


@pytest.mark.slow
def test_a_server_ends_with_who_uses_it(archive: Path, tmp_path: Path) -> None:
    """Killed, so that nobody could clear up."""
    code = """
import sys, time
from exporter.child_process import Child
from exporter.fork_client import ForkServer
server = ForkServer("reading")
try:
    server.ask({"reap": 0})
except (OSError, ValueError):
    pass
server._started()
print(server.pid, flush=True)
time.sleep(600)
"""
    user = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert user.stdout is not None
    pid = int(user.stdout.readline())
    assert psutil.pid_exists(pid)
    user.kill()
    user.wait()
    wait(lambda: has_ended(pid))


def has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def wait(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def executor_for(policy: Policy, run: Callable[..., Outcome] = supervisor.run) -> LocalExecutor:
    def carry_out(job: Job, **limits: object) -> Outcome:
        return execute(job, run=run, timeout_seconds=policy.timeout_seconds, **limits)  # type: ignore[arg-type]

    return LocalExecutor(carry_out, policy, Workers())


def messages_until_end(executor: LocalExecutor, count: int) -> list[Message]:
    found: list[Message] = []
    deadline = time.monotonic() + 300
    while sum(isinstance(message, Ended) for message in found) < count:
        assert time.monotonic() < deadline
        found += executor.messages(0.1)
    return found


@pytest.mark.slow
def test_jobs_side_by_side(archive: Path, tmp_path: Path) -> None:
    executor = executor_for(Policy(jobs=2))
    tasks = [Task(number, reading_job(archive, tmp_path, f"m{number}"), 1) for number in (1, 2)]
    try:
        for task in tasks:
            assert executor.room_for(task, [])
            executor.start(task)
        assert not executor.room_for(Task(3, tasks[0].job, 1), tasks)
        ended = [message for message in messages_until_end(executor, 2) if isinstance(message, Ended)]
        assert {message.outcome.status for message in ended} == {"done"}
    finally:
        executor.close()


def test_a_folder_in_use_is_told_before_anything_starts(archive: Path, tmp_path: Path) -> None:
    executor = executor_for(Policy())
    job = reading_job(archive, tmp_path)
    try:
        with files.Export(Path(job.output_path)):
            executor.start(Task(1, job, 1))
            (message,) = messages_until_end(executor, 1)
        assert isinstance(message, Ended)
        assert message.outcome.error is not None
        assert message.outcome.error["type"] == "InUseError"
    finally:
        executor.close()


class Hog:
    """Runs without a process, and says that it holds so much until it is stopped."""

    def __init__(self, rss_bytes: dict[str, int]) -> None:
        self.rss_bytes = rss_bytes

    def __call__(self, job: Job, *, watch: supervisor.Watch, **limits: object) -> Outcome:
        watch(wire.MemoryEvent(self.rss_bytes[job.name], 0))
        assert limits["stop"].wait(300)  # type: ignore[attr-defined]
        return Outcome(job.name, "failed", error={"type": "TransientError", "what": "was stopped"})


def test_what_is_above_its_estimate_makes_room(archive: Path, tmp_path: Path) -> None:
    # So much that the memory of this process, which counts too, decides nothing.
    gigabyte = 10**9
    executor = executor_for(
        Policy(jobs=2, max_memory_bytes=80 * gigabyte), Hog({"a": 60 * gigabyte, "b": 40 * gigabyte})
    )
    template = reading_job(archive, tmp_path)
    first, second = (
        Task(number, Job(**{**vars(template), "name": name}), need)
        for number, name, need in ((1, "a", 50 * gigabyte), (2, "b", 10 * gigabyte))
    )
    executor.start(first)
    executor.start(second)
    seen: list[Message] = []
    wait(lambda: bool(seen.extend(executor.messages(0.05)) or executor.watch_memory() > 90 * gigabyte))
    ended = [message for message in messages_until_end(executor, 1) if isinstance(message, Ended)]
    assert [(message.task.number, message.evicted) for message in ended] == [(2, True)]
    assert {message.task.number for message in seen if isinstance(message, Started)} == {1, 2}
    executor.stop(first, "the test is over")
    (last,) = (message for message in messages_until_end(executor, 1) if isinstance(message, Ended))
    assert not last.evicted
    executor.close()


def test_a_job_that_takes_too_long_is_ended(archive: Path, tmp_path: Path) -> None:
    sleeping = functools.partial(spawn_worker, command=[sys.executable, "-c", "import time; time.sleep(600)"])
    job = reading_job(archive, tmp_path)
    outcome = supervisor.run(job, watch=lambda event: None, spawn=sleeping, timeout_seconds=0.01)
    assert outcome.error is not None
    assert outcome.error["type"] == "ResourceError"
    assert outcome.error["what"] == "took longer than --timeout 0.01 s"
    assert not Path(outcome.output_path).exists()
