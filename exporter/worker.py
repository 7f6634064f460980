"""One job, in this process: open the source, write each artifact, verify, the receipt last.

Run as `python -m exporter.worker JOB_PATH RESULT_PATH EVENTS_FD`; `exporter.supervisor` is at the other end.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import memory, wire
from exporter.costs.model_costs import job_costs
from exporter.errors import ExportError, InternalError, ResourceError, SourceError, TrustError, UnsupportedError
from exporter.files import Export, describe, write_lines
from exporter.formats import COSTS, FORMATS, HOLLOW, STATISTICS, needed
from exporter.formats.pictures.drawings import check_names
from exporter.heartbeat import heartbeat
from exporter.readers import LENIENT, READERS, Unexplained, unloaded_note
from exporter.readers.described import DescribedModel
from exporter.receipts import manifest, public_name, versions
from exporter.records import Job, Material, Outcome, TensorSpec, Verification, WrittenFile
from exporter.reporting import Reporter
from exporter.sources.detection.kinds import HDF5, ONNX_FILE, WITHOUT_ONNX
from exporter.sources.digest import source_digest
from exporter.startup import collect_rarely, hidden, lean_imports
from exporter.structure import hollow_copy
from exporter.verification.understudy import IS_POSSIBLE, Understudy

if TYPE_CHECKING:
    from exporter.sources.opened import Opened
    from exporter.verification.verifying import Comparison


class Work:
    """A job under way."""

    def __init__(self, job: Job, export: Export, reporter: Reporter, *, may_fork: bool = False) -> None:
        self.job, self.export, self.reporter = job, export, reporter
        self.may_fork = may_fork and IS_POSSIBLE
        self.understudies: dict[str, Understudy] = {}
        self.names: list[str] = []
        self.digests: dict[str, str] = {}
        self._background = ThreadPoolExecutor(1, "digest")
        self.import_rss_bytes = 0
        self.inputs: tuple[TensorSpec, ...] = ()
        self.comparison: Comparison | None = None
        self.verification: Verification | None = None

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        """Who may still be at work must not write into a folder that is being removed."""
        for understudy in self.understudies.values():
            understudy.end()

    def run(self) -> Outcome:
        """Raises ExportError; nothing has changed in the output folder then."""
        started = time.monotonic()
        digest = self._background.submit(lambda: self.job.source_digest or source_digest(self.job))
        opened = self._described() or self._open_or_read()
        self.inputs = opened.inputs(self.job)
        material = Material(
            self.job, opened.graph, source=public_name(self.job), weights=opened.weights, versions=versions()
        )
        if self.job.picture.expand:
            check_names(material)
        needs = needed(self.job.formats)
        if isinstance(opened, DescribedModel):
            material = self._take(opened, material)
        elif "onnx" in self.job.formats:
            material = self._convert(opened, material)
        elif HOLLOW in needs:
            material = self._convert_hollow(opened, material)
        if self.job.stats or STATISTICS in needs:
            material = self._measure(opened, material)
        if COSTS in needs:
            costs = material.costs or job_costs(self.job, material.graph, material.nodes)
            material = dataclasses.replace(material, costs=costs)
            memory.release_unused()
        self._write_all(material, after_verification=False)
        if "onnx" in self.job.formats and not isinstance(opened, DescribedModel):
            self.verification = self._verify()
        with self.reporter.stage("source"):
            opened.finish_checks()
            self.job = dataclasses.replace(self.job, source_digest=digest.result())
        material = dataclasses.replace(material, job=self.job, verification=self.verification)
        self._write_all(material, after_verification=True)
        files = describe(self.export.staging, self.names, self.digests)
        outcome = self._outcome(opened, files, time.monotonic() - started)
        self.export.commit(self.names, manifest(self.job, opened.graph, outcome, material, self.import_rss_bytes))
        return outcome

    def check(self) -> Outcome:
        """Compare the source with the file that `against` names; nothing is written. Raises ExportError."""
        from exporter.verification.sample_inputs import given_sizes

        started = time.monotonic()
        opened = self._open()
        path = Path(self.job.against)
        self.inputs = given_sizes(opened.inputs(self.job), path)
        with self.reporter.stage("verify"):
            self.verification = self._comparison(opened, path).verdict()
        opened.finish_checks()
        return self._outcome(opened, (), time.monotonic() - started)

    def _open(self) -> Opened:
        with self.reporter.stage("import"), lean_imports():
            from exporter.sources.opened import open_model

            self.import_rss_bytes = memory.peak_rss_bytes()
        if self.may_fork and (self.job.against or ("onnx" in self.job.formats and self.job.verify)):
            from exporter.sources import reference  # noqa: F401 (the understudy shall find it imported)
            from exporter.verification import children, roles

            self.understudies = {role: Understudy(roles.main) for role in children.UNDERSTUDIED}
        with self.reporter.stage("build"), self._patience():
            opened = open_model(self.job, str(self.export.staging))
        self.reporter.note(*opened.notes)
        return opened

    def _patience(self) -> AbstractContextManager[None]:
        """What is read by libhdf5, which may not come back, and by nothing that is slow for good reasons."""
        return heartbeat() if self.job.kind in HDF5 else nullcontext()

    def _open_or_read(self) -> Opened | DescribedModel:
        """What the framework makes of the source, or what its file says where it can make nothing of it."""
        try:
            return self._open()
        except (SourceError, TrustError, UnsupportedError) as error:
            if found := self._described(unloaded=error):
                return found
            raise

    def _described(self, unloaded: ExportError | None = None) -> DescribedModel | None:
        """What the file says of itself, where that is all that is asked for and it says enough.

        `unloaded` is why its framework cannot load it; then what the file says is all there is.
        """
        if self.job.kind not in READERS or self.job.weights != "auto" or "onnx" in self.job.formats:
            return None
        if HOLLOW in needed(self.job.formats) and self.job.kind not in WITHOUT_ONNX and not unloaded:
            return None
        if unloaded and self.job.kind not in LENIENT:
            return None
        with self.reporter.stage("read"), self._patience(), suppress(Unexplained):
            read: Callable[..., DescribedModel] = importlib.import_module(READERS[self.job.kind]).read
            self.import_rss_bytes = memory.peak_rss_bytes()
            lenient = {"lenient": True} if unloaded else {}
            found = read(self.job, str(self.export.staging), **lenient)
            self.reporter.note(*found.notes, *([unloaded_note(unloaded)] if unloaded else ()))
            return found
        return None

    def _take(self, opened: DescribedModel, material: Material) -> Material:
        """What an ONNX file knows beyond its layers."""
        self.job = dataclasses.replace(self.job, opset=opened.opset or self.job.opset)
        hollow = None
        if HOLLOW in needed(self.job.formats) and self.job.kind == ONNX_FILE:
            from exporter.formats.view_model.hollow_file import read_hollow

            hollow = read_hollow(Path(self.job.source))
        return dataclasses.replace(
            material, job=self.job, nodes=opened.nodes, stored=opened.stored, costs=opened.costs, hollow=hollow
        )

    def _convert(self, opened: Opened, material: Material) -> Material:
        from exporter.formats.onnx_model import write_model

        if self.job.verify:
            self._begin_comparison(opened)
        with self.reporter.stage("convert"):
            structure = opened.structure(self.job, with_costs=COSTS in needed(self.job.formats))
            # Weights are made from here on; what the conversion needed must not be in memory beside them.
            memory.release_unused()
        if HOLLOW in needed(self.job.formats):
            material = dataclasses.replace(material, hollow=hollow_copy(structure))
        about = {"export_model.source": material.source, "export_model.weights": material.weights}
        with self.reporter.stage("weights"):
            written = write_model(structure, self.job, self.export.staging, about, self.reporter.progress)
        self.reporter.note(*structure.notes())
        self.names += written.digests
        self.digests |= written.digests
        return dataclasses.replace(material, nodes=structure.nodes, stored=written.stored)

    def _convert_hollow(self, opened: Opened, material: Material) -> Material:
        """The ONNX structure to look at, without its weights; a model that has none is shown by its layers."""
        with self.reporter.stage("convert"):
            try:
                structure = opened.structure(self.job)
            except UnsupportedError as error:
                self.reporter.note(f"shown by its layers, because it has no ONNX form: {error.what} ({error.why})")
                return material
        return dataclasses.replace(material, hollow=hollow_copy(structure))

    def _measure(self, opened: Opened | DescribedModel, material: Material) -> Material:
        from exporter.statistics import measure_all

        with self.reporter.stage("stats"):
            weights = [weight for weight in opened.graph.weights if weight.name in opened.values]
            found = measure_all(weights, opened.values, self.reporter.progress)
        return dataclasses.replace(material, statistics=found)

    def _write_all(self, material: Material, *, after_verification: bool) -> None:
        """All formats but ONNX, which is the first of all, that are written at this point."""
        for name in self.job.formats:
            if name != "onnx" and FORMATS[name].after_verification == after_verification:
                self._write(name, material)

    def _write(self, name: str, material: Material) -> None:
        chosen = FORMATS[name]
        with self.reporter.stage(name):
            self.reporter.note(*importlib.import_module(chosen.module).write(material, self.export.staging))
        self.names += [file for file in chosen.files if (self.export.staging / file).exists()]

    def _comparison(self, opened: Opened, path: Path) -> Comparison:
        from exporter.verification.verifying import Comparison

        job = dataclasses.replace(self.job, weights="random" if opened.is_random else self.job.weights)
        return Comparison(job, opened.graph, self.inputs, path, self.export.staging, self.understudies)

    def _begin_comparison(self, opened: Opened) -> None:
        """The source may run beside the conversion, where no other model needs the processors and the memory."""
        self.comparison = self._comparison(opened, self.export.staging / "model.onnx")
        if self.job.is_alone and self.job.max_memory_bytes is None and memory.processors() > 1:
            largest = max((weight.nbytes for weight in opened.graph.weights), default=0)
            self.comparison.begin(memory.conversion_bound_bytes(self.import_rss_bytes, largest))

    def _verify(self) -> Verification:
        if self.comparison is None:
            return Verification("skipped", "--no-verify was given")
        with self.reporter.stage("verify"):
            return self.comparison.verdict()

    def _outcome(self, opened: Opened | DescribedModel, files: tuple[WrittenFile, ...], seconds: float) -> Outcome:
        mismatch = self.verification is not None and self.verification.status == "mismatch"
        return Outcome(
            name=self.job.name,
            status="mismatch" if mismatch else "done",
            output_path=self.job.output_path,
            weights=opened.weights,
            seconds=seconds,
            peak_rss_bytes=memory.peak_rss_bytes(),
            stages=tuple(self.reporter.stages),
            files=files,
            verification=self.verification,
            notes=tuple(self.reporter.notes),
        )


def carry_out(job: Job, reporter: Reporter, *, may_fork: bool = False) -> Outcome:
    """The job's outcome; every error becomes one, because nobody is above to read a traceback.

    `may_fork`: this process has done nothing before, so that copies of it are as good as new ones.
    """
    started = time.monotonic()
    try:
        with Export(Path(job.output_path)) as export, Work(job, export, reporter, may_fork=may_fork) as work:
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
