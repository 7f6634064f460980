"""A model as the tables of its export describe it: the same records that its source gave, without the source.

What no table has is unknown here too: names of activations, and the model's inputs and outputs where there is no
receipt.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.files import read_manifest
from exporter.records import Cost, Edge, Layer, LayerCosts, ModelGraph, Shape, TensorSpec, Weight
from exporter.schema import LAYERS
from exporter.stored.tables import Row, rows

LAYER_COLUMNS = {column.name for column in LAYERS} - {"model", "onnx_nodes"}
# A nested model's configuration can be megabytes of JSON; its layers have rows of their own.
LONGEST_CONFIG = 20_000


@dataclass(frozen=True)
class StoredModel:
    """`about` is the row of models.parquet."""

    graph: ModelGraph
    costs: LayerCosts
    about: Row


def read_model(folder: Path, *, settings: Collection[str] | None = None, weights: bool = True) -> StoredModel:
    """The model of an export with the catalogue (`--to parquet`). Raises SourceError.

    With `settings`, each layer's configuration keeps those alone: that is what makes 100,000 layers fit into little
    memory. Without `weights` the graph has none.
    """
    about = next(rows(folder, "models"), None) or {}
    pool = Pool()
    layers: list[Layer] = []
    costs: dict[str, Cost] = {}
    for row in rows(folder, "layers", LAYER_COLUMNS):
        layer = _layer(row, settings, pool)
        layers.append(layer)
        costs[layer.namespace] = pool.one(_cost(row))
    edges = tuple(_edge(row, pool) for row in rows(folder, "edges"))
    held = tuple(map(_weight, rows(folder, "tensors"))) if weights else ()
    manifest = read_manifest(folder) or {}
    inputs, outputs = (tuple(_specs(manifest.get(side))) for side in ("inputs", "outputs"))
    graph = ModelGraph(
        str(about.get("name", "")), inputs, outputs, tuple(layers), edges, held, about.get("level") or "layer"
    )
    return StoredModel(graph, _costs(about, costs), about)


class Pool:
    """Equal values once: the layers of a large model have few shapes and few settings between them."""

    def __init__(self) -> None:
        self._found: dict[Any, Any] = {}

    def one(self, value: Any) -> Any:
        return self._found.setdefault(value, value)


def _layer(row: Row, settings: Collection[str] | None, pool: Pool) -> Layer:
    return Layer(
        index=row["index"],
        name=row["name"],
        class_name=pool.one(row["class"]),
        namespace=pool.one(row["layer"]),
        depth=row["depth"],
        parent=pool.one(row["parent"]),
        trainable=row["trainable"],
        inputs=pool.one(_activations(row["input_shapes"], row["input_dtypes"])),
        outputs=pool.one(_activations(row["output_shapes"], row["output_dtypes"])),
        params=row["params"],
        params_trainable=row["params_trainable"],
        params_total=row["params_total"],
        weight_bytes=row["weight_bytes"],
        calls=row["calls"],
        connected_to=tuple(map(pool.one, row["connected_to"])),
        config=row["config"] if settings is None else pool.one(_kept(row["config"], settings)),
    )


def _kept(config: str, settings: Collection[str]) -> str:
    """The JSON of those settings alone; empty where the configuration is not the JSON of an object."""
    if len(config) > LONGEST_CONFIG:
        return "{}"
    try:
        found = json.loads(config)
    except (ValueError, RecursionError):
        return "{}"
    return json.dumps({key: found[key] for key in settings if key in found} if isinstance(found, dict) else {})


def _activations(
    shapes: Iterable[list[int | None] | None] | None, dtypes: Iterable[str | None] | None
) -> tuple[TensorSpec, ...] | None:
    if shapes is None or dtypes is None:
        return None
    return tuple(TensorSpec("", _shape(shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True))


def _shape(shape: Iterable[int | None] | None) -> Shape | None:
    return None if shape is None else tuple(shape)


def _edge(row: Row, pool: Pool) -> Edge:
    values = {key: value for key, value in row.items() if key not in ("model", "shape", "source", "target")}
    return Edge(
        source=pool.one(row["source"]), target=pool.one(row["target"]), shape=pool.one(_shape(row["shape"])), **values
    )


def _weight(row: Row) -> Weight:
    return Weight(row["tensor"], row["layer"], tuple(row["shape"]), row["dtype"], row["nbytes"], row["trainable"])


def _cost(row: Row) -> Cost:
    return Cost(row["macs"], row["flops"], row["activation_bytes"], row["cost_method"], row["arithmetic_intensity"])


def _costs(about: Row, costs: dict[str, Cost]) -> LayerCosts:
    return LayerCosts(
        costs,
        about.get("cost_batch_size", 1),
        about.get("cost_dimension", 1),
        about.get("layers_without_cost", 0),
        about.get("macs"),
        about.get("flops"),
        about.get("peak_activation_bytes"),
    )


def _specs(records: Any) -> Iterable[TensorSpec]:
    for record in records if isinstance(records, list) else ():
        yield TensorSpec(record["name"], _shape(record["shape"]), record["dtype"])
