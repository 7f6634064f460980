"""The catalogue as Parquet: `layers`, `tensors`, `edges` and `nodes`, one file and one fixed schema each.

Every field carries its description and unit as metadata. NULL means unknown, 0 means zero. Rows are in the order of
`ModelGraph` and are written as a stream of record batches; the same material gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.files import new_file
from exporter.lazy import FOLDED, LAYOUT, NONE
from exporter.records import Material, StoredTensor, TensorSpec

SCHEMA_VERSION = "1"
# Rows of one row group, and of one record batch: with 2 KB of config in each layer, 16 MB at a time.
ROW_GROUP_ROWS = 8192


def _list_of(kind: pa.DataType) -> pa.DataType:
    """A list whose elements may be NULL, with the name that the Parquet specification gives them."""
    return pa.list_(pa.field("element", kind))


TEXT, INTEGER, FLAG = pa.string(), pa.int64(), pa.bool_()
TEXTS, SHAPE, SHAPES = _list_of(TEXT), _list_of(INTEGER), _list_of(_list_of(INTEGER))

# Where a weight is stored more than once, the row shows the place that changes it least.
TRANSFORMS = (NONE, LAYOUT, FOLDED)

Row = dict[str, Any]


def _known(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"description": description})


def _unknowable(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, nullable=True, metadata={"description": description})


def _schema(table: str, fields: Iterable[pa.Field]) -> pa.Schema:
    model = _known("model", TEXT, "name of the model")
    metadata = {"export_model.schema_version": SCHEMA_VERSION, "export_model.table": table}
    return pa.schema([model, *fields], metadata=metadata)


LAYERS = _schema(
    "layers",
    [
        _known("index", INTEGER, "position in the model's own order, depth first, from 0"),
        _known("name", TEXT, "the layer's name, unique among its siblings"),
        _known("class", TEXT, "the layer's Python class"),
        _known(
            "namespace", TEXT, "names from the outermost model down to the layer, joined with /; the key of the table"
        ),
        _known("depth", INTEGER, "number of enclosing layers below the model"),
        _unknowable("parent", TEXT, "namespace of the enclosing layer; NULL at depth 0"),
        _known("trainable", FLAG, "whether the layer is set to be trainable"),
        _unknowable("input_shapes", SHAPES, "one shape for each input of the first call; a NULL dimension is dynamic"),
        _unknowable(
            "output_shapes", SHAPES, "one shape for each output of the first call; a NULL dimension is dynamic"
        ),
        _unknowable("input_dtypes", TEXTS, "NumPy dtype of each input of the first call"),
        _unknowable("output_dtypes", TEXTS, "NumPy dtype of each output of the first call"),
        _known("params", INTEGER, "elements of the weights first held here; the sum over all rows is count_params()"),
        _known("params_trainable", INTEGER, "the part of params that is trainable"),
        _known("params_total", INTEGER, "elements of the weights held here and in the layers inside"),
        _known("weight_bytes", INTEGER, "bytes of the weights that params counts"),
        _known("calls", INTEGER, "calls in the graph of the enclosing model; 0 inside layers that have no graph"),
        _known("connected_to", TEXTS, "namespaces of the layers whose outputs this one takes"),
        _known("config", TEXT, "the layer's settings as JSON; {} when it cannot say"),
        _unknowable(
            "onnx_nodes", TEXTS, "names of the ONNX nodes made of this layer; NULL when there is no ONNX graph"
        ),
    ],
)
TENSORS = _schema(
    "tensors",
    [
        _known("layer", TEXT, "namespace of the layer that holds the weight; key into layers"),
        _known("name", TEXT, "name of the weight, unique in the model"),
        _known("shape", SHAPE, "shape in the framework's axis order"),
        _known("dtype", TEXT, "NumPy dtype"),
        _known("nbytes", INTEGER, "bytes of the weight in the source"),
        _known("trainable", FLAG, "whether training changes the weight"),
        _unknowable("initializer", TEXT, "the ONNX initializer that holds it, the least changed one; NULL when none"),
        _unknowable(
            "transform", TEXT, "none (same bytes), layout (transposed or reshaped) or folded (combined with others)"
        ),
        _unknowable("data_file", TEXT, "file with the initializer's bytes; NULL when they are inside the .onnx file"),
        _unknowable("data_offset", INTEGER, "bytes from the start of data_file"),
        _unknowable("data_nbytes", INTEGER, "bytes of the initializer"),
        _unknowable("initializers", TEXTS, "all ONNX initializers that it went into; NULL when there is no ONNX graph"),
    ],
)
EDGES = _schema(
    "edges",
    [
        _known("source", TEXT, "namespace of the layer that makes the tensor; key into layers"),
        _known("source_call", INTEGER, "which call of the source, from 0"),
        _known("source_output", INTEGER, "which output of that call, from 0"),
        _known("target", TEXT, "namespace of the layer that takes the tensor; key into layers"),
        _known("target_call", INTEGER, "which call of the target, from 0"),
        _known("target_input", INTEGER, "which input of that call, from 0"),
        _unknowable("shape", SHAPE, "shape of the tensor; a NULL dimension is dynamic"),
        _unknowable("dtype", TEXT, "NumPy dtype of the tensor"),
    ],
)
NODES = _schema(
    "nodes",
    [
        _known("index", INTEGER, "position in the ONNX graph, from 0"),
        _known("name", TEXT, "name of the node"),
        _known("op_type", TEXT, "ONNX operator"),
        _known("domain", TEXT, "operator set; empty for ONNX's own"),
        _known("namespace", TEXT, "where viewers show the node, names joined with /"),
        _unknowable("layer", TEXT, "namespace of the layer that it was made of; key into layers"),
        _known("match_kind", TEXT, "how layer was found: recorded, scope, weight, neighbour or none"),
        _known("inputs", TEXTS, "names of its input tensors; empty text for one left out"),
        _known("outputs", TEXTS, "names of its output tensors"),
        _known("output_shapes", SHAPES, "one shape for each output, NULL when unknown; a NULL dimension is dynamic"),
        _known("output_dtypes", TEXTS, "NumPy dtype of each output, NULL when unknown"),
    ],
)


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """Write the tables into `folder`; no `nodes.parquet` when no ONNX graph was made. Raises OutputError."""
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
    for layer in material.graph.layers:
        yield {
            "model": material.graph.name,
            "index": layer.index,
            "name": layer.name,
            "class": layer.class_name,
            "namespace": layer.namespace,
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
        best = min(held_by, key=lambda stored: TRANSFORMS.index(stored.transform), default=None)
        yield {
            "model": material.graph.name,
            "layer": weight.layer,
            "name": weight.name,
            "shape": weight.shape,
            "dtype": weight.dtype,
            "nbytes": weight.nbytes,
            "trainable": weight.trainable,
            "initializer": best and best.initializer,
            "transform": best and best.transform,
            "data_file": best and best.data_file,
            "data_offset": best and best.data_offset,
            "data_nbytes": best and best.data_nbytes,
            "initializers": None if material.stored is None else list(dict.fromkeys(at.initializer for at in held_by)),
        }


def _edge_rows(material: Material) -> Iterator[Row]:
    return ({"model": material.graph.name, **vars(edge)} for edge in material.graph.edges)


def _node_rows(material: Material) -> Iterator[Row]:
    return ({"model": material.graph.name, **vars(node)} for node in material.nodes or ())


TABLES: dict[str, tuple[pa.Schema, Callable[[Material], Iterator[Row]]]] = {
    "layers": (LAYERS, _layer_rows),
    "tensors": (TENSORS, _tensor_rows),
    "edges": (EDGES, _edge_rows),
    "nodes": (NODES, _node_rows),
}
