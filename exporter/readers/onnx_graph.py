"""The description of an ONNX graph: its nodes, the layers that their names tell, edges and weights.

Linear in nodes and tensors. A layer's inputs and outputs are the tensors that go into it and come out of it; between
layers of different scopes an edge runs at the level that both scopes share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import AttributeProto, NodeProto, ValueInfoProto

from exporter.readers.onnx_initializers import dtype_name, initializer_nbytes
from exporter.readers.onnx_parts import OnnxParts
from exporter.records import Cost, Edge, Layer, ModelGraph, OnnxNode, Shape, TensorSpec, Weight
from exporter.sources.name_scopes import below, layers_of, node_names, outer_scopes
from exporter.sources.onnx_graph import used_names

ROOT, SCOPE, INPUT = "", "Scope", "InputLayer"
# Settings longer than this, and the elements of tensors among them, are named and not shown.
LONGEST_SETTING = 200


@dataclass(slots=True)
class Member:
    """A layer under way: its nodes, in order, and the tensors at its border, each with where it stands there."""

    namespace: str
    nodes: list[int] = field(default_factory=list)
    takes: dict[str, int] = field(default_factory=dict)
    gives: dict[str, int] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)
    weights: list[Weight] = field(default_factory=list)
    op_types: dict[str, None] = field(default_factory=dict)
    setting: str = "{}"


class Describer:
    """Describes one file; `costs` are those of its nodes, None when they were not counted.

    `values` are known besides those in the file, and `fixed` instead of them.
    """

    def __init__(
        self,
        parts: OnnxParts,
        name: str,
        *,
        costs: Sequence[Cost] | None = None,
        values: Iterable[ValueInfoProto] = (),
        fixed: Iterable[ValueInfoProto] = (),
    ) -> None:
        self.parts, self.name, self.costs = parts, name, costs
        self.initializers = {each.proto.name for each in parts.initializers}
        self.inputs = [value for value in parts.inputs if value.name not in self.initializers]
        self.specs = {value.name: value_spec(value) for value in values}
        self.specs |= {value.name: value_spec(value) for value in parts.value_infos()}
        self.specs |= {value.name: value_spec(value) for value in [*parts.inputs, *parts.outputs, *fixed]}
        self.names = node_names((node.name, node.op_type) for node in parts.nodes())
        self.layers = layers_of(self.names)
        taken = set(self.layers)
        # The rows of the inputs, which no layer may have the name of.
        self.input_rows = {
            value.name: f"{value.name} (input)" if value.name in taken else value.name for value in self.inputs
        }
        self.members: dict[str, Member] = {}
        self.edges: dict[tuple[str, str, str], Edge] = {}

    def describe(self) -> tuple[ModelGraph, tuple[OnnxNode, ...]]:
        """The graph, and its nodes in its order."""
        for tensor, row in self.input_rows.items():
            self._member(row).gives[tensor] = 0
        nodes = tuple(self._nodes())
        weights = tuple(self._weights())
        graph = ModelGraph(
            name=self.name,
            inputs=tuple(self.specs[value.name] for value in self.inputs),
            outputs=tuple(self.specs[value.name] for value in self.parts.outputs),
            layers=tuple(self._rows()),
            edges=tuple(self.edges.values()),
            weights=weights,
            level="scope",
        )
        return graph, nodes

    def _member(self, namespace: str) -> Member:
        """The layer of that key, with the scopes around it before it."""
        if namespace not in self.members:
            for outer in outer_scopes(namespace):
                self.members.setdefault(outer, Member(outer))
            self.members[namespace] = Member(namespace)
        return self.members[namespace]

    def _nodes(self) -> Iterator[OnnxNode]:
        makers = dict(self.input_rows)
        self._readers: dict[str, str] = {}
        for index, node in enumerate(self.parts.nodes()):
            layer = self.layers[index]
            member = self._member(layer)
            member.nodes.append(index)
            member.op_types[node.op_type] = None
            if len(member.nodes) == 1:
                member.setting = _settings(node)
            for name in used_names(node):
                if name in self.initializers:
                    self._readers.setdefault(name, layer)
                elif name and makers.get(name, layer) != layer:
                    self._connect(makers[name], layer, name)
            makers |= dict.fromkeys(filter(None, node.output), layer)
            yield self._node(index, node, layer)
        for value in self.parts.outputs:
            if value.name in makers:
                self._give(makers[value.name], value.name)

    def _connect(self, source: str, target: str, tensor: str) -> None:
        """An edge between the two layers, or between the outermost scopes around them that are not around both."""
        self._give(source, tensor, *below(source, target))
        for name in (target, *below(target, source)):
            takes = self.members[name].takes
            takes.setdefault(tensor, len(takes))
        source, target = ([*below(one, other), one][0] for one, other in ((source, target), (target, source)))
        if (source, target, tensor) not in self.edges:
            before, after = self.members[source], self.members[target]
            after.sources[source] = None
            shape, dtype = self._shape_and_dtype(tensor)
            self.edges[source, target, tensor] = Edge(
                source, 0, before.gives[tensor], target, 0, after.takes[tensor], shape, dtype
            )

    def _give(self, source: str, tensor: str, *around: str) -> None:
        for name in (source, *around):
            gives = self.members[name].gives
            gives.setdefault(tensor, len(gives))

    def _shape_and_dtype(self, tensor: str) -> tuple[Shape | None, str | None]:
        spec = self.specs.get(tensor)
        return (None, None) if spec is None else (spec.shape, spec.dtype)

    def _node(self, index: int, node: NodeProto, layer: str) -> OnnxNode:
        known = [self._shape_and_dtype(name) for name in node.output]
        return OnnxNode(
            index=index,
            name=self.names[index],
            op_type=node.op_type,
            domain=node.domain,
            namespace=layer,
            layer=layer,
            match_kind="scope",
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            output_shapes=tuple(shape for shape, _ in known),
            output_dtypes=tuple(dtype for _, dtype in known),
            cost=self.costs[index] if self.costs else None,
        )

    def _weights(self) -> Iterator[Weight]:
        """Each initializer with the first layer that takes it; those that none takes belong to the model itself."""
        for stored in self.parts.initializers:
            proto = stored.proto
            layer = self._readers.get(proto.name, ROOT)
            shape, dtype = tuple(proto.dims), dtype_name(proto.data_type)
            weight = Weight(proto.name, layer, shape, dtype or "object", initializer_nbytes(proto), False)
            (self._member(layer) if layer else self.members.setdefault(ROOT, Member(ROOT))).weights.append(weight)
            yield weight

    def _rows(self) -> Iterator[Layer]:
        totals = {name: sum(math.prod(weight.shape) for weight in each.weights) for name, each in self.members.items()}
        for name, size in list(totals.items()):
            for outer in outer_scopes(name):
                totals[outer] += size
        order = self._depth_first()
        inputs = set(self.input_rows.values())
        for index, member in enumerate(order):
            yield self._row(index, member, totals[member.namespace], is_input=member.namespace in inputs)

    def _depth_first(self) -> list[Member]:
        """Rows with what is inside right behind each, children in the order in which they were met."""
        children: dict[str, list[Member]] = {}
        for name, member in self.members.items():
            children.setdefault(name.rpartition("/")[0] if name != ROOT else ROOT, []).append(member)
        found, stack = [], list(reversed(children.get(ROOT, [])))
        while stack:
            member = stack.pop()
            found.append(member)
            if member.namespace != ROOT:
                stack.extend(reversed(children.get(member.namespace, [])))
        return found

    def _row(self, index: int, member: Member, total: int, *, is_input: bool) -> Layer:
        name, weights = member.namespace, member.weights
        ops = list(member.op_types)
        return Layer(
            index=index,
            name=name.rpartition("/")[2],
            class_name=INPUT if is_input else "+".join(ops[:4]) + ("…" if len(ops) > 4 else "") if ops else SCOPE,
            namespace=name,
            depth=name.count("/"),
            parent=name.rpartition("/")[0] or None,
            trainable=False,
            inputs=self._at_border(member.takes),
            outputs=self._at_border(member.gives),
            params=sum(math.prod(weight.shape) for weight in weights),
            params_trainable=0,
            params_total=total,
            weight_bytes=sum(weight.nbytes for weight in weights),
            calls=1,
            connected_to=tuple(member.sources),
            config=member.setting if len(member.nodes) == 1 else json.dumps({"nodes": len(member.nodes)}),
        )

    def _at_border(self, tensors: Mapping[str, int]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, *self._shape_and_dtype(name)) for name in tensors)


def value_spec(value: ValueInfoProto) -> TensorSpec:
    """A dimension with a name, or none, is dynamic."""
    kind = value.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    return TensorSpec(value.name, shape, dtype_name(kind.elem_type))


def _settings(node: NodeProto) -> str:
    """The node's attributes as JSON; of tensors their types and shapes, of graphs their names."""
    return json.dumps({each.name: _setting(each) for each in node.attribute}, sort_keys=True, separators=(",", ":"))


def _setting(attribute: AttributeProto) -> Any:
    if attribute.type == AttributeProto.TENSOR:
        return f"{dtype_name(attribute.t.data_type)}{list(attribute.t.dims)}"
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value[:LONGEST_SETTING].decode("utf-8", "replace")
    if isinstance(value, (int, float)):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)) or attribute.ints or attribute.floats:
        return [entry if isinstance(entry, (int, float)) else str(entry) for entry in list(value)[:LONGEST_SETTING]]
    return str(getattr(value, "name", ""))
