"""Edges between the layers that are drawn when nested models stand open: through their inputs and outputs.

Records say which input of a nested model an edge enters and which output it leaves, not which layer inside that is.
Most models have one of each. Of several, input layers are taken in their order, and outputs by order and shape.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

from exporter.formats.levels import Hierarchy
from exporter.records import Edge, Layer, Shape


@dataclass(frozen=True, slots=True)
class Link:
    """A tensor that comes in: output number `output` of the node with the key `source`."""

    source: str
    output: int
    shape: Shape | None = None
    dtype: str | None = None


class Wiring:
    """`into[namespace]` has the links into a layer that is no nested model, in the order of its calls and inputs."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self._exits: dict[Hashable, Layer] = {}
        self.into: dict[str, list[Link]] = defaultdict(list)
        for edges in hierarchy.edges.values():
            for edge in sorted(edges, key=lambda edge: (edge.target_call, edge.target_input)):
                link = self._link(edge)
                for target in self._entrances(edge.target, edge.target_input):
                    self.into[target].append(link)

    def _entrances(self, name: str, number: int) -> list[str]:
        """The layers that get input `number` of a layer: itself, or input layers inside a nested model."""
        layer = self.hierarchy.by_name[name]
        if not self.hierarchy.is_model(layer):
            return [name]
        inside = self.hierarchy.children[name]
        doors = [child.namespace for child in inside if child.class_name == "InputLayer"]
        if len(doors) == len(layer.inputs or ()):
            return doors[number : number + 1]
        return doors or self._entrances(inside[0].namespace, number)

    def _link(self, edge: Edge) -> Link:
        layer, output = self.hierarchy.by_name[edge.source], edge.source_output
        while self.hierarchy.is_model(layer):
            key = (layer.namespace, output, edge.shape, edge.dtype)
            if key not in self._exits:
                self._exits[key] = self._exit(layer, output, edge)
            layer, output = self._exits[key], 0
        return Link(layer.namespace, output, edge.shape, edge.dtype)

    def _exit(self, model: Layer, output: int, edge: Edge) -> Layer:
        """The layer inside a nested model that makes an output: if one fits, one whose output nothing in there uses.

        The features that a backbone delivers beside its last output are used inside, too: the last layer that fits.
        """
        inside = [child for child in self.hierarchy.children[model.namespace] if child.calls]
        used = {inner.source for inner in self.hierarchy.edges[model.namespace]}
        ends = [child for child in inside if child.namespace not in used and child.class_name != "InputLayer"]
        if len(ends) == len(model.outputs or ()) and _delivers(ends[output], edge):
            return ends[output]
        fitting = [child for child in ends if _delivers(child, edge)] or [
            child for child in inside if _delivers(child, edge)
        ]
        return (fitting or ends or self.hierarchy.children[model.namespace])[-1]


def _delivers(layer: Layer, edge: Edge) -> bool:
    return any((spec.shape, spec.dtype) == (edge.shape, edge.dtype) for spec in layer.outputs or ())
