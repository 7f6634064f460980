"""The artifacts that an export can write, by the name that `--to` takes.

A format's module has `write(material: Material, folder: Path) -> tuple[str, ...]`: it writes `files` into `folder`
through `exporter.files.new_file` and returns notes for the user. `onnx` is written first, by `onnx_model`, because the
others describe what it made.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """`module` is imported when the format is used, so that listing formats costs nothing."""

    name: str
    module: str
    files: tuple[str, ...]
    summary: str


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
        ),
        Format("dot", "exporter.formats.dot_graph", ("model.dot",), "the graph of layers as Graphviz text"),
        Format("svg", "exporter.formats.svg_picture", ("model.svg",), "the graph of layers as a picture"),
    )
}
