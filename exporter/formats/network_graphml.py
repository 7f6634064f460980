"""`model.graphml`: the network of layers for NetworkX, Cytoscape, Gephi and yEd, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from exporter.files import write_lines
from exporter.formats.layer_network import Network, layer_network
from exporter.formats.network_xml import attribute, content
from exporter.networks.elements import GRAPH_KINDS, LEVELS, Attributes
from exporter.records import Material

NAMESPACE = "http://graphml.graphdrawing.org/xmlns"
# Keys are unique in the whole file, and a graph, a node and an edge may have attributes of one name.
PREFIXES = {"graph": "g", "node": "n", "edge": "e"}


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """Raises OutputError."""
    write_lines(folder / "model.graphml", lines(layer_network(material)))
    return ()


def lines(network: Network) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<graphml xmlns="{NAMESPACE}">'
    level = LEVELS["layers"]
    for part, kinds in (("graph", GRAPH_KINDS), ("node", level.node_kinds), ("edge", level.edge_kinds)):
        yield from _keys(part, kinds)
    yield f'<graph id={attribute(network.attributes["name"])} edgedefault="directed">'
    yield from _data("graph", network.attributes)
    for key, attributes in network.vertices:
        yield f"<node id={attribute(key)}>"
        yield from _data("node", attributes)
        yield "</node>"
    for source, target, number, attributes in network.arcs:
        yield f'<edge id="{number}" source={attribute(source)} target={attribute(target)}>'
        yield from _data("edge", attributes)
        yield "</edge>"
    yield "</graph>"
    yield "</graphml>"


def _keys(part: str, kinds: Mapping[str, str]) -> Iterator[str]:
    for name, kind in kinds.items():
        yield f'<key id="{PREFIXES[part]}_{name}" for="{part}" attr.name="{name}" attr.type="{kind}"/>'


def _data(part: str, attributes: Attributes) -> Iterator[str]:
    for name, value in attributes.items():
        yield f'<data key="{PREFIXES[part]}_{name}">{content(value)}</data>'
