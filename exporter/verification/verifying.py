"""Whether and how an ONNX file is compared with its source."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from exporter import memory
from exporter.files import write_json
from exporter.records import Job, ModelGraph, TensorSpec, Verification
from exporter.verification import tolerances
from exporter.verification.children import NOBODY, Request, Understudies, run_children
from exporter.verification.sample_inputs import DYNAMIC_BATCH, DYNAMIC_IMAGE_SIZE, concrete, index_limit
from exporter.verification.table_keys import table_keys

# Importing TensorFlow with Keras, and what a run needs beside weights and activations.
REFERENCE_BASE_BYTES = 10**9
# Keras holds an archive's file and the model at once; ONNX Runtime a tensor and its packed form.
WEIGHT_COPIES, ACTIVATION_COPIES = 3, 8
# The parent ends the whole job at --max-memory; the children of this one stay below this part of what is left.
SHARE_OF_LIMIT = 0.9


def verify(
    job: Job,
    graph: ModelGraph,
    inputs: Sequence[TensorSpec],
    onnx_path: Path,
    scratch: Path,
    understudies: Understudies = NOBODY,
) -> Verification:
    """Compare; never raises for what goes wrong in a child: that is a skipped verification or a mismatch, with why.

    Temporary files go below `scratch`. A role that has an understudy is its own; each other gets a new process.
    """
    batch = 1 if job.reading.dequantize else DYNAMIC_BATCH
    specs = tuple(concrete(spec, batch) for spec in inputs)
    needed = needed_bytes(graph, specs)
    limit = None
    free = memory.available_bytes()
    if job.max_memory_bytes is not None:
        limit = int(SHARE_OF_LIMIT * (job.max_memory_bytes - memory.rss_bytes()))
        free = min(free, limit)
    if needed > free:
        reason = f"it would need about {memory.format_bytes(needed)}, and {memory.format_bytes(max(free, 0))} are free"
        return Verification("skipped", reason, needed_bytes=needed)
    keys = table_keys(onnx_path) if all(spec.shape is not None for spec in specs) else {}
    if any(spec.shape is None or (spec.dtype == "string" and spec.name not in keys) for spec in specs):
        why = "inputs of unknown rank, or of text that no table takes, cannot be made up"
        return Verification("skipped", why, needed_bytes=needed)
    request = Request(
        job, specs, index_limit(graph), tolerances.absolute(job, graph), tolerances.relative(job, graph), str(onnx_path)
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        write_json(Path(folder) / "request.json", asdict(request))
        found = run_children(Path(folder), limit, understudies)
    # Messages of libraries name files; what ends up in the manifest must not say where on this machine they are.
    reason = found.reason.replace(f"{onnx_path.parent}{os.sep}", "").replace(os.path.abspath(job.source), job.name)
    return replace(found, reason=reason, needed_bytes=needed, seconds=time.monotonic() - started)


def needed_bytes(graph: ModelGraph, inputs: Sequence[TensorSpec]) -> int:
    """An estimate, on the high side, of what the larger of the two children holds at its peak."""
    weights = sum(weight.nbytes for weight in graph.weights)
    batch = next((spec.shape[0] for spec in inputs if spec.shape), None) or 1
    sizes = [_elements(output, batch) for layer in graph.layers for output in layer.outputs or ()]
    return REFERENCE_BASE_BYTES + WEIGHT_COPIES * weights + ACTIVATION_COPIES * 4 * max(sizes, default=0)


def _elements(spec: TensorSpec, batch: int) -> int:
    shape = spec.shape or ()
    known = [
        size if size is not None else batch if axis == 0 else DYNAMIC_IMAGE_SIZE for axis, size in enumerate(shape)
    ]
    return int(np.prod(known, dtype=np.int64))
