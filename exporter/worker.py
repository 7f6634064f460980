"""One job, in this process, whatever happens to it.

Run as `python -m exporter.worker JOB_PATH RESULT_PATH EVENTS_FD`; `exporter.supervisor` is at the other end.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from exporter import memory, resuming, wire
from exporter.errors import ExportError, InternalError, ResourceError, SourceError
from exporter.files import Export, write_lines
from exporter.records import Job, Outcome
from exporter.reporting import Reporter
from exporter.startup import collect_rarely, hidden
from exporter.work import Work


def carry_out(job: Job, reporter: Reporter, *, may_fork: bool = False) -> Outcome:
    """The job's outcome; every error becomes one, because nobody is above to read a traceback.

    `may_fork`: this process has done nothing before, so that copies of it are as good as new ones.
    """
    started = time.monotonic()
    try:
        with Export(Path(job.output_path)) as export, Work(job, export, reporter, may_fork=may_fork) as work:
            if job.unless_done and resuming.is_done(job):
                return resuming.skipped(job)
            return work.check() if job.against else work.run()
    except Exception as error:  # noqa: BLE001 (the boundary of this process)
        found = _as_export_error(error, job)
    return Outcome(
        name=job.name,
        status="failed",
        output_path=job.output_path,
        seconds=time.monotonic() - started,
        peak_rss_bytes=memory.peak_rss_bytes(),
        stages=tuple(reporter.stages),
        notes=tuple(reporter.notes),
        error=found.as_record() | {"trace": "".join(traceback.format_exception(found))},
    )


def _as_export_error(error: Exception, job: Job) -> ExportError:
    """What nobody foresaw is a defect, and its traceback is kept for --debug."""
    if isinstance(error, ExportError):
        if isinstance(error, SourceError) and job.reading.seen:
            error.hint = f"--source-kind {job.kind} was given, and the content {job.reading.seen}"
        return error
    found: ExportError
    if isinstance(error, MemoryError):
        why, hint = str(error)[:500], "free some memory, or use --no-verify, which needs less"
        found = ResourceError("the memory is used up", where=job.name, why=why, hint=hint)
    else:
        what, hint = f"unexpected {type(error).__name__}", "repeat with --debug and report it with the traceback"
        found = InternalError(what, where=job.name, why=str(error)[:500], hint=hint)
    found.__cause__ = error
    return found


def end_with_parent(events_descriptor: int) -> None:
    """Kill this process and its children when nobody reads the events any more: an orphan must not go on."""

    def watch() -> None:
        poll = select.poll()
        # Errors alone are asked for, and a pipe without readers is one (POLLERR).
        poll.register(events_descriptor, 0)
        poll.poll()
        os.killpg(0, signal.SIGKILL)

    if os.getpgid(0) == os.getpid():
        threading.Thread(target=watch, daemon=True).start()


def main(job_path: str, result_path: str, events_descriptor: str) -> None:
    end_with_parent(int(events_descriptor))
    collect_rarely()
    job = wire.job_from_json(Path(job_path).read_text(encoding="utf-8"))
    with os.fdopen(int(events_descriptor), "w", encoding="utf-8") as stream:
        # pyarrow imports pandas, if it can, to see whether a value is one of its series: half a second.
        with hidden(("pandas",)):
            outcome = carry_out(job, Reporter(stream), may_fork=True)
        write_lines(Path(result_path), [wire.outcome_to_json(outcome)])


if __name__ == "__main__":
    main(*sys.argv[1:])
    # The result is on the disk; taking TensorFlow apart would keep the user waiting for another second.
    os._exit(0)
