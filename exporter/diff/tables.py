"""The tables of one export, as they are compared."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from exporter.stored.tables import Row as Row
from exporter.stored.tables import rows

# Where a nested model keeps its layers: each of them has a row of its own.
INNER_LAYERS = ("layers", "input_layers", "output_layers", "build_config", "build_input_shape")
# Reported from the tables' own columns.
OWN_COLUMNS = ("name", "trainable")


@dataclass(frozen=True)
class Tables:
    """One model; rows are dicts by column, in the order of the files.

    `name` is what the user calls it, `model` the row of models.parquet, or empty where there is none.
    """

    folder: Path
    name: str
    model: Row
    layers: list[Row]
    tensors: list[Row]
    edges: list[Row]

    @cached_property
    def by_key(self) -> dict[str, Row]:
        return {row["layer"]: row for row in self.layers}

    @cached_property
    def children(self) -> dict[str | None, list[Row]]:
        """Layers by their parent's key, in execution order; None for the model itself."""
        found: dict[str | None, list[Row]] = defaultdict(list)
        for row in self.layers:
            found[row["parent"]].append(row)
        return found

    @cached_property
    def tensors_of(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = defaultdict(list)
        for row in self.tensors:
            found[row["layer"]].append(row)
        return found

    @cached_property
    def edges_into(self) -> dict[str, list[Row]]:
        """Edges by target, in the order of its calls and inputs."""
        found: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(self.edges, key=lambda row: (row["target_call"], row["target_input"])):
            found[row["target"]].append(row)
        return found

    @cached_property
    def settings(self) -> dict[str, Row]:
        """What each layer is configured with, by the layer's key: dotted paths to JSON values, names left out."""
        return {row["layer"]: flat_settings(row["config"]) for row in self.layers}


def is_export(folder: Path) -> bool:
    return (folder / "layers.parquet").is_file()


def read(folder: Path, name: str) -> Tables:
    """The tables of an export; `name` is what the user calls it. Raises SourceError."""
    models = list(rows(folder, "models")) if (folder / "models.parquet").is_file() else []
    layers, tensors, edges = (list(rows(folder, table)) for table in ("layers", "tensors", "edges"))
    return Tables(folder, name, models[0] if models else {}, layers, tensors, edges)


def flat_settings(config: str) -> Row:
    """`{"dtype": {"class_name": "DTypePolicy", "config": {"name": "float32"}}}` → `dtype`, `dtype.name`.

    Left out are names of layers, also of layers inside, and what has rows or columns of its own.
    """
    try:
        settings = json.loads(config or "{}")
    except (ValueError, RecursionError):
        return {"config": config}
    if not isinstance(settings, dict):
        return {"config": settings}
    kept = {key: value for key, value in settings.items() if key not in (*INNER_LAYERS, *OWN_COLUMNS)}
    found: Row = {}
    _flatten(kept, "", found)
    return found


def _flatten(value: Any, path: str, found: Row) -> None:
    if isinstance(value, dict) and "class_name" in value and isinstance(value.get("config"), dict):
        found[path] = value["class_name"]
        inner = value["config"]
        # A layer, such as the one inside of a wrapper; a dtype policy has a name too, and it says the dtype.
        is_layer = "name" in inner and "trainable" in inner
        value = {key: item for key, item in inner.items() if not (is_layer and key == "name")}
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(item, f"{path}.{key}" if path else key, found)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            _flatten(item, f"{path}[{number}]", found)
    else:
        found[path] = value
