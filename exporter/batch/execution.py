"""One job, wherever it runs: what every executor does for it, in a process without TensorFlow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from exporter import files, supervisor
from exporter.batch.transfer import Limits, Transfer, is_elsewhere
from exporter.child_process import Spawn, spawn_worker
from exporter.errors import ExportError
from exporter.records import Job, Outcome
from exporter.storage.addresses import is_address


class Receipts(Protocol):
    """What is known of earlier exports; `exporter.resuming` is one."""

    def is_done(self, job: Job) -> bool: ...

    def skipped(self, job: Job) -> Outcome: ...


def execute(
    job: Job,
    *,
    begin: Callable[[], None],
    watch: supervisor.Watch,
    run: Callable[..., Outcome] = supervisor.run,
    receipts: Receipts | None = None,
    spawn: Spawn = spawn_worker,
    stop: threading.Event | None = None,
    timeout_seconds: float | None = None,
) -> Outcome:
    """The outcome of the job; `begin` is called when it turns out that there is something to do.

    What is up to date according to `receipts` is skipped, without them everything is done; who gets the folder looks
    again, because another batch may have had it in between. A folder in which another export is at work is told from
    its lock before anything is started, and is a failure with an `InUseError`.
    """

    def known() -> Outcome | None:
        return receipts.skipped(job) if receipts and receipts.is_done(job) else None

    limits = Limits(stop or threading.Event(), timeout_seconds)
    try:
        if not is_address(job.output_path):
            files.require_free(Path(job.output_path))
        if outcome := known():
            # An export that was killed right after its last step has left its folder for work.
            files.remove_leftovers(Path(job.output_path))
            return outcome
        job = replace(job, unless_done=receipts is not None)
        if is_elsewhere(job):
            transfer = Transfer(job, watch, limits, known)
            return transfer.carry_out(partial(run, watch=watch, spawn=spawn, stop=limits.stop), begin)
    except ExportError as error:
        return failed(job, error)
    begin()
    return run(job, watch=watch, spawn=spawn, stop=limits.stop, timeout_seconds=timeout_seconds)


def failed(job: Job, error: ExportError) -> Outcome:
    return Outcome(job.name, "failed", job.output_path, error=error.as_record())
