"""What a network consists of: nodes and edges with plain attributes, from the rows of the catalogue.

Every attribute is a text, a whole number, a number or a flag, because network files hold nothing else: shapes and other
lists are JSON text (`[null, 56, 56, 64]`), and what is unknown is left out. Rows come in and elements go out one at a
time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from exporter.schema import EDGES, LAYERS, MODELS, NODES
from exporter.stored.tables import Row

Attributes = dict[str, str | int | float | bool]
# Key and attributes; source, target, number and attributes. The number is that of the edge in the whole network.
Vertex = tuple[str, Attributes]
Arc = tuple[str, str, int, Attributes]

# Columns that are the keys themselves, are said by the edges, or are too large for a label.
LEFT_OUT = {"model", "layer", "node", "level", "config", "onnx_nodes", "connected_to", "source", "target"}
GRAPH_COLUMNS = [
    *("model", "name", "source", "kind", "weights", "params", "params_trainable", "weight_bytes"),
    *("cost_batch_size", "cost_dimension", "macs", "flops", "peak_activation_bytes", "export_model_version"),
]
LISTS = (list, tuple)
KINDS = {pa.int64(): "long", pa.float64(): "double", pa.bool_(): "boolean"}

encode = json.JSONEncoder(ensure_ascii=False).encode


def kinds(schema: pa.Schema, names: Iterable[str]) -> dict[str, str]:
    """The columns' types as GraphML and GEXF call them: `long`, `double`, `boolean`, and `string` for all else."""
    return {name: KINDS.get(schema.field(name).type, "string") for name in names}


def _columns(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if name not in LEFT_OUT]


@dataclass(frozen=True)
class Level:
    """What a network of layers or of ONNX nodes has: the types of its attributes by name, and which is its label."""

    key: str
    label: str
    node_kinds: Mapping[str, str]
    edge_kinds: Mapping[str, str]


GRAPH_KINDS = {"level": "string"} | kinds(MODELS, GRAPH_COLUMNS)
LEVELS = {
    "layers": Level(
        "layer", "name", {"label": "string"} | kinds(LAYERS, _columns(LAYERS)), kinds(EDGES, _columns(EDGES))
    ),
    "nodes": Level(
        "node",
        "op_type",
        {"label": "string"} | kinds(NODES, _columns(NODES)) | {"layer": "string"},
        {"tensor": "string", "source_output": "long", "target_input": "long", "shape": "string", "dtype": "string"},
    ),
}


def graph_attributes(about: Row, level: str) -> Attributes:
    """`about` is the row of models.parquet."""
    return {"level": level} | _plain(about, GRAPH_COLUMNS)


def vertices(rows: Iterable[Row], level: str) -> Iterator[Vertex]:
    """Rows of layers.parquet, or of nodes.parquet."""
    chosen = LEVELS[level]
    for row in rows:
        yield row[chosen.key], _plain(row | {"label": row[chosen.label]}, chosen.node_kinds)


def layer_arcs(rows: Iterable[Row]) -> Iterator[Arc]:
    """Rows of edges.parquet."""
    for number, row in enumerate(rows):
        yield row["source"], row["target"], number, _plain(row, LEVELS["layers"].edge_kinds)


def node_arcs(rows: Callable[[], Iterable[Row]]) -> Iterator[Arc]:
    """Rows of nodes.parquet, twice: a tensor joins the node that makes it with each node that takes it.

    Tensors that no node makes, the model's inputs and its weights, are no edges; nodes list them in `inputs`.
    """
    makers = {
        tensor: (row["node"], place, row["output_shapes"][place], row["output_dtypes"][place])
        for row in rows()
        for place, tensor in enumerate(row["outputs"])
        if tensor
    }
    number = 0
    for row in rows():
        for target_input, tensor in enumerate(row["inputs"]):
            if tensor in makers:
                source, source_output, shape, dtype = makers[tensor]
                found = {"tensor": tensor, "source_output": source_output, "target_input": target_input}
                kept = _plain(found | {"shape": shape, "dtype": dtype}, LEVELS["nodes"].edge_kinds)
                yield source, row["node"], number, kept
                number += 1


def _plain(row: Row, names: Iterable[str]) -> Attributes:
    """Lists, of any depth, as JSON text; the rest as it is."""
    found = {}
    for name in names:
        value = row.get(name)
        if value is not None:
            found[name] = encode(value) if isinstance(value, LISTS) else value
    return found
