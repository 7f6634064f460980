"""Whether and how an ONNX file is compared with its source."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from exporter import memory
from exporter.files import write_json
from exporter.records import Job, ModelGraph, TensorSpec, Verification
from exporter.verification import children, tolerances
from exporter.verification.children import NOBODY, Request, Understudies, run_children
from exporter.verification.sample_inputs import (
    DYNAMIC_BATCH,
    DYNAMIC_IMAGE_SIZE,
    LARGER_SIZES,
    concrete,
    index_inputs,
    index_limit,
)
from exporter.verification.table_keys import table_keys

# Importing TensorFlow with Keras, and what a run needs beside weights and activations.
REFERENCE_BASE_BYTES = 10**9
# Keras holds an archive's file and the model at once; ONNX Runtime a tensor and its packed form.
WEIGHT_COPIES, ACTIVATION_COPIES = 3, 8
FLOATING = ("float16", "bfloat16", "float32", "float64")
# The parent ends the whole job at --max-memory; the children of this one stay below this part of what is left.
SHARE_OF_LIMIT = 0.9


class Comparison:
    """An ONNX file, which may still have to be written, against its source.

    Temporary files go below `scratch`. A role that has an understudy is its own; each other gets a new process.
    """

    def __init__(
        self,
        job: Job,
        graph: ModelGraph,
        inputs: Sequence[TensorSpec],
        onnx_path: Path,
        scratch: Path,
        understudies: Understudies = NOBODY,
    ) -> None:
        batch = 1 if job.reading.dequantize else DYNAMIC_BATCH
        specs = tuple(concrete(spec, batch) for spec in inputs)
        limits = tolerances.absolute(job, graph), tolerances.relative(job, graph)
        larger = tuple(_larger(graph, inputs, batch, job.max_memory_bytes))
        self._request = Request(job, specs, index_limit(graph), *limits, str(onnx_path), larger, index_inputs(graph))
        self._needed_bytes = needed_bytes(graph, specs)
        self._scratch, self._understudies = scratch, understudies
        self._folder: Path | None = None

    def begin(self, beside_bytes: int) -> None:
        """Run the source now, if there is room for it beside what else needs `beside_bytes`.

        Not where the file has to say first which texts or numbers its tables take.
        """
        floating = all(spec.shape is not None and spec.dtype in FLOATING for spec in self._request.inputs)
        room = self._needed_bytes + beside_bytes <= memory.available_bytes()
        if floating and room and "reference" in self._understudies:
            children.begin("reference", self._opened_folder(), self._understudies)

    def verdict(self) -> Verification:
        """Never raises for what goes wrong in a child: that is a skipped verification or a mismatch, with why."""
        started = time.monotonic()
        job, path, needed = self._request.job, Path(self._request.onnx_path), self._needed_bytes
        limit = None
        if job.max_memory_bytes is not None:
            limit = int(SHARE_OF_LIMIT * (job.max_memory_bytes - memory.rss_bytes()))
        if self._folder is None and (why := self._hindrance(limit)):
            return Verification("skipped", why, needed_bytes=needed)
        folder = self._opened_folder()
        try:
            found = run_children(folder, limit, self._understudies)
        finally:
            shutil.rmtree(folder)
        # Messages of libraries name files; what ends up in the manifest must not say where on this machine they are.
        reason = found.reason.replace(f"{path.parent}{os.sep}", "").replace(os.path.abspath(job.source), job.name)
        return replace(found, reason=reason, needed_bytes=needed, seconds=time.monotonic() - started)

    def _hindrance(self, limit_bytes: int | None) -> str:
        """Why nothing can be compared."""
        free = min(memory.available_bytes(), limit_bytes if limit_bytes is not None else sys.maxsize)
        if self._needed_bytes > free:
            needed, left = map(memory.format_bytes, (self._needed_bytes, max(free, 0)))
            return f"it would need about {needed}, and {left} are free"
        specs = self._request.inputs
        keys = table_keys(Path(self._request.onnx_path)) if all(spec.shape is not None for spec in specs) else {}
        if any(spec.shape is None or (spec.dtype == "string" and spec.name not in keys) for spec in specs):
            return "inputs of unknown rank, or of text that no table takes, cannot be made up"
        return ""

    def _opened_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(dir=self._scratch))
            write_json(self._folder / "request.json", asdict(self._request))
        return self._folder


def _larger(
    graph: ModelGraph, inputs: Sequence[TensorSpec], batch: int, limit_bytes: int | None
) -> Iterator[tuple[TensorSpec, ...]]:
    """The inputs in larger sizes than the usual ones, where they leave sizes open and there is memory for them."""
    free = min(memory.available_bytes(), limit_bytes or sys.maxsize)
    before = tuple(concrete(spec, batch) for spec in inputs)
    for sizes in LARGER_SIZES:
        specs = tuple(concrete(spec, batch, sizes) for spec in inputs)
        if specs != before and needed_bytes(graph, specs, _largest(inputs, specs)) <= free:
            yield specs
        before = specs


def _largest(inputs: Sequence[TensorSpec], specs: Sequence[TensorSpec]) -> int:
    """The largest of the sizes that the inputs leave open."""
    pairs = (zip(spec.shape or (), given.shape or (), strict=True) for given, spec in zip(inputs, specs, strict=True))
    return max((size or 0 for pair in pairs for size, declared in pair if declared is None), default=0)


def needed_bytes(graph: ModelGraph, inputs: Sequence[TensorSpec], dynamic: int = DYNAMIC_IMAGE_SIZE) -> int:
    """An estimate, on the high side, of what the larger of the two children holds at its peak.

    Sizes of outputs that are not known are taken for `dynamic`.
    """
    weights = sum(weight.nbytes for weight in graph.weights)
    batch = next((spec.shape[0] for spec in inputs if spec.shape), None) or 1
    sizes = [_elements(output, batch, dynamic) for layer in graph.layers for output in layer.outputs or ()]
    return REFERENCE_BASE_BYTES + WEIGHT_COPIES * weights + ACTIVATION_COPIES * 4 * max(sizes, default=0)


def _elements(spec: TensorSpec, batch: int, dynamic: int) -> int:
    shape = spec.shape or ()
    known = [size if size is not None else batch if axis == 0 else dynamic for axis, size in enumerate(shape)]
    return int(np.prod(known, dtype=np.int64))
