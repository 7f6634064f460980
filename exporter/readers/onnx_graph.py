"""The description of an ONNX graph: its nodes, the layers that their names tell, edges and weights.

Linear in nodes and tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import onnx
from onnx import AttributeProto, NodeProto, ValueInfoProto

from exporter.readers.onnx_initializers import dtype_name, initializer_nbytes
from exporter.readers.onnx_parts import OnnxParts
from exporter.records import Cost, ModelGraph, OnnxNode, Shape, TensorSpec, Weight
from exporter.sources.graphs.name_scopes import layers_of, node_names
from exporter.sources.graphs.scope_rows import ROOT, ScopeRows
from exporter.sources.rewriting.onnx_graph import used_names

# Settings longer than this, and the elements of tensors among them, are named and not shown.
LONGEST_SETTING = 200


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
        self.rows = ScopeRows(self._shape_and_dtype)

    def describe(self) -> tuple[ModelGraph, tuple[OnnxNode, ...]]:
        """The graph, and its nodes in its order."""
        for tensor, row in self.input_rows.items():
            self.rows.member(row).gives[tensor] = 0
        nodes = tuple(self._nodes())
        weights = tuple(self._weights())
        graph = ModelGraph(
            name=self.name,
            inputs=tuple(self.specs[value.name] for value in self.inputs),
            outputs=tuple(self.specs[value.name] for value in self.parts.outputs),
            layers=tuple(self.rows.rows(set(self.input_rows.values()))),
            edges=tuple(self.rows.edges.values()),
            weights=weights,
            level="scope",
        )
        return graph, nodes

    def _nodes(self) -> Iterator[OnnxNode]:
        makers = dict(self.input_rows)
        self._readers: dict[str, str] = {}
        for index, node in enumerate(self.parts.nodes()):
            layer = self.layers[index]
            self.rows.add(layer, index, node.op_type, partial(_settings, node))
            for name in used_names(node):
                if name in self.initializers:
                    self._readers.setdefault(name, layer)
                elif name and makers.get(name, layer) != layer:
                    self.rows.connect(makers[name], layer, name)
            makers |= dict.fromkeys(filter(None, node.output), layer)
            yield self._node(index, node, layer)
        for value in self.parts.outputs:
            if value.name in makers:
                self.rows.give(makers[value.name], value.name)

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
            self.rows.hold(weight)
            yield weight


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
