"""`model.graph.json`: the network of layers in the node-link form of NetworkX and D3, streamed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from exporter.files import write_lines
from exporter.formats.layer_network import Network, layer_network
from exporter.records import Material

encode = json.JSONEncoder().encode


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """Raises OutputError."""
    write_lines(folder / "model.graph.json", lines(layer_network(material)))
    return ()


def lines(network: Network) -> Iterator[str]:
    """One object, a node or an edge in each line; all of it ASCII, which every reader takes, whatever names hold."""
    yield f'{{"directed": true, "multigraph": true, "graph": {encode(network.attributes)},'
    yield '"nodes": ['
    yield from _separated({"id": key} | attributes for key, attributes in network.vertices)
    yield '], "edges": ['
    yield from _separated(
        {"source": source, "target": target, "key": number} | attributes
        for source, target, number, attributes in network.arcs
    )
    yield "]}"


def _separated(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    before = ""
    for record in records:
        if before:
            yield before + ","
        before = encode(record)
    if before:
        yield before
