"""One job: open the source, write each artifact, verify, the receipt last."""

from __future__ import annotations

import dataclasses
import importlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import memory
from exporter.costs.model_costs import job_costs
from exporter.errors import UnsupportedError
from exporter.files import Export, describe
from exporter.formats import COSTS, FORMATS, HOLLOW, STATISTICS, needed
from exporter.formats.pictures.drawings import check_names
from exporter.graph_limits import check_costs, check_graph
from exporter.opening import Opening
from exporter.readers.described import DescribedModel
from exporter.receipts import manifest, public_name, versions
from exporter.records import Job, Material, Outcome, TensorSpec, Verification, WrittenFile
from exporter.reporting import Reporter
from exporter.sources.detection.kinds import ONNX_FILE, SAVED_MODEL
from exporter.sources.digest import source_digest
from exporter.structure import hollow_copy

if TYPE_CHECKING:
    from exporter.sources.opened import Opened
    from exporter.verification.verifying import Comparison


class Work:
    """A job under way."""

    def __init__(self, job: Job, export: Export, reporter: Reporter, *, may_fork: bool = False) -> None:
        self.job, self.export, self.reporter = job, export, reporter
        self.opening = Opening(job, str(export.staging), reporter, may_fork=may_fork)
        self.names: list[str] = []
        self.digests: dict[str, str] = {}
        self._background = ThreadPoolExecutor(1, "digest")
        self.inputs: tuple[TensorSpec, ...] = ()
        self.comparison: Comparison | None = None
        self.verification: Verification | None = None

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        self.opening.close()

    def run(self) -> Outcome:
        """Raises ExportError; nothing has changed in the output folder then."""
        started = time.monotonic()
        digest = self._background.submit(lambda: self.job.source_digest or source_digest(self.job))
        opened = self.opening.read_or_open()
        check_graph(opened.graph, self.job.source)
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
            check_costs(costs, material.nodes or (), self.job.source)
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
        self.export.commit(
            self.names, manifest(self.job, opened.graph, outcome, material, self.opening.import_rss_bytes)
        )
        return outcome

    def check(self) -> Outcome:
        """Compare the source with the file that `against` names; nothing is written. Raises ExportError."""
        from exporter.verification.sample_inputs import given_sizes

        started = time.monotonic()
        opened = self.opening.open()
        path = Path(self.job.against)
        self.inputs = given_sizes(opened.inputs(self.job), path)
        with self.reporter.stage("verify"):
            self.verification = self._comparison(opened, path).verdict()
        opened.finish_checks()
        return self._outcome(opened, (), time.monotonic() - started)

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
        if opened.stand_in:
            reading = dataclasses.replace(job.reading, signature="", arguments={})
            job = dataclasses.replace(job, source=opened.stand_in, kind=SAVED_MODEL, reading=reading)
        return Comparison(job, opened.graph, self.inputs, path, self.export.staging, self.opening.understudies)

    def _begin_comparison(self, opened: Opened) -> None:
        """The source may run beside the conversion, where no other model needs the processors and the memory."""
        self.comparison = self._comparison(opened, self.export.staging / "model.onnx")
        if self.job.is_alone and self.job.max_memory_bytes is None and memory.processors() > 1:
            largest = max((weight.nbytes for weight in opened.graph.weights), default=0)
            self.comparison.begin(memory.conversion_bound_bytes(self.opening.import_rss_bytes, largest))

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
