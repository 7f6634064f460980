"""The layers of a model as a network that is written while it is made: what the network files are written from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from exporter.formats import model_table
from exporter.formats.layer_table import TABLES
from exporter.networks.elements import Arc, Attributes, Vertex, graph_attributes, layer_arcs, vertices
from exporter.records import Material


@dataclass(frozen=True)
class Network:
    """`vertices` and `arcs` can be gone through once."""

    attributes: Attributes
    vertices: Iterator[Vertex]
    arcs: Iterator[Arc]


def layer_network(material: Material) -> Network:
    """The same nodes, edges and attributes as `exporter.to_networkx` makes of the tables."""
    rows = {name: TABLES[name][1](material) for name in ("layers", "edges")}
    about = graph_attributes(next(model_table.rows(material)), "layers")
    return Network(about, vertices(rows["layers"], "layers"), layer_arcs(rows["edges"]))
