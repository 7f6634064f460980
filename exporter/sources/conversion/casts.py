"""Casts around the parameters of ONNX ops that cannot have the type that flows there, in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

from exporter.sources.rewriting.onnx_graph import replace, subgraphs, used_names

FLOAT = TensorProto.FLOAT
# Lookup tables; their numbers are of float32.
LABEL_ENCODER_DOMAIN, LABEL_ENCODER_OPSET = "ai.onnx.ml", 2

# The type that a parameter of the node is to have instead of the one that flows there, given those that ONNX allows
# for it; None where it can stay.
Detour = Callable[[NodeProto, int, Sequence[str]], int | None]


@dataclass
class Casts:
    """Casts before and behind the parameters for which `detour` names another type.

    `back` has the type that flows really, where it is not the one that the typed graph says. `exact` has constants
    that exist in the other type too: name → that one's name. `used` collects those that are wanted, and `ops` the types
    of the nodes that compute in another type, by the one that flows.
    """

    detour: Detour
    opset: int
    back: Mapping[int, int] = field(default_factory=dict)
    exact: Mapping[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    ops: dict[int, set[str]] = field(default_factory=dict)
    _allowed: dict[tuple[str, str], Any] = field(default_factory=dict)

    def insert(self, graph: GraphProto, typed: GraphProto, outer: Mapping[str, int] | None = None) -> None:
        """`typed` is the same graph with the types of its values; `outer` has those of what is around a body."""
        types = {**(outer or {}), **value_types(typed)}
        nodes: list[NodeProto] = []
        made: dict[tuple[str, int], str] = {}
        for node, typed_node in zip(list(graph.node), list(typed.node), strict=True):
            for body, typed_body in zip(subgraphs(node), subgraphs(typed_node), strict=True):
                self.insert(body, typed_body, types)
            casts = self._around(node, types, made)
            if outer is not None:
                # Those of the main graph are all named anew at the end, by the layer of the node that they belong to.
                for each in casts:
                    each.name = each.name if each is node else each.output[0]
            nodes += casts
        used = {name for node in nodes for name in used_names(node)} | {value.name for value in graph.output}
        unused = set(made.values()) - used
        replace(graph.node, [node for node in nodes if not (node.op_type == "Cast" and node.output[0] in unused)])

    def _around(self, node: NodeProto, types: Mapping[str, int], made: dict[tuple[str, int], str]) -> list[NodeProto]:
        """The node between its casts. `made` has the values that have been cast, by name and type."""
        before: list[NodeProto] = []
        after: list[NodeProto] = []
        inputs, outputs = self._parameters(node)
        for place, name in enumerate(node.input):
            kind = types.get(name, 0)
            other = self.detour(node, kind, _of(inputs, place)) if kind and inputs else None
            if other is not None:
                self.ops.setdefault(kind, set()).add(node.op_type)
                node.input[place] = self._cast_input(node, name, other, made, before)
        for place, name in enumerate(node.output):
            kind = types.get(name, 0)
            other = self.detour(node, kind, _of(outputs, place)) if kind and outputs else None
            if other is not None:
                self.ops.setdefault(kind, set()).add(node.op_type)
                wide = node.output[place] = _name(f"{name}/from", other)
                if other == FLOAT:
                    # Where the next node wants float32 too, it takes this. Whole numbers have to wrap around first.
                    made[name, other] = wide
                after.append(cast(wide, name, self.back.get(kind, kind), node.name))
        return [*before, node, *after]

    def _cast_input(
        self, node: NodeProto, name: str, other: int, made: dict[tuple[str, int], str], before: list[NodeProto]
    ) -> str:
        if name in self.exact:
            self.used.add(name)
            return self.exact[name]
        if (name, other) not in made:
            made[name, other] = _name(name, other)
            before.append(cast(name, made[name, other], other, node.name))
        return made[name, other]

    def _parameters(self, node: NodeProto) -> tuple[list[Sequence[str]], list[Sequence[str]]]:
        """The types that ONNX allows for the inputs and the outputs; empty where the op is not known."""
        key = node.domain, node.op_type
        if key not in self._allowed:
            opset = LABEL_ENCODER_OPSET if node.domain == LABEL_ENCODER_DOMAIN else self.opset
            found: Any = ([], [])
            if onnx.defs.has(node.op_type, opset, node.domain):
                schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
                found = [each.types for each in schema.inputs], [each.types for each in schema.outputs]
            self._allowed[key] = found
        allowed: tuple[list[Sequence[str]], list[Sequence[str]]] = self._allowed[key]
        return allowed


def _of(parameters: Sequence[Sequence[str]], place: int) -> Sequence[str]:
    """The last parameter may be there any number of times."""
    return parameters[min(place, len(parameters) - 1)]


def _name(value: str, dtype: int) -> str:
    return f"{value}/{helper.tensor_dtype_to_np_dtype(dtype).name}"


def cast(value: str, output: str, dtype: int, name: str) -> NodeProto:
    return helper.make_node("Cast", [value], [output], name=name, to=dtype)


def value_types(graph: GraphProto) -> dict[str, int]:
    """Element types of the tensors of a graph, as far as it says them."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        proto.name: proto.data_type for proto in graph.initializer
    }
