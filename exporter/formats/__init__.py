"""The artifacts that an export can write, by the name that `--to` takes.

A format's module has `write(material: Material, folder: Path) -> tuple[str, ...]`: it writes `files` into `folder`
through `exporter.files.new_file` and returns notes for the user. `onnx` is written first, by `onnx_model`, because the
others describe what it made.

What a format `needs` in its material is made only for those that say so: `costs` of the layers, the `hollow` ONNX
model, and `statistics` of the weights, which every format that `takes_statistics` gets with `--stats`. One that is
written `after_verification` also has the verdict and the digest of the source. One that `draws` heeds the options for
pictures (`records.PictureOptions`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Format(NamedTuple):
    """`module` is imported when the format is used, so that listing formats costs nothing.

    `imports` are packages that only the optional dependencies named `extra` bring along.
    """

    name: str
    module: str
    files: tuple[str, ...]
    summary: str
    needs: frozenset[str] = frozenset()
    takes_statistics: bool = False
    extra: str = ""
    imports: tuple[str, ...] = ()
    after_verification: bool = False
    draws: bool = False


COSTS, STATISTICS, HOLLOW = "costs", "statistics", "hollow"


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format(
            "onnx", "exporter.formats.onnx_model", ("model.onnx", "model.onnx.data"), "ONNX, checked in ONNX Runtime"
        ),
        Format(
            "parquet",
            "exporter.formats.catalogue",
            ("models.parquet", "layers.parquet", "tensors.parquet", "edges.parquet", "nodes.parquet"),
            "the layer catalogue, for pandas, DuckDB and Polars",
            needs=frozenset({COSTS}),
            takes_statistics=True,
            after_verification=True,
        ),
        Format(
            "dot",
            "exporter.formats.dot_graph",
            ("model.dot",),
            "the graph of layers as Graphviz text",
            needs=frozenset({COSTS}),
            draws=True,
        ),
        Format(
            "svg",
            "exporter.formats.svg_picture",
            ("model.svg",),
            "the graph of layers as a picture",
            needs=frozenset({COSTS}),
            draws=True,
        ),
        Format(
            "png",
            "exporter.formats.png_picture",
            ("model.png",),
            "that picture in pixels",
            needs=frozenset({COSTS}),
            draws=True,
        ),
        Format(
            "pdf",
            "exporter.formats.pdf_picture",
            ("model.pdf",),
            "that picture for paper",
            needs=frozenset({COSTS}),
            draws=True,
        ),
        Format(
            "graphml",
            "exporter.formats.network_graphml",
            ("model.graphml",),
            "the network of layers, for NetworkX, Cytoscape and Gephi",
            needs=frozenset({COSTS}),
        ),
        Format(
            "gexf",
            "exporter.formats.network_gexf",
            ("model.gexf",),
            "the network of layers, for Gephi",
            needs=frozenset({COSTS}),
        ),
        Format(
            "json",
            "exporter.formats.network_json",
            ("model.graph.json",),
            "the network of layers as node-link JSON, for NetworkX and D3",
            needs=frozenset({COSTS}),
        ),
        Format(
            "markdown",
            "exporter.formats.model_card",
            ("model.md",),
            "totals, blocks and a Mermaid graph, for pull requests and model cards",
            needs=frozenset({COSTS}),
            after_verification=True,
        ),
        Format(
            "tensorboard",
            "exporter.formats.event_file",
            ("model.tfevents",),
            "op graph, conceptual graph and weight histograms for TensorBoard",
            needs=frozenset({COSTS, STATISTICS}),
            takes_statistics=True,
            extra="tensorboard",
            imports=("tensorboard", "google_crc32c"),
        ),
        Format(
            "model-explorer",
            "exporter.formats.explorer_graph",
            (
                "explorer.json",
                "explorer_parameters.json",
                "explorer_macs.json",
                "explorer_activation_bytes.json",
                "explorer_weight_health.json",
            ),
            "the graph and its costs for Model Explorer",
            needs=frozenset({COSTS}),
            takes_statistics=True,
        ),
        Format(
            "html",
            "exporter.formats.report.page",
            ("model.html",),
            "all about the model in one page for a browser",
            needs=frozenset({COSTS}),
            takes_statistics=True,
            after_verification=True,
        ),
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
