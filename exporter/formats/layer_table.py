"""The catalogue as Parquet: one file for each table of `exporter.schema`.

Rows are in the order of `ModelGraph` and are written as a stream of record batches; the same material gives the same
bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.files import new_file
from exporter.lazy import TRANSFORMS
from exporter.records import Cost, Edge, Material, OnnxNode, StoredTensor, TensorSpec, TensorStatistics
from exporter.schema import EDGES, LAYERS, NODES, TENSORS

# Rows of one row group, and of one record batch: with 2 KB of config in each layer, 16 MB at a time.
ROW_GROUP_ROWS = 8192


Row = dict[str, Any]
UNKNOWN = Cost(None, None, None, None)


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """Write what describes the model into `folder`; no `nodes` when no ONNX graph was made. Raises OutputError."""
    for table, (schema, rows) in TABLES.items():
        if table != "nodes" or material.nodes is not None:
            write_table(folder / f"{table}.parquet", schema, rows(material))
    return ()


def write_table(path: Path, schema: pa.Schema, rows: Iterable[Row]) -> None:
    """One Parquet file from a stream of rows, complete or absent.

    ParquetWriter writes a footer even when its block raises; here that goes to the temporary file that is then removed.
    """
    with new_file(path) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for batch in _batches(rows, schema):
            writer.write_batch(batch, row_group_size=ROW_GROUP_ROWS)


def _batches(rows: Iterable[Row], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    stream = iter(rows)
    while (batch := pa.RecordBatch.from_pylist(list(islice(stream, ROW_GROUP_ROWS)), schema=schema)).num_rows:
        yield batch


def _layer_rows(material: Material) -> Iterator[Row]:
    nodes = _node_names(material)
    costs = material.costs.layers if material.costs else {}
    for layer in material.graph.layers:
        cost = costs.get(layer.namespace, UNKNOWN)
        yield {
            "model": material.job.name,
            "index": layer.index,
            "layer": layer.namespace,
            "name": layer.name,
            "class": layer.class_name,
            "level": material.graph.level,
            "depth": layer.depth,
            "parent": layer.parent,
            "trainable": layer.trainable,
            "input_shapes": _shapes(layer.inputs),
            "output_shapes": _shapes(layer.outputs),
            "input_dtypes": _dtypes(layer.inputs),
            "output_dtypes": _dtypes(layer.outputs),
            "params": layer.params,
            "params_trainable": layer.params_trainable,
            "params_total": layer.params_total,
            "weight_bytes": layer.weight_bytes,
            "calls": layer.calls,
            "connected_to": layer.connected_to,
            **_cost(cost),
            "arithmetic_intensity": cost.arithmetic_intensity,
            "config": layer.config,
            "onnx_nodes": None if nodes is None else nodes.get(layer.namespace, []),
        }


def _node_names(material: Material) -> dict[str, list[str]] | None:
    """The names of the ONNX nodes of each layer, by its namespace; None when there is no ONNX graph."""
    if material.nodes is None:
        return None
    names: dict[str, list[str]] = {}
    for node in material.nodes:
        if node.layer is not None:
            names.setdefault(node.layer, []).append(node.name)
    return names


def _shapes(specs: tuple[TensorSpec, ...] | None) -> list[Any] | None:
    return None if specs is None else [spec.shape for spec in specs]


def _dtypes(specs: tuple[TensorSpec, ...] | None) -> list[str | None] | None:
    return None if specs is None else [spec.dtype for spec in specs]


def _tensor_rows(material: Material) -> Iterator[Row]:
    places: dict[str, list[StoredTensor]] = {}
    for stored in material.stored or ():
        places.setdefault(stored.weight, []).append(stored)
    for weight in material.graph.weights:
        held_by = places.get(weight.name, [])
        # Of several places, the row shows the one that changes the weight least.
        best = min(held_by, key=lambda stored: TRANSFORMS.index(stored.transform), default=None)
        yield {
            "model": material.job.name,
            "layer": weight.layer,
            "tensor": weight.name,
            "shape": weight.shape,
            "dtype": weight.dtype,
            "nbytes": weight.nbytes,
            "trainable": weight.trainable,
            "initializer": best and best.initializer,
            "transform": best and best.transform,
            "stored_dtype": best and best.dtype,
            "data_file": best and best.data_file,
            "data_offset": best and best.data_offset,
            "data_nbytes": best and best.data_nbytes,
            "initializers": None if material.stored is None else list(dict.fromkeys(at.initializer for at in held_by)),
            **vars(material.statistics.get(weight.name, TensorStatistics())),
        }


def _edge_rows(material: Material) -> Iterator[Row]:
    return ({"model": material.job.name, **_fields(edge)} for edge in material.graph.edges)


def _node_rows(material: Material) -> Iterator[Row]:
    for node in material.nodes or ():
        yield {"model": material.job.name, "node": node.name, **_fields(node), **_cost(node.cost)}


def _fields(record: Edge | OnnxNode) -> Row:
    return {name: getattr(record, name) for name in record.__slots__}


def _cost(cost: Cost | None) -> Row:
    if cost is None:
        return {}
    return {
        "macs": cost.macs,
        "flops": cost.flops,
        "activation_bytes": cost.activation_bytes,
        "cost_method": cost.method,
    }


TABLES: dict[str, tuple[pa.Schema, Callable[[Material], Iterator[Row]]]] = {
    "layers": (LAYERS, _layer_rows),
    "tensors": (TENSORS, _tensor_rows),
    "edges": (EDGES, _edge_rows),
    "nodes": (NODES, _node_rows),
}
