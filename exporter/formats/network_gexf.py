"""`model.gexf`: the network of layers for Gephi, in version 1.2 of its format, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from exporter.files import write_lines
from exporter.formats.layer_network import Network, layer_network
from exporter.formats.network_xml import attribute, content
from exporter.networks.elements import LEVELS, Attributes
from exporter.records import Material

NAMESPACE = "http://www.gexf.net/1.2draft"
# NetworkX takes an edge's key from the attribute of this name.
EDGE_KEY = "networkx_key"


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """Raises OutputError."""
    write_lines(folder / "model.gexf", lines(layer_network(material)))
    return ()


def lines(network: Network) -> Iterator[str]:
    level = LEVELS["layers"]
    # The label is an attribute of the XML element itself.
    node_kinds = {name: kind for name, kind in level.node_kinds.items() if name != "label"}
    name = str(network.attributes["name"])
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<gexf xmlns="{NAMESPACE}" version="1.2">'
    yield f"<meta><creator>export-model</creator><description>{content(name)}</description></meta>"
    yield f'<graph defaultedgetype="directed" mode="static" name={attribute(name)}>'
    yield from _declared("node", node_kinds)
    yield from _declared("edge", {EDGE_KEY: "long"} | dict(level.edge_kinds))
    yield "<nodes>"
    for key, attributes in network.vertices:
        label = attribute(attributes.pop("label"))
        yield f"<node id={attribute(key)} label={label}>{_values(attributes)}</node>"
    yield "</nodes>"
    yield "<edges>"
    for source, target, number, attributes in network.arcs:
        ends = f"source={attribute(source)} target={attribute(target)}"
        yield f'<edge id="{number}" {ends}>{_values({EDGE_KEY: number} | attributes)}</edge>'
    yield "</edges>"
    yield "</graph>"
    yield "</gexf>"


def _declared(part: str, kinds: Mapping[str, str]) -> Iterator[str]:
    yield f'<attributes class="{part}" mode="static">'
    for name, kind in kinds.items():
        yield f'<attribute id="{name}" title="{name}" type="{kind}"/>'
    yield "</attributes>"


def _values(attributes: Attributes) -> str:
    values = (f'<attvalue for="{name}" value={attribute(value)}/>' for name, value in attributes.items())
    return f"<attvalues>{''.join(values)}</attvalues>"
