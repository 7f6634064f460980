"""The artifacts that an export can write, by the name that `--to` takes.

A format's module has `write(material: Material, folder: Path) -> tuple[str, ...]`: it writes `files` into `folder`
through `exporter.files.new_file` and returns notes for the user. `onnx` is written first, by `onnx_model`, because the
others describe what it made.

What a format `needs` in its material is made only for those that say so: `costs` of the layers, the `hollow` ONNX
model, and `statistics` of the weights, which every format that `takes_statistics` gets with `--stats`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """`module` is imported when the format is used, so that listing formats costs nothing."""

    name: str
    module: str
    files: tuple[str, ...]
    summary: str
    needs: frozenset[str] = frozenset()
    takes_statistics: bool = False


COSTS, STATISTICS, HOLLOW = "costs", "statistics", "hollow"


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format(
            "onnx", "exporter.formats.onnx_model", ("model.onnx", "model.onnx.data"), "ONNX, checked in ONNX Runtime"
        ),
        Format(
            "parquet",
            "exporter.formats.layer_table",
            ("models.parquet", "layers.parquet", "tensors.parquet", "edges.parquet", "nodes.parquet"),
            "the layer catalogue, for pandas, DuckDB and Polars",
            needs=frozenset({COSTS}),
            takes_statistics=True,
        ),
        Format("dot", "exporter.formats.dot_graph", ("model.dot",), "the graph of layers as Graphviz text"),
        Format("svg", "exporter.formats.svg_picture", ("model.svg",), "the graph of layers as a picture"),
        Format(
            "netron",
            "exporter.formats.netron_view",
            ("model.view.onnx",),
            "the model in blocks and without weights, for Netron",
            needs=frozenset({COSTS, HOLLOW}),
        ),
    )
}


def needed(names: Iterable[str]) -> set[str]:
    """What the named formats need between them."""
    return set().union(*(FORMATS[name].needs for name in names))
