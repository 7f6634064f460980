"""Jobs become outcomes: each job runs in a process of its own, watched from here.

The child is `python -m exporter.worker JOB_PATH RESULT_PATH EVENTS_FD`. It reads the job, writes the outcome as a file
and, while it works, events as lines of JSON (`exporter.wire`). This process imports nothing that the child needs.
"""

from __future__ import annotations

import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from exporter import files, wire
from exporter.child_process import Child, ProcessTree, Spawn, spawn_worker
from exporter.errors import ExportError, InternalError, ResourceError, SourceError, TransientError
from exporter.heartbeat import STUCK
from exporter.memory import format_bytes
from exporter.private_folder import private_folder
from exporter.records import Job, Outcome, Stage

SAMPLE_SECONDS = 0.05
# A worker that has closed its events is about to end, and its user is waiting for that.
END_SECONDS = 0.005
CHUNK_BYTES = 65_536
# A line of events that does not end within this is no event.
LINE_LIMIT_BYTES = 1_000_000
# The worker's name for the stage that a user can leave out.
VERIFY_STAGE = "verify"
LOG_TAIL_BYTES = 16_384
STOPPED_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU)

Watch = Callable[[wire.Event], None]


def run(
    job: Job,
    *,
    watch: Watch,
    spawn: Spawn = spawn_worker,
    stop: threading.Event | None = None,
    timeout_seconds: float | None = None,
) -> Outcome:
    """Run one job to its end; whatever befalls the worker becomes an outcome.

    The worker is killed, with what it has started, when `stop` is set by another thread or when the time is up.
    KeyboardInterrupt (and SIGTERM or SIGHUP, which are turned into it) kills the worker with all its children, clears
    what it left half done, and goes on to the caller.
    """
    supervisor = Supervisor(job, watch, stop or threading.Event(), timeout_seconds)
    try:
        with private_folder() as folder, termination_interrupts():
            return supervisor.run(folder, spawn)
    except ExportError as error:
        return supervisor.failed(error)


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, unless somebody handles or ignores them (`nohup`)."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    ours = []
    if threading.current_thread() is threading.main_thread():
        ours = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


class Supervisor:
    """One worker as its parent sees it: its events, its memory, its end."""

    def __init__(self, job: Job, watch: Watch, stop: threading.Event, timeout_seconds: float | None) -> None:
        self.job, self.watch = job, watch
        self.stop, self.timeout_seconds = stop, timeout_seconds
        self.started = time.monotonic()
        self.stages: list[Stage] = []
        self.stage = "start"
        self.peak_rss_bytes = self.own_peak_rss_bytes = 0
        self.above_limit = self.too_late = False
        self._unread = b""

    def run(self, folder: Path, spawn: Spawn) -> Outcome:
        """Raises ExportError when there is no outcome that the worker wrote."""
        job_path, result_path = folder / "job.json", folder / "result.json"
        files.write_lines(job_path, [wire.job_to_json(self.job)])
        with tempfile.TemporaryFile(dir=folder) as log:
            status = self._follow(lambda descriptor: spawn(job_path, result_path, descriptor, log))
            tail = _tail(log)
        self.watch(wire.LogEvent(tail))
        return self._outcome(result_path, status, tail)

    def failed(self, error: ExportError) -> Outcome:
        return Outcome(
            name=self.job.name,
            status="failed",
            output_path=self.job.output_path,
            seconds=time.monotonic() - self.started,
            peak_rss_bytes=self.own_peak_rss_bytes,
            tree_peak_rss_bytes=self.peak_rss_bytes,
            stages=tuple(self.stages),
            error=error.as_record(),
        )

    def _follow(self, start: Callable[[int], Child]) -> int:
        """Start the worker and watch it until it has ended. Returns its exit status, negative for a signal."""
        reading, writing = os.pipe()
        try:
            try:
                child = start(writing)
            except OSError as error:
                raise ResourceError("cannot start a worker", where=self.job.name, why=str(error)) from error
            finally:
                os.close(writing)
            return self._watch_process(child, reading)
        finally:
            os.close(reading)

    def _watch_process(self, child: Child, events: int) -> int:
        tree = ProcessTree(child.pid)
        completed = False
        try:
            self._until_end(tree, events)
            completed = True
        finally:
            # Also after a normal end: what the worker started and left behind must not outlive it.
            tree.kill()
            status, self.own_peak_rss_bytes = child.reap()
            if not completed or status != 0:
                files.remove_leftovers(Path(self.job.output_path))
        self._drain(events)
        return status

    def _until_end(self, tree: ProcessTree, events: int) -> None:
        sources = [events]
        sampled = 0.0
        while not (tree.ended() or self.above_limit or self.stop.is_set() or self._is_too_late()):
            patience = SAMPLE_SECONDS if sources else END_SECONDS
            if select.select(sources, [], [], patience)[0] and not self._read(events):
                # The worker has closed its end; only its memory and its exit are left to watch.
                sources = []
            if time.monotonic() - sampled >= SAMPLE_SECONDS:
                sampled = time.monotonic()
                self._sample(tree)

    def _is_too_late(self) -> bool:
        limit = self.timeout_seconds
        self.too_late = limit is not None and time.monotonic() - self.started > limit
        return self.too_late

    def _sample(self, tree: ProcessTree) -> None:
        rss_bytes, limit = tree.held_bytes(), self.job.max_memory_bytes
        if limit is not None and rss_bytes > limit:
            rss_bytes = tree.look()
        self.peak_rss_bytes = max(self.peak_rss_bytes, rss_bytes)
        self.above_limit = limit is not None and rss_bytes > limit
        self.watch(wire.MemoryEvent(rss_bytes, self.peak_rss_bytes))

    def _read(self, events: int) -> bool:
        """Pass on the whole lines that have come. Returns False at the end of the stream."""
        chunk = os.read(events, CHUNK_BYTES)
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        self._unread = self._unread if len(self._unread) <= LINE_LIMIT_BYTES else b""
        for line in lines:
            # A line that is no event is a defect, but not one that is worth losing the export for.
            with suppress(ValueError):
                self._take(wire.event_from_json(line))
        return bool(chunk)

    def _take(self, event: wire.Event) -> None:
        if isinstance(event, wire.StageEvent):
            self.stage = event.stage
            if event.state == "end":
                self.stages.append(Stage(event.stage, event.seconds, event.peak_rss_bytes))
        self.watch(event)

    def _drain(self, events: int) -> None:
        """What is still in the pipe after the end; nobody is left to write more."""
        os.set_blocking(events, False)
        with suppress(BlockingIOError):
            while self._read(events):
                pass

    def _outcome(self, result_path: Path, status: int, tail: str) -> Outcome:
        """A result that is there counts, however the process ended: it is written last. Raises ExportError."""
        try:
            outcome = wire.outcome_from_json(result_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self._death(status, tail) from None
        except (OSError, ValueError) as error:
            raise self._defect("wrote a result that cannot be read", str(error)) from error
        peak = max(self.peak_rss_bytes, outcome.tree_peak_rss_bytes, outcome.peak_rss_bytes)
        return replace(outcome, tree_peak_rss_bytes=peak)

    def _death(self, status: int, tail: str) -> ExportError:
        if self.above_limit:
            return self._above_limit()
        if self.too_late:
            why = f"it was in stage {self.stage}"
            limit = f"{self.timeout_seconds:g} s"
            return ResourceError(
                f"took longer than --timeout {limit}", where=self.job.name, why=why, hint="raise --timeout"
            )
        if self.stop.is_set():
            return TransientError(
                "was stopped", where=self.job.name, why=f"during stage {self.stage}", hint="run it again"
            )
        last = _last_line(tail)
        if status >= 0:
            return self._defect(f"ended with status {status} and no result during stage {self.stage}", last)
        if -status == STUCK:
            why = f"the HDF5 library finds no end in it, in stage {self.stage}"
            return SourceError(
                "cannot be read", where=self.job.name, why=why, hint="it is damaged: copy or save it again"
            )
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        if status == -signal.SIGKILL:
            return self._killed()
        if -status in STOPPED_FROM_OUTSIDE:
            why = f"by {name} from outside, during stage {self.stage}"
            return TransientError("was stopped", where=self.job.name, why=why, hint="run it again")
        return self._defect(f"was ended by {name} during stage {self.stage}", last)

    def _above_limit(self) -> ExportError:
        limit = format_bytes(self.job.max_memory_bytes or 0)
        return ResourceError(
            f"went above --max-memory {limit}",
            where=self.job.name,
            why=f"stage {self.stage}; its peak was {format_bytes(self.peak_rss_bytes)}",
            hint=f"raise --max-memory{self._without_verification()}",
        )

    def _killed(self) -> ExportError:
        peak = format_bytes(max(self.peak_rss_bytes, self.own_peak_rss_bytes))
        return TransientError(
            "was killed by SIGKILL",
            where=self.job.name,
            why=f"probably out of memory; its peak was {peak} during stage {self.stage}",
            hint=f"free some memory{self._without_verification()}",
        )

    def _without_verification(self) -> str:
        return ", or use --no-verify, which needs less" if self.stage == VERIFY_STAGE else ""

    def _defect(self, what: str, why: str) -> ExportError:
        return InternalError(
            f"the worker {what}", where=self.job.name, why=why, hint="the same with --debug, to see what it printed"
        )


def _tail(log: BinaryIO) -> str:
    """The end of the log as text."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - LOG_TAIL_BYTES))
    return log.read().decode("utf-8", "replace")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")
