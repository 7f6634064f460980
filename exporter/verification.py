"""The ONNX file against its source: the same seeded input through both, in processes of their own.

The children run one after the other, so that the memory needed is that of the larger and not the sum: `reference`
loads the source with its framework and keeps its outputs in a file; `runtime` runs the ONNX file, without TensorFlow,
and compares. After a mismatch `sensitivity` finds out whether the source agrees with itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from exporter import memory, wire
from exporter.comparison import comparable, compare, judge, make_inputs, perturbed
from exporter.errors import SourceError
from exporter.files import new_file, write_json
from exporter.records import Job, ModelGraph, TensorSpec, Verification
from exporter.verification_keys import table_keys
from exporter.verification_understudy import Understudy

Understudies = Mapping[str, Understudy]

# Half precision keeps 8 to 11 bits, and every framework sums in its own order.
HALF_PRECISION = {"float16": 2e-2, "bfloat16": 1e-1}
# Layers with quantised weights round their activations to 8 bits: where one lies between two steps, the last bit of a
# float32 decides by which of them, 1/127 of the largest activation, it counts.
QUANTISED, QUANTISED_RTOL = ("int8", "uint8"), 2e-2
QUANTISED_STEPS = 2
# With --dequantize nothing is rounded to 8 bits any more, where the source rounds in every layer. The second sample, of
# large numbers, is left out: beyond the range that was calibrated the source saturates.
DEQUANTISED_RTOL = 1e-1
# It makes products of 8 bits of what QuantizeLinear and DequantizeLinear enclose. On x86 processors without VNNI those
# saturate (onnxruntime.ai/docs/performance/model-optimizations/quantization.html), which is no fault of the file.
SATURATING = "QDQSelectorActionTransformer"
FEED_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
# With a dynamic batch two samples are run, so that a batch size that got baked in shows.
DYNAMIC_BATCH = 2
DYNAMIC_IMAGE_SIZE, DYNAMIC_LENGTH = 128, 16
# Importing TensorFlow with Keras, and what a run needs beside weights and activations.
REFERENCE_BASE_BYTES = 10**9
# Keras holds an archive's file and the model at once; ONNX Runtime a tensor and its packed form.
WEIGHT_COPIES, ACTIVATION_COPIES = 3, 8
# The parent ends the whole job at --max-memory; the children of this one stay below this part of what is left.
SHARE_OF_LIMIT = 0.9
SAMPLE_SECONDS = 0.05
ABOVE_LIMIT = None
# Those who are always needed; what else there is to do is rare.
UNDERSTUDIED = ("reference", "runtime")
NOBODY: Understudies = MappingProxyType({})
OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Failed to allocate memory")


@dataclass(frozen=True)
class Request:
    """What the children need: the job as it was carried out, the inputs with their final shapes, where the file is."""

    job: Job
    inputs: tuple[TensorSpec, ...]
    index_limit: int
    atol: float
    rtol: float
    onnx_path: str


def given_sizes(inputs: Sequence[TensorSpec], onnx_path: Path) -> tuple[TensorSpec, ...]:
    """The source's inputs with the sizes that an ONNX file has fixed for what they leave open.

    The file's inputs are found by name, or by position where names differ. Raises SourceError.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(onnx_path), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise SourceError("cannot be read", where=str(onnx_path), why=str(error)) from error
    weights = {proto.name for proto in graph.initializer}
    there = [value for value in graph.input if value.name not in weights]
    named = {value.name: value for value in there}
    if not {spec.name for spec in inputs} <= named.keys() and len(there) == len(inputs):
        named = {spec.name: value for spec, value in zip(inputs, there, strict=True)}
    return tuple(_with_sizes(spec, named[spec.name]) if spec.name in named else spec for spec in inputs)


def _with_sizes(spec: TensorSpec, value: Any) -> TensorSpec:
    dims = value.type.tensor_type.shape.dim
    if spec.shape is None or len(dims) != len(spec.shape):
        return spec
    sizes = zip(spec.shape, dims, strict=True)
    return replace(spec, shape=tuple(dim.dim_value or None if size is None else size for size, dim in sizes))


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
    specs = tuple(_concrete(spec, batch) for spec in inputs)
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
    request = Request(job, specs, _index_limit(graph), _atol(job, graph), _rtol(job, graph), str(onnx_path))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        write_json(Path(folder) / "request.json", asdict(request))
        found = _run_children(Path(folder), limit, understudies)
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


def _concrete(spec: TensorSpec, batch: int = DYNAMIC_BATCH) -> TensorSpec:
    """The input with a size for every dynamic dimension."""
    if spec.shape is None:
        return spec
    other = DYNAMIC_IMAGE_SIZE if len(spec.shape) >= 4 else DYNAMIC_LENGTH
    sizes = tuple(size if size is not None else batch if axis == 0 else other for axis, size in enumerate(spec.shape))
    return TensorSpec(spec.name, sizes, spec.dtype)


def _index_limit(graph: ModelGraph) -> int:
    """Whole-number inputs are taken for indices; they stay below the smallest table that the model has."""
    limits = []
    for layer in graph.layers:
        config = json.loads(layer.config)
        limits += [config[key] for key in ("input_dim", "num_tokens") if isinstance(config.get(key), int)]
    return min(limits, default=2)


def _atol(job: Job, graph: ModelGraph) -> float:
    """Where an output is quantised, or was just before, it may differ by some of the steps that it has."""
    ends = {spec.name for spec in graph.outputs}
    steps = [1.0 for spec in graph.outputs if spec.dtype in QUANTISED]
    for layer in graph.layers:
        if layer.class_name == "DEQUANTIZE" and ends & {spec.name for spec in layer.outputs or ()}:
            settings = json.loads(layer.config).get("quantization", {})
            steps += [each["scale"] for each in settings.values() if "scale" in each]
    return max([job.atol, *(QUANTISED_STEPS * step for step in steps)])


def _rtol(job: Job, graph: ModelGraph) -> float:
    dtypes = {output.dtype for layer in graph.layers for output in layer.outputs or ()} | {job.dtype}
    limits = [HALF_PRECISION[dtype] for dtype in dtypes if dtype in HALF_PRECISION]
    limits += [QUANTISED_RTOL for weight in graph.weights if weight.dtype in QUANTISED]
    limits += [DEQUANTISED_RTOL] if job.reading.dequantize else []
    return max([job.rtol, *limits])


def _run_children(folder: Path, limit_bytes: int | None, understudies: Understudies) -> Verification:
    """`sensitivity` only has to say something after a mismatch."""
    for role in ("reference", "runtime", "sensitivity"):
        status, log = _run_child(role, folder, limit_bytes, understudies.get(role))
        if role == "sensitivity" and status != 0:
            # Nothing speaks for the ONNX file then: the mismatch stands.
            break
        if status == ABOVE_LIMIT:
            return Verification("skipped", "it went above what --max-memory leaves for it")
        if status != 0:
            return _failed(role, status, log)
        result = folder / "result.json"
        found = wire.restore(Verification, json.loads(result.read_text(encoding="utf-8"))) if result.exists() else None
        if found and not (found.status == "mismatch" and found.outputs):
            break
    assert found is not None
    return found


def _run_child(
    role: str, folder: Path, limit_bytes: int | None, understudy: Understudy | None
) -> tuple[int | None, str]:
    """Exit status and what it printed. One that grows above the limit is ended here, before the parent ends it all."""
    import psutil

    child = _started(role, folder, understudy)
    process, status = psutil.Process(child.pid), None
    while limit_bytes is not None and (status := child.poll()) is None:
        with suppress(psutil.Error):
            if process.memory_info().rss > limit_bytes:
                child.kill()
                child.wait()
                return ABOVE_LIMIT, ""
        time.sleep(SAMPLE_SECONDS)
    status = child.wait()
    log = _log_of(role, folder)
    return status, log.read_text("utf-8", "replace") if log.exists() else ""


def _started(role: str, folder: Path, understudy: Understudy | None) -> Understudy | subprocess.Popen[bytes]:
    arguments, log = (role, str(folder)), _log_of(role, folder)
    if understudy is not None:
        understudy.start(arguments, log)
        return understudy
    command = [sys.executable, "-m", "exporter.verification", *arguments]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=descriptor)
    finally:
        os.close(descriptor)


def _log_of(role: str, folder: Path) -> Path:
    return folder / f"{role}.log"


def _failed(role: str, status: int, log: str) -> Verification:
    """A source that does not run leaves nothing to compare with; an ONNX file that does not run is wrong."""
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "it printed nothing")
    why = f"killed by signal {-status}, probably out of memory" if status < 0 else last[:500]
    if role == "reference":
        return Verification("skipped", f"the source could not be run for comparison: {why}")
    if status < 0 or any(word in last for word in OUT_OF_MEMORY):
        return Verification("skipped", f"ONNX Runtime could not be run: {why}")
    return Verification("mismatch", f"ONNX Runtime cannot run the file: {why}")


def run_reference(request: Request, folder: Path) -> None:
    from exporter.sources.reference import reference_outputs

    _save(folder / "reference.npz", reference_outputs(request.job, _inputs(request)))
    write_json(folder / "reference.json", {"peak_rss_bytes": memory.peak_rss_bytes()})


def run_runtime(request: Request, folder: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        request.onnx_path, options, providers=["CPUExecutionProvider"], disabled_optimizers=[SATURATING]
    )
    used = {value.name: value.type for value in session.get_inputs()}
    feeds = {
        name: array for name, array in zip(_names(request, list(used)), _inputs(request), strict=True) if name in used
    }
    # The file may take another float dtype than the source: bfloat16 is unknown to ONNX Runtime's Python API.
    feeds = {name: array.astype(FEED_DTYPES.get(used[name], array.dtype)) for name, array in feeds.items()}
    outputs = session.run(None, feeds)
    labels = [value.name for value in session.get_outputs()]
    batches = {spec.shape[0] for spec in request.inputs if spec.shape}
    samples = (batches.pop() or 1) if len(batches) == 1 else 1
    expected = _load(folder / "reference.npz")
    found = compare(labels, expected, outputs, request.atol, request.rtol, samples)
    _save(folder / "runtime.npz", outputs)
    peak = json.loads((folder / "reference.json").read_text(encoding="utf-8"))["peak_rss_bytes"]
    write_json(folder / "result.json", asdict(replace(found, peak_rss_bytes=max(peak, memory.peak_rss_bytes()))))


def _names(request: Request, used: Sequence[str]) -> list[str]:
    """Those of the inputs in the file: ours, or by position where another converter has named them."""
    names = [spec.name for spec in request.inputs]
    return list(used) if not set(used) <= set(names) and len(used) == len(names) else names


def run_sensitivity(request: Request, folder: Path) -> None:
    from exporter.sources.reference import reference_outputs

    moved = [comparable(output) for output in reference_outputs(request.job, perturbed(_inputs(request)))]
    before = wire.restore(Verification, json.loads((folder / "result.json").read_text(encoding="utf-8")))
    names = [row.output for row in before.outputs]
    expected, found = _load(folder / "reference.npz"), _load(folder / "runtime.npz")
    verdict = judge(names, expected, found, moved, request.atol, request.rtol)
    write_json(folder / "result.json", asdict(replace(verdict, peak_rss_bytes=before.peak_rss_bytes)))


def _inputs(request: Request) -> list[np.ndarray]:
    keys = table_keys(Path(request.onnx_path))
    return make_inputs(request.inputs, request.index_limit, request.job.seed, keys)


def _save(path: Path, arrays: Sequence[np.ndarray]) -> None:
    with new_file(path) as stream:
        np.savez(stream, *map(comparable, arrays))


def _load(path: Path) -> list[np.ndarray]:
    with np.load(path) as saved:
        return [saved[f"arr_{index}"] for index in range(len(saved.files))]


def main(arguments: Sequence[str]) -> None:
    role, folder = arguments[0], Path(arguments[1])
    data: dict[str, Any] = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    request = wire.restore(Request, data)
    {"reference": run_reference, "runtime": run_runtime, "sensitivity": run_sensitivity}[role](request, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
