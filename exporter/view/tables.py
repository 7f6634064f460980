"""What the Parquet files of an export know about the model beside them, for Netron's sidebar."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.files import read_manifest
from exporter.formats.view_model.facts import LayerFacts, output_text

LAYERS, NODES, TENSORS = "layers.parquet", "nodes.parquet", "tensors.parquet"
NODE_METRICS = ("macs", "flops", "activation_bytes")
STATISTICS = ("min", "max", "mean", "std", "l2_norm", "zeros", "near_zeros", "nans", "infs", "dead_filters")


@dataclass(frozen=True)
class Tables:
    """The tables of one export's folder."""

    folder: Path

    @classmethod
    def beside(cls, model: Path) -> Tables | None:
        """Those of the finished export that a file is part of; None where there are none."""
        manifest = read_manifest(model.parent) or {}
        names = {file.get("name") for file in manifest.get("files", ())}
        return cls(model.parent) if {model.name, LAYERS} <= names and (model.parent / LAYERS).is_file() else None

    def facts(self) -> dict[str, LayerFacts]:
        """By the layer's namespace."""
        columns = ["layer", "class", "output_shapes", "output_dtypes", "params_total", "macs"]
        return {row["layer"]: _facts(row) for row in self._rows(LAYERS, columns)}

    def macs(self) -> list[int | None]:
        """One for each node of the graph; empty where they are not known."""
        return [row["macs"] for row in self._rows(NODES, ["macs"])]

    def attachment(self) -> bytes:
        """The statistics of weights and the costs of nodes in the form that Netron attaches to a model.

        `view.js` of Netron 9: `signature`, and entries of `metadata` and `metrics` with kind, target, name and value.
        """
        nodes = self._rows(NODES, ["node", *NODE_METRICS])
        metrics = [entry for row in nodes for entry in _entries("node", row["node"], row, NODE_METRICS)]
        tensors = self._rows(TENSORS, ["initializer", "tensor", "transform", *STATISTICS])
        # Netron shows metrics of a tensor only where it has the values, which a view has not.
        metadata = [entry for row in tensors for entry in _tensor_entries(row)]
        attachment = {"signature": "netron:attachment", "metadata": metadata, "metrics": metrics}
        return json.dumps(attachment, allow_nan=False).encode()

    def _rows(self, table: str, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        from pyarrow import parquet

        path = self.folder / table
        if path.is_file():
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=list(columns)):
                    yield from batch.to_pylist()


def _facts(row: Mapping[str, Any]) -> LayerFacts:
    shapes, dtypes = row["output_shapes"] or (), row["output_dtypes"] or ()
    outputs = [output_text(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=False)]
    return LayerFacts(row["class"], ", ".join(outputs), row["params_total"], row["macs"])


def _tensor_entries(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Statistics are of the source's weight: of one that was combined with others, they are those before that."""
    target = row["initializer"]
    if target is None:
        return
    yield {"kind": "tensor", "target": target, "name": f"from {row['tensor']}", "value": row["transform"]}
    if row["transform"] != "folded":
        yield from _entries("tensor", target, row, STATISTICS)
    elif row["tensor"] == target:
        yield from _entries("tensor", target, row, STATISTICS, " before folding")


def _entries(
    kind: str, target: str, row: Mapping[str, Any], names: Sequence[str], which: str = ""
) -> Iterator[dict[str, Any]]:
    for name in names:
        if row[name] is not None:
            yield {"kind": kind, "target": target, "name": name.replace("_", " ") + which, "value": row[name]}
