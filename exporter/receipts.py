"""The receipt of an export: `manifest.json`, and what the tables repeat of it."""

from __future__ import annotations

import dataclasses
import os
import platform
from typing import Any

from exporter import __version__, memory
from exporter.records import Job, Material, ModelGraph, Outcome
from exporter.sources.digest import version

MANIFEST_VERSION = 1
LIBRARIES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy", "pyarrow")


def public_name(job: Job) -> str:
    """The source without the folders that lead to it: artifacts hold no paths of this machine, and no secrets."""
    if job.origin:
        return job.origin.name
    return job.source if job.kind == "application" else os.path.basename(os.path.abspath(job.source))


def manifest(
    job: Job, graph: ModelGraph, outcome: Outcome, material: Material, import_rss_bytes: int
) -> dict[str, Any]:
    """The receipt: what was asked for, what was made, from what, with what, and whether it was verified."""
    hidden = ("output_path", "fingerprint", "source_digest", "name", "kind", "origin", "is_alone", "unless_done")
    arguments = {key: value for key, value in dataclasses.asdict(job).items() if key not in hidden}
    largest = max((weight.nbytes for weight in graph.weights), default=0)
    return {
        "manifest_version": MANIFEST_VERSION,
        "tool": {"name": "export-model", "version": __version__},
        "model": job.name,
        "kind": job.kind,
        "source": public_name(job),
        "source_digest": job.source_digest,
        "fingerprint": job.fingerprint,
        "arguments": arguments
        | {"source": public_name(job), "weights": os.path.basename(job.weights), "reading": _reading(job)},
        "versions": {"python": platform.python_version(), **versions()},
        "weights": outcome.weights,
        "opset": job.opset if "onnx" in job.formats else None,
        "layers": len(graph.layers),
        "params": sum(layer.params for layer in graph.layers),
        "weight_bytes": sum(weight.nbytes for weight in graph.weights),
        "onnx_nodes": _coverage(material),
        "inputs": [dataclasses.asdict(spec) for spec in graph.inputs],
        "outputs": [dataclasses.asdict(spec) for spec in graph.outputs],
        "seconds": outcome.seconds,
        "stages": [dataclasses.asdict(stage) for stage in outcome.stages],
        "memory": {
            "peak_rss_bytes": outcome.peak_rss_bytes,
            "import_rss_bytes": import_rss_bytes,
            "largest_tensor_bytes": largest,
            "bound_bytes": memory.conversion_bound_bytes(import_rss_bytes, largest),
        },
        "verification": dataclasses.asdict(outcome.verification) if outcome.verification else None,
        "notes": list(outcome.notes),
        "files": [dataclasses.asdict(file) for file in outcome.files],
    }


def _reading(job: Job) -> dict[str, Any]:
    """Without the folders of the user's own code."""
    found = dataclasses.asdict(job.reading)
    return found | {"custom_objects": [os.path.basename(place) for place in job.reading.custom_objects]}


def _coverage(material: Material) -> dict[str, int] | None:
    if material.nodes is None:
        return None
    with_layer = sum(node.layer is not None for node in material.nodes)
    return {"total": len(material.nodes), "with_layer": with_layer}


def versions() -> dict[str, str | None]:
    """Of the libraries that an export depends on, installed or not; they need not have been imported."""
    return {name: version(name) for name in LIBRARIES}
