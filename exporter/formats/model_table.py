"""`models.parquet`: one row that says what an export is, written when all else is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter import __version__
from exporter.costs.model_costs import job_costs
from exporter.formats.layer_table import Row, write_table
from exporter.records import Material, Weight
from exporter.schema import MODELS

FILE = "models.parquet"


def write(material: Material, folder: Path) -> None:
    """Raises OutputError."""
    write_table(folder / FILE, MODELS, rows(material))


def rows(material: Material) -> Iterator[Row]:
    graph, nodes, verification = material.graph, material.nodes, material.verification
    costs = material.costs or job_costs(material.job, graph, nodes)
    tools = ("tf2onnx", "onnx") if nodes is not None else ()
    yield {
        "model": material.job.name,
        "name": graph.name,
        "source": material.source,
        "kind": material.job.kind,
        "source_digest": material.job.source_digest,
        "weights": material.weights,
        "level": graph.level,
        "opset": None if nodes is None else material.job.opset,
        "layers": len(graph.layers),
        "tensors": len(graph.weights),
        "edges": len(graph.edges),
        "nodes": None if nodes is None else len(nodes),
        "nodes_with_layer": None if nodes is None else sum(node.layer is not None for node in nodes),
        "params": sum(layer.params for layer in graph.layers),
        "params_trainable": sum(layer.params_trainable for layer in graph.layers),
        "weight_bytes": sum(weight.nbytes for weight in graph.weights),
        "weights_by_dtype": _by_dtype(graph.weights),
        "cost_batch_size": costs.batch_size,
        "cost_dimension": costs.dimension,
        "layers_without_cost": costs.layers_without_cost,
        "macs": costs.macs,
        "flops": costs.flops,
        "peak_activation_bytes": costs.peak_activation_bytes,
        "verification": verification.status if verification else "none",
        "verification_reason": (verification and verification.reason) or None,
        "max_abs_difference": verification and max((output.max_abs for output in verification.outputs), default=None),
        "export_model_version": __version__,
        **{f"{library}_version": material.versions.get(library) for library in ("tensorflow", "keras", *tools)},
    }


def _by_dtype(weights: Sequence[Weight]) -> list[Row]:
    counted: dict[str, Row] = {}
    for weight in weights:
        row = counted.setdefault(weight.dtype, {"dtype": weight.dtype, "params": 0, "nbytes": 0})
        row["params"] += math.prod(weight.shape)
        row["nbytes"] += weight.nbytes
    return [counted[dtype] for dtype in sorted(counted)]
