"""The layers and edges of a model as a flat ONNX graph: for a view of what has no ONNX form.

A node for each call of a layer, its class as the op. A nested model is entered where it is called once; its inputs are
joined by their order to what it is called with, its results are the layers that nothing inside of it reads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from exporter.formats.levels import Hierarchy
from exporter.formats.view_model.flat import NAMESPACE
from exporter.records import Edge, Layer, ModelGraph, TensorSpec

DOMAIN = "layers"
OPSET = 18
# A layer with more weights, those of the layers inside it counted, is shown without them.
MOST_WEIGHTS = 12
ONNX_TYPES = {"float32": "FLOAT", "float64": "DOUBLE"}


def layer_model(graph: ModelGraph) -> ModelProto:
    """A model without weights and without meaning to a runtime: only for looking at."""
    wiring = _Wiring(graph)
    found = GraphProto(name=graph.name)
    for layer in graph.layers:
        if wiring.is_drawn(layer) and not wiring.is_entered(layer):
            for call in range(max(1, layer.calls)):
                inputs = wiring.inputs(layer, call)
                if layer.class_name == "InputLayer" and layer.parent is None:
                    found.input.append(_value(wiring.output(layer, call, 0), layer.outputs, 0))
                else:
                    weights = wiring.weights[layer.namespace]
                    inputs += weights if len(weights) <= MOST_WEIGHTS else []
                    found.node.append(_node(layer, call, inputs, wiring))
                    found.value_info.extend(_values(layer, call, wiring))
    found.output.extend(ValueInfoProto(name=name) for name in wiring.results())
    types = {value.name: value for value in (*found.input, *found.value_info)}
    for value in found.output:
        if value.name in types:
            value.CopyFrom(types[value.name])
    found.initializer.extend(
        TensorProto(name=weight.name, dims=weight.shape, data_type=_onnx_type(weight.dtype)) for weight in graph.weights
    )
    return helper.make_model(found, opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)])


def _node(layer: Layer, call: int, inputs: Sequence[str], wiring: _Wiring) -> NodeProto:
    count = len(layer.outputs or ()) or 1
    outputs = [wiring.output(layer, call, at) for at in range(count)]
    name = layer.namespace if call == 0 else f"{layer.namespace} (call {call + 1})"
    node = NodeProto(op_type=layer.class_name, domain=DOMAIN, name=name, input=inputs, output=outputs)
    node.metadata_props.add(key=NAMESPACE, value=layer.namespace)
    return node


def _values(layer: Layer, call: int, wiring: _Wiring) -> Iterator[ValueInfoProto]:
    for at in range(len(layer.outputs or ()) or 1):
        yield _value(wiring.output(layer, call, at), layer.outputs, at)


def _value(name: str, specs: Sequence[TensorSpec] | None, at: int) -> ValueInfoProto:
    spec = specs[at] if specs and at < len(specs) else TensorSpec("", None, None)
    shape = None if spec.shape is None else ["?" if size is None else size for size in spec.shape]
    value: ValueInfoProto = helper.make_tensor_value_info(name, _onnx_type(spec.dtype), shape)
    return value


def _onnx_type(dtype: str | None) -> int:
    """The number of a NumPy dtype in ONNX; that of an undefined one where ONNX has none."""
    name = ONNX_TYPES.get(dtype or "", (dtype or "undefined").upper())
    return int(TensorProto.DataType.Value(name)) if name in TensorProto.DataType.keys() else 0  # noqa: SIM118


class _Wiring:
    """Which layers are drawn, and which tensors they read and make."""

    def __init__(self, graph: ModelGraph) -> None:
        self.hierarchy = Hierarchy(graph)
        self.by_name = self.hierarchy.by_name
        self.drawn: dict[str, bool] = {}
        self.into: dict[tuple[str, int], list[Edge]] = defaultdict(list)
        self.read: set[str] = set()
        for edge in graph.edges:
            self.into[edge.target, edge.target_call].append(edge)
            self.read.add(edge.source)
        self.weights: dict[str, list[str]] = defaultdict(list)
        for weight in graph.weights:
            holder = self._holder(weight.layer)
            if holder is not None:
                self.weights[holder.namespace].append(weight.name)

    def _parent(self, layer: Layer) -> Layer | None:
        """None outside of all models; the row of the model itself, whose key is empty, stands beside the others."""
        return None if layer.parent is None else self.by_name.get(layer.parent)

    def is_entered(self, layer: Layer) -> bool:
        return self.hierarchy.is_model(layer) and layer.calls <= 1

    def is_drawn(self, layer: Layer) -> bool:
        """Whether all models around it are entered: the layers inside of an attention layer, say, are not drawn."""
        if layer.namespace not in self.drawn:
            parent = self._parent(layer)
            self.drawn[layer.namespace] = parent is None or (self.is_entered(parent) and self.is_drawn(parent))
        return self.drawn[layer.namespace]

    def _holder(self, name: str) -> Layer | None:
        """The drawn layer that a weight is shown at."""
        layer = self.by_name.get(name)
        while layer is not None and not self.is_drawn(layer):
            layer = self._parent(layer)
        return layer

    def inputs(self, layer: Layer, call: int) -> list[str]:
        parent = self._parent(layer)
        if layer.class_name == "InputLayer" and parent is not None:
            places = [each for each in self.hierarchy.children[parent.namespace] if each.class_name == "InputLayer"]
            outer = self.inputs(parent, 0)
            at = places.index(layer)
            return outer[at : at + 1]
        edges = sorted(self.into[layer.namespace, call], key=lambda edge: edge.target_input)
        return [self.output(self.by_name[edge.source], edge.source_call, edge.source_output) for edge in edges]

    def output(self, layer: Layer, call: int, at: int) -> str:
        """The name of a tensor; that of an entered model is made by one of its last layers."""
        while self.is_entered(layer):
            last = self._last(layer.namespace)
            layer, call, at = last[min(at, len(last) - 1)], 0, 0 if len(last) > 1 else at
        return f"{layer.namespace}:{at}" if call == 0 else f"{layer.namespace} (call {call + 1}):{at}"

    def _last(self, parent: str | None) -> list[Layer]:
        inside = self.hierarchy.children[parent]
        return [layer for layer in inside if layer.namespace not in self.read] or inside[-1:]

    def results(self) -> list[str]:
        names = [self.output(layer, max(0, layer.calls - 1), 0) for layer in self._last(None)]
        return list(dict.fromkeys(names))
