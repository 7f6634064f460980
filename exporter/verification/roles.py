"""What the processes of a comparison do: `python -m exporter.verification.roles ROLE FOLDER`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter import memory, wire
from exporter.files import new_file, write_json
from exporter.records import TensorSpec, Verification
from exporter.verification.attempts import first_that_runs, sentence
from exporter.verification.children import Request
from exporter.verification.comparison import comparable, compare, judge
from exporter.verification.sample_inputs import make_inputs, perturbed
from exporter.verification.table_keys import table_keys

# It makes products of 8 bits of what QuantizeLinear and DequantizeLinear enclose. On x86 processors without VNNI those
# saturate (onnxruntime.ai/docs/performance/model-optimizations/quantization.html), which is no fault of the file.
SATURATING = "QDQSelectorActionTransformer"
FEED_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def run_reference(request: Request, folder: Path) -> None:
    """On the first of the request's choices that it takes; where there is none, that is the verdict."""
    from exporter.sources.reference import UNFIT, reference_outputs

    try:
        chosen, outputs = first_that_runs(
            request.choices, lambda inputs: reference_outputs(request.job, _arrays(request, inputs)), UNFIT
        )
    except UNFIT as error:
        write_json(folder / "result.json", asdict(Verification("skipped", sentence(error, request.choices))))
        return
    _save(folder / "reference.npz", outputs)
    write_json(folder / "reference.json", {"peak_rss_bytes": memory.peak_rss_bytes(), "chosen": chosen})


def run_runtime(request: Request, folder: Path) -> None:
    import onnxruntime

    reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    inputs = request.choices[reference["chosen"]]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        request.onnx_path, options, providers=["CPUExecutionProvider"], disabled_optimizers=[SATURATING]
    )
    used = {value.name: value.type for value in session.get_inputs()}
    arrays = zip(_names(request, list(used)), _arrays(request, inputs), strict=True)
    feeds = {name: array for name, array in arrays if name in used}
    # The file may take another float dtype than the source: bfloat16 is unknown to ONNX Runtime's Python API.
    feeds = {name: array.astype(FEED_DTYPES.get(used[name], array.dtype)) for name, array in feeds.items()}
    outputs = session.run(None, feeds)
    labels = [value.name for value in session.get_outputs()]
    batches = {spec.shape[0] for spec in inputs if spec.shape}
    samples = (batches.pop() or 1) if len(batches) == 1 else 1
    expected = _load(folder / "reference.npz")
    found = compare(labels, expected, outputs, request.atol, request.rtol, samples)
    _save(folder / "runtime.npz", outputs)
    peak = max(reference["peak_rss_bytes"], memory.peak_rss_bytes())
    write_json(folder / "result.json", asdict(replace(found, peak_rss_bytes=peak)))


def _names(request: Request, used: Sequence[str]) -> list[str]:
    """Those of the inputs in the file: ours, or by position where another converter has named them."""
    names = [spec.name for spec in request.inputs]
    return list(used) if not set(used) <= set(names) and len(used) == len(names) else names


def run_sensitivity(request: Request, folder: Path) -> None:
    from exporter.sources.reference import reference_outputs

    inputs = request.choices[json.loads((folder / "reference.json").read_text(encoding="utf-8"))["chosen"]]
    moved = [comparable(output) for output in reference_outputs(request.job, perturbed(_arrays(request, inputs)))]
    before = wire.restore(Verification, json.loads((folder / "result.json").read_text(encoding="utf-8")))
    names = [row.output for row in before.outputs]
    expected, found = _load(folder / "reference.npz"), _load(folder / "runtime.npz")
    verdict = judge(names, expected, found, moved, request.atol, request.rtol)
    write_json(folder / "result.json", asdict(replace(verdict, peak_rss_bytes=before.peak_rss_bytes)))


def _arrays(request: Request, inputs: Sequence[TensorSpec]) -> list[np.ndarray]:
    keys = dict.fromkeys(request.index_inputs, range(request.index_limit)) | table_keys(Path(request.onnx_path))
    return make_inputs(inputs, request.index_limit, request.job.seed, keys)


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
