"""A job whose source, or whose place for the output, is not on this machine: fetched first, uploaded afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter import memory, wire
from exporter.errors import ExportError, ResourceError, TransientError
from exporter.private_folder import private_folder
from exporter.readers.companions import fetch_companions
from exporter.records import Job, Outcome, Stage
from exporter.sources import detection
from exporter.sources.fitting import fitted
from exporter.storage.addresses import is_address
from exporter.storage.exports import remember
from exporter.storage.fetching import Progress, fetch

FETCH_STAGE, UPLOAD_STAGE = "fetch", "upload"
# Progress is told at most this often.
PROGRESS_SECONDS = 0.1

Run = Callable[..., Outcome]


def is_elsewhere(job: Job) -> bool:
    return bool(job.origin and job.origin.address) or is_address(job.output_path)


@dataclass
class Limits:
    """What ends a job from outside: another thread sets `stop`, or its time is over."""

    stop: threading.Event
    timeout_seconds: float | None
    started: float = field(default_factory=time.monotonic)

    def check(self, name: str, stage: str) -> None:
        """Raises TransientError or ResourceError when the job `name` has to end in this stage."""
        if self.stop.is_set():
            raise TransientError("was stopped", where=name, why=f"during stage {stage}", hint="run it again")
        left = self.left()
        if left is not None and left <= 0:
            what = f"took longer than --timeout {self.timeout_seconds:g} s"
            raise ResourceError(what, where=name, why=f"it was in stage {stage}", hint="raise --timeout")

    def left(self) -> float | None:
        """Seconds, None for as many as it takes."""
        if self.timeout_seconds is None:
            return None
        return self.timeout_seconds - (time.monotonic() - self.started)


class Transfer:
    """One job with its way here and its way back."""

    def __init__(
        self, job: Job, watch: Callable[[wire.Event], None], limits: Limits, known: Callable[[], Outcome | None]
    ) -> None:
        """`known` is the outcome where nothing is left to do; it is asked when nobody else can write there."""
        self.job, self.watch, self.limits, self.known = job, watch, limits, known
        self.stages: dict[str, Stage] = {}
        self._told = 0.0

    def carry_out(self, run: Run, begin: Callable[[], None]) -> Outcome:
        """The outcome, with the places that the user knows. Raises ExportError, InUseError among them."""
        if not is_address(self.job.output_path):
            with private_folder() as place:
                begin()
                return self._public(self._run(self._here(place), run), place)
        from exporter.storage.lease import Lease
        from exporter.storage.objects import ObjectStore
        from exporter.storage.publishing import publish

        store = ObjectStore(self.job.output_path)
        with private_folder() as place, Lease(store, self.limits.stop) as lease:
            if outcome := self.known():
                return outcome
            begin()
            job = replace(self._here(place), output_path=str(place / "output" / self.job.name))
            outcome = self._run(job, run)
            if outcome.status in ("done", "mismatch"):
                with self._stage(UPLOAD_STAGE) as progress:
                    remember(self.job.output_path, publish(Path(job.output_path), store, lease, progress))
            return self._public(outcome, place)

    def _here(self, place: Path) -> Job:
        """The job with its source on this machine. Raises ExportError."""
        origin = self.job.origin
        if origin is None:
            return self.job
        with self._stage(FETCH_STAGE) as progress, self._named(place / "source", origin.name):
            path = fetch(origin.address, place / "source", progress)
            reference = detection.detect(str(path), origin.kind)
            fetch_companions(reference, origin.address, progress)
            job = fitted(self.job, reference, chosen_formats=origin.chosen_formats)
            return replace(job, origin=replace(origin, address=""))

    def _run(self, job: Job, run: Run) -> Outcome:
        return run(job, timeout_seconds=self.limits.left())

    @contextmanager
    def _stage(self, name: str) -> Iterator[Progress]:
        """Told like one of the worker's; its progress ends the job when it has to end."""
        self.limits.check(self.job.name, name)
        self.watch(wire.StageEvent(name, "start"))
        started = time.monotonic()
        try:
            yield lambda done, total: self._progress(name, done, total)
        finally:
            stage = Stage(name, time.monotonic() - started, memory.peak_rss_bytes())
            self.stages[name] = stage
            self.watch(wire.StageEvent(name, "end", stage.seconds, stage.peak_rss_bytes))

    def _progress(self, stage: str, done: int, total: int) -> None:
        self.limits.check(self.job.name, stage)
        if done == total or time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = time.monotonic()
            self.watch(wire.ProgressEvent(stage, done, total))

    @contextmanager
    def _named(self, folder: Path, name: str) -> Iterator[None]:
        """Errors are about the address, not about the copy of this moment."""
        try:
            yield
        except ExportError as error:
            words = _without(error.as_record(), self._paths(folder))
            raise type(error)(words["what"], where=words["where"], why=words["why"], hint=words["hint"]) from error

    def _paths(self, folder: Path) -> dict[str, str]:
        origin = self.job.origin
        if origin is None:
            return {}
        return {str(folder / Path(origin.name).name): origin.name, str(folder): origin.name.rpartition("/")[0]}

    def _public(self, outcome: Outcome, place: Path) -> Outcome:
        """No path of the spool folder, which is gone by now, and the transfers among the stages."""
        paths = {str(place / "output" / self.job.name): self.job.output_path, **self._paths(place / "source")}
        before, after = (self.stages.get(name) for name in (FETCH_STAGE, UPLOAD_STAGE))
        stages = [*([before] if before else ()), *outcome.stages, *([after] if after else ())]
        return replace(
            outcome,
            output_path=self.job.output_path,
            seconds=outcome.seconds + sum(stage.seconds for stage in self.stages.values()),
            stages=tuple(stages),
            notes=tuple(_without(note, paths) for note in outcome.notes),
            error=_without(outcome.error, paths) if outcome.error else None,
        )


def _without(value: Any, paths: Mapping[str, str]) -> Any:
    """Texts, alone or in a record, with names in the place of paths."""
    if isinstance(value, Mapping):
        return {key: _without(item, paths) for key, item in value.items()}
    if isinstance(value, str):
        for path, name in paths.items():
            value = value.replace(path, name)
    return value
