"""A node of an ONNX graph that is edited: its `NodeProto` with attributes by name and operands as plain tuples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto, helper

from exporter.sources.rewriting.onnx_graph import used_names


@dataclass(eq=False)
class Node:
    """One node of the graph that is edited. Inputs are changed by `Editor.set_inputs` only, which keeps the index."""

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str
    domain: str = ""
    attributes: dict[str, AttributeProto] = field(default_factory=dict)
    # What the bodies of a loop or branch refer to: values of this graph, of their own, and of what is around.
    captured: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.look_inside()

    def look_inside(self) -> None:
        """Find out anew what the bodies refer to."""
        bodies = [attribute for attribute in self.attributes.values() if attribute.type == AttributeProto.GRAPH]
        self.captured = tuple(used_names(NodeProto(attribute=bodies))) if bodies else ()

    def get(self, attribute: str, default: Any = None) -> Any:
        proto = self.attributes.get(attribute)
        return default if proto is None else helper.get_attribute_value(proto)

    def set(self, attribute: str, value: Any) -> None:
        """Not for the body of a loop or branch."""
        self.attributes[attribute] = helper.make_attribute(attribute, value)

    def rename(self, old: str, new: str) -> None:
        """Use another value, also inside of bodies. For `Editor`, which keeps an index of uses."""
        self.inputs = tuple(new if name == old else name for name in self.inputs)
        for attribute in self.attributes.values():
            if attribute.type == AttributeProto.GRAPH:
                _rename_in_graph(attribute.g, old, new)
        self.look_inside()

    def as_proto(self) -> NodeProto:
        return NodeProto(
            op_type=self.op_type,
            domain=self.domain,
            name=self.name,
            input=self.inputs,
            output=self.outputs,
            attribute=self.attributes.values(),
        )


def _rename_in_graph(graph: GraphProto, old: str, new: str) -> None:
    for output in graph.output:
        output.name = new if output.name == old else output.name
    for inner in graph.node:
        inner.input[:] = [new if name == old else name for name in inner.input]
        for attribute in inner.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _rename_in_graph(attribute.g, old, new)
