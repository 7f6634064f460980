"""The ONNX file against its source: the same seeded input through both, in processes of their own.

Two children run one after the other, so that the memory needed is that of the larger and not the sum: `reference`
loads the source with its framework and keeps its outputs in a file; `runtime` runs the ONNX file, without TensorFlow,
and compares.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter import memory, wire
from exporter.files import new_file, write_json
from exporter.records import Job, ModelGraph, OutputDifference, TensorSpec, Verification

# Half precision keeps 8 to 11 bits, and every framework sums in its own order.
HALF_PRECISION = {"float16": 2e-2, "bfloat16": 1e-1}
# With a dynamic batch two samples are run, so that a batch size that got baked in shows.
DYNAMIC_BATCH = 2
DYNAMIC_IMAGE_SIZE, DYNAMIC_LENGTH = 128, 16
# Importing TensorFlow with Keras, and what a run needs beside weights and activations.
REFERENCE_BASE_BYTES = 10**9
# Keras holds an archive's file and the model at once; ONNX Runtime a tensor and its packed form.
WEIGHT_COPIES, ACTIVATION_COPIES = 3, 8


@dataclass(frozen=True)
class Request:
    """What the children need: the job as it was carried out, the inputs with their final shapes, where the file is."""

    job: Job
    inputs: tuple[TensorSpec, ...]
    index_limit: int
    rtol: float
    onnx_path: str


def verify(job: Job, graph: ModelGraph, inputs: Sequence[TensorSpec], onnx_path: Path) -> Verification:
    """Compare; never raises for what goes wrong in a child: that is a skipped verification or a mismatch, with why."""
    specs = tuple(_concrete(spec) for spec in inputs)
    needed = needed_bytes(graph, specs)
    free = memory.available_bytes()
    if job.max_memory_bytes is not None:
        free = min(free, job.max_memory_bytes - memory.rss_bytes())
    if needed > free:
        reason = f"it would need about {memory.format_bytes(needed)}, and {memory.format_bytes(max(free, 0))} are free"
        return Verification("skipped", reason, needed_bytes=needed)
    if any(spec.dtype == "string" or spec.shape is None for spec in specs):
        return Verification("skipped", "inputs of text or of unknown rank cannot be made up", needed_bytes=needed)
    request = Request(job, specs, _index_limit(graph), _rtol(job, graph), str(onnx_path))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=onnx_path.parent) as folder:
        write_json(Path(folder) / "request.json", asdict(request))
        found = _run_children(Path(folder))
    return Verification(**(asdict(found) | {"outputs": found.outputs, "seconds": time.monotonic() - started}))


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


def _concrete(spec: TensorSpec) -> TensorSpec:
    """The input with a size for every dynamic dimension."""
    if spec.shape is None:
        return spec
    other = DYNAMIC_IMAGE_SIZE if len(spec.shape) >= 4 else DYNAMIC_LENGTH
    sizes = tuple(
        size if size is not None else DYNAMIC_BATCH if axis == 0 else other for axis, size in enumerate(spec.shape)
    )
    return TensorSpec(spec.name, sizes, spec.dtype)


def _index_limit(graph: ModelGraph) -> int:
    """Whole-number inputs are taken for indices; they stay below the smallest table that the model has."""
    limits = []
    for layer in graph.layers:
        config = json.loads(layer.config)
        limits += [config[key] for key in ("input_dim", "num_tokens") if isinstance(config.get(key), int)]
    return min(limits, default=2)


def _rtol(job: Job, graph: ModelGraph) -> float:
    dtypes = {output.dtype for layer in graph.layers for output in layer.outputs or ()}
    return max([job.rtol, *(HALF_PRECISION[dtype] for dtype in dtypes if dtype in HALF_PRECISION)])


def _run_children(folder: Path) -> Verification:
    for role in ("reference", "runtime"):
        child = subprocess.run(
            [sys.executable, "-m", "exporter.verification", role, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if child.returncode != 0:
            return _failed(role, child.returncode, child.stderr.decode("utf-8", "replace"))
    return wire.restore(Verification, json.loads((folder / "result.json").read_text(encoding="utf-8")))


def _failed(role: str, status: int, log: str) -> Verification:
    """A source that does not run leaves nothing to compare with; an ONNX file that does not run is wrong."""
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "it printed nothing")
    why = f"killed by signal {-status}, probably out of memory" if status < 0 else last[:500]
    if role == "reference":
        return Verification("skipped", f"the source could not be run for comparison: {why}")
    if status < 0:
        return Verification("skipped", f"ONNX Runtime was {why}")
    return Verification("mismatch", f"ONNX Runtime cannot run the file: {why}")


def make_inputs(inputs: Sequence[TensorSpec], index_limit: int, seed: int) -> list[np.ndarray]:
    """Seeded inputs: normal numbers, in the second sample 16 times as large; whole numbers below `index_limit`."""
    generator = np.random.default_rng(seed)
    arrays: list[np.ndarray] = []
    for spec in inputs:
        shape, dtype = tuple(size or 1 for size in spec.shape or ()), np.dtype(spec.dtype or "float32")
        if dtype.kind in "iub":
            arrays.append(generator.integers(0, 2 if dtype.kind == "b" else index_limit, shape).astype(dtype))
            continue
        array = generator.standard_normal(shape)
        if shape and shape[0] > 1:
            array[1] *= 16
        arrays.append(array.astype(dtype))
    return arrays


def run_reference(request: Request, folder: Path) -> None:
    from exporter.sources.reference import reference_outputs

    inputs = make_inputs(request.inputs, request.index_limit, request.job.seed)
    outputs = reference_outputs(request.job, inputs)
    with new_file(folder / "reference.npz") as stream:
        np.savez(stream, *[_comparable(output) for output in outputs])
    write_json(folder / "reference.json", {"peak_rss_bytes": memory.peak_rss_bytes()})


def run_runtime(request: Request, folder: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(request.onnx_path, options, providers=["CPUExecutionProvider"])
    inputs = make_inputs(request.inputs, request.index_limit, request.job.seed)
    names = [spec.name for spec in request.inputs]
    used = {value.name for value in session.get_inputs()}
    feeds = {name: array for name, array in zip(names, inputs, strict=True) if name in used}
    outputs = session.run(None, feeds)
    with np.load(folder / "reference.npz") as saved:
        expected = [saved[f"arr_{index}"] for index in range(len(saved.files))]
    labels = [value.name for value in session.get_outputs()]
    found = compare(labels, expected, outputs, request.job.atol, request.rtol)
    peak = json.loads((folder / "reference.json").read_text(encoding="utf-8"))["peak_rss_bytes"]
    record = asdict(found) | {"peak_rss_bytes": max(peak, memory.peak_rss_bytes())}
    write_json(folder / "result.json", record)


def compare(
    names: Sequence[str], expected: Sequence[np.ndarray], found: Sequence[np.ndarray], atol: float, rtol: float
) -> Verification:
    """`passed` when every output has the source's shape and stays within its limit."""
    if [array.shape for array in expected] != [array.shape for array in found]:
        shapes = f"{[list(array.shape) for array in found]} instead of {[list(array.shape) for array in expected]}"
        return Verification("mismatch", f"the outputs have the shapes {shapes}")
    rows = tuple(_difference(*item, atol, rtol) for item in zip(names, expected, found, strict=True))
    worst = [row for row in rows if not row.max_abs <= row.limit]
    reason = "; ".join(f"{row.output} differs by {row.max_abs:.3g}, allowed is {row.limit:.3g}" for row in worst)
    return Verification("mismatch" if worst else "passed", reason, outputs=rows)


def _difference(name: str, expected: np.ndarray, found: np.ndarray, atol: float, rtol: float) -> OutputDifference:
    a, b = _comparable(expected).astype(np.float64), _comparable(found).astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(a - b))
    gaps = np.nan_to_num(gaps, nan=np.finfo(np.float64).max, posinf=np.finfo(np.float64).max)
    magnitude = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0))
    largest = float(np.max(gaps, initial=0.0))
    relative = largest / magnitude if magnitude else (0.0 if largest == 0 else float(np.finfo(np.float64).max))
    return OutputDifference(name, tuple(expected.shape), largest, relative, atol + rtol * magnitude)


def _comparable(array: np.ndarray) -> np.ndarray:
    """NumPy's files know no bfloat16."""
    return array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else array


def main(arguments: Sequence[str]) -> None:
    role, folder = arguments[0], Path(arguments[1])
    data: dict[str, Any] = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    request = wire.restore(Request, data)
    {"reference": run_reference, "runtime": run_runtime}[role](request, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
