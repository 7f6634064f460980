"""Two models as one graph: the layers of the second, those that only the first has, and the connections of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from exporter.diff.differences import ADDED, REMOVED, REWIRED, SAME, Difference, LayerPair
from exporter.diff.tables import Row, Tables
from exporter.records import Edge, Layer, ModelGraph, TensorSpec

EdgeKey = tuple[str, int, int, str, int, int]


@dataclass
class Union:
    """`pairs` has the comparison of each layer of `graph`, `edges` which connections only one model has."""

    graph: ModelGraph
    pairs: dict[str, LayerPair]
    edges: dict[EdgeKey, str] = field(default_factory=dict)

    def status(self, layer: Layer) -> str:
        """As the picture shows it: connections are drawn, so that they need no status."""
        status = self.pairs[layer.namespace].status
        return SAME if status == REWIRED else status


def united(difference: Difference) -> Union:
    images = {pair.old: pair.new for pair in difference.layers if pair.old and pair.new}

    def image(old: str) -> str:
        return images.get(old) or f"A: {old}"

    after, before = difference.after, difference.before
    layers = [_layer(after, row, row["layer"], row["parent"]) for row in after.layers]
    for row in before.layers:
        if row["layer"] not in images:
            layers.append(_layer(before, row, image(row["layer"]), row["parent"] and image(row["parent"])))
    new = {_edge_key(edge): edge for edge in (_edge(row, row["source"], row["target"]) for row in after.edges)}
    old = {
        _edge_key(edge): edge
        for edge in (_edge(row, image(row["source"]), image(row["target"])) for row in before.edges)
    }
    only = dict.fromkeys(new.keys() - old.keys(), ADDED) | dict.fromkeys(old.keys() - new.keys(), REMOVED)
    name = f"{before.name} → {after.name}"
    graph = ModelGraph(name, (), (), tuple(layers), tuple((new | old).values()), ())
    pairs = {pair.new or image(pair.old or ""): pair for pair in difference.layers}
    return Union(graph, pairs, only)


def status_of(union: Union, edge: Edge) -> str:
    return union.edges.get(_edge_key(edge), SAME)


def _edge_key(edge: Edge) -> EdgeKey:
    return edge.source, edge.source_call, edge.source_output, edge.target, edge.target_call, edge.target_input


def _edge(row: Row, source: str, target: str) -> Edge:
    shape = None if row["shape"] is None else tuple(row["shape"])
    ends = source, row["source_call"], row["source_output"], target, row["target_call"], row["target_input"]
    return Edge(*ends, shape, row["dtype"])


def _layer(tables: Tables, row: Row, key: str, parent: str | None) -> Layer:
    return Layer(
        index=row["index"],
        name=row["name"],
        class_name=row["class"],
        namespace=key,
        depth=row["depth"],
        parent=parent,
        trainable=row["trainable"],
        inputs=_specs(row["input_shapes"], row["input_dtypes"]),
        outputs=_specs(row["output_shapes"], row["output_dtypes"]),
        params=row["params"],
        params_trainable=row["params_trainable"],
        params_total=row["params_total"],
        weight_bytes=row["weight_bytes"],
        calls=row["calls"],
        connected_to=tuple(row["connected_to"]),
        config=row["config"],
    )


def _specs(shapes: Any, dtypes: Any) -> tuple[TensorSpec, ...] | None:
    if shapes is None:
        return None
    dtypes = dtypes or [None] * len(shapes)
    return tuple(
        TensorSpec("", None if shape is None else tuple(shape), dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    )
