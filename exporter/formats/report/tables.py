"""The page's data: tables as chunks of columns, each chunk deflated and in base64.

Base64 has no `<`, so that no name in a model can end the element that holds it, whatever it says.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from exporter.formats.node_style import kind, label, settings, shape_text, shortened, tensors_text
from exporter.formats.report.outline import outline
from exporter.records import Cost, Edge, Layer, Material, TensorStatistics, Weight

CHUNK_ROWS = 8192
LONGEST_SETTINGS = 300
UNKNOWN = Cost(None, None, None, None)
Row = dict[str, Any]


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def chunks(rows: Iterable[Row]) -> Iterator[str]:
    """JSON objects with a list for each column, packed; at most `CHUNK_ROWS` rows are in memory."""
    stream = iter(rows)
    while part := list(islice(stream, CHUNK_ROWS)):
        columns = {key: [row[key] for row in part] for key in part[0]}
        yield packed(json.dumps(columns, separators=(",", ":"), allow_nan=False).encode("ascii"))


class Tables:
    """The rows of each table, which refer to layers by their position in the model's own order."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.place = {layer.namespace: place for place, layer in enumerate(material.graph.layers)}

    def all(self) -> Iterator[tuple[str, Iterable[Row]]]:
        makers: dict[str, Callable[[], Iterator[Row]]] = {
            "layers": self.layers,
            "edges": self.edges,
            "items": self.items,
            "weights": self.weights,
        }
        for name, make in makers.items():
            yield name, make()

    def layers(self) -> Iterator[Row]:
        costs = self.material.costs
        nodes = self._nodes_of_layers()
        for layer in self.material.graph.layers:
            cost = costs.layers.get(layer.namespace, UNKNOWN) if costs else UNKNOWN
            yield {
                "name": layer.name,
                "key": layer.namespace,
                "parent": -1 if layer.parent is None else self.place.get(layer.parent, -1),
                "class": layer.class_name,
                "kind": kind(layer),
                "label": label(layer),
                "trainable": int(layer.trainable),
                "calls": layer.calls,
                "inputs": tensors_text(layer, "inputs"),
                "outputs": tensors_text(layer, "outputs"),
                "params": layer.params,
                "params_trainable": layer.params_trainable,
                "params_total": layer.params_total,
                "weight_bytes": layer.weight_bytes,
                "macs": cost.macs,
                "flops": cost.flops,
                "activation_bytes": cost.activation_bytes,
                "live_bytes": costs.live_activation_bytes.get(layer.namespace) if costs else None,
                "settings": settings_text(layer),
                "nodes": None if nodes is None else nodes.get(layer.namespace, 0),
            }

    def _nodes_of_layers(self) -> dict[str | None, int] | None:
        if self.material.nodes is None:
            return None
        counts: dict[str | None, int] = {}
        for node in self.material.nodes:
            counts[node.layer] = counts.get(node.layer, 0) + 1
        return counts

    def edges(self) -> Iterator[Row]:
        for edge in self.material.graph.edges:
            if edge.source in self.place and edge.target in self.place:
                yield self._edge(edge)

    def _edge(self, edge: Edge) -> Row:
        return {
            "source": self.place[edge.source],
            "target": self.place[edge.target],
            "tensor": f"{shape_text([edge.shape])} {edge.dtype or '?'}",
        }

    def items(self) -> Iterator[Row]:
        for item in outline(self.material.graph):
            yield {
                "parent": item.parent,
                "block": int(item.is_block),
                "title": item.title,
                "times": item.times,
                "rows": [[self.place[layer.namespace] for layer in row] for row in item.rows],
            }

    def weights(self) -> Iterator[Row]:
        statistics = self.material.statistics
        for weight in self.material.graph.weights:
            yield self._weight(weight) | (statistic_columns(statistics, weight.name) if statistics else {})

    def _weight(self, weight: Weight) -> Row:
        return {
            "name": weight.name,
            "layer": self.place.get(weight.layer, -1),
            "shape": "×".join(map(str, weight.shape)) or "scalar",
            "dtype": weight.dtype,
            "elements": math.prod(weight.shape),
            "nbytes": weight.nbytes,
            "trainable": int(weight.trainable),
        }


def statistic_columns(statistics: Mapping[str, TensorStatistics], name: str) -> Row:
    found = statistics.get(name, TensorStatistics())
    edges = found.histogram_edges or (None, None)
    numbers = {key: number(getattr(found, key)) for key in ("min", "max", "mean", "std", "l2_norm")}
    counts = {key: getattr(found, key) for key in ("zeros", "near_zeros", "nans", "infs", "dead_filters", "distinct")}
    return numbers | counts | {"low": number(edges[0]), "high": number(edges[-1]), "counts": found.histogram_counts}


def number(value: float | None) -> float | None:
    """JSON has no infinity, and nothing can be drawn of it; seven digits are more than anybody reads."""
    return float(f"{value:.7g}") if value is not None and math.isfinite(value) else None


def settings_text(layer: Layer) -> str:
    """The settings that are one value each, `name` and what is shown elsewhere left out."""
    found = settings(layer)
    values = {key: found[key] for key in found if key not in ("name", "trainable") and plain(found[key])}
    return shortened(", ".join(f"{key}={value}" for key, value in values.items()), LONGEST_SETTINGS)


def plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str | int | float) for item in value)
    return isinstance(value, str | int | float)
