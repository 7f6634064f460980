"""What a batch consists of, and what becomes of it: plain data that the rest of this room hands around."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.errors import UsageError
from exporter.records import Job, Outcome

# The status of a job that a batch which was stopped did not get to, or did not let finish.
NOT_RUN = "not run"


@dataclass(frozen=True)
class Task:
    """One job of a batch, however often it is tried. `need_bytes` is the estimate of the peak of its processes."""

    number: int
    job: Job
    need_bytes: int


@dataclass(frozen=True)
class Result:
    """`started` is the Unix time of the last attempt, None where there was none; an outcome may be `NOT_RUN`."""

    task: Task
    outcome: Outcome
    attempts: int
    started: float | None
    waited_seconds: float


@dataclass(frozen=True)
class BatchResult:
    """All results in the order of the tasks; `peak_bytes` is the highest sum over all processes that was seen."""

    results: tuple[Result, ...]
    interrupted: bool
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Policy:
    """How a batch is run. `jobs` None: as many as there are processors; `max_memory_bytes` is of all jobs together.

    A job may take `timeout_seconds`; one that failed of what may pass is tried `retries` times more. `fail_fast`:
    after the first failure nothing new is started. `force`: what is up to date is exported again.
    """

    jobs: int | None = None
    max_memory_bytes: int | None = None
    timeout_seconds: float | None = None
    retries: int = 1
    fail_fast: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs} is not possible", hint="a number from 1, or leave it out")
        if self.retries < 0:
            raise UsageError(f"--retries {self.retries} is not possible", hint="a number from 0")
        if self.timeout_seconds is not None and not self.timeout_seconds > 0:
            raise UsageError(f"--timeout {self.timeout_seconds} is not possible", hint="seconds, or a time such as 30m")
