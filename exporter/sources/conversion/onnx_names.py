"""Names, layers and shapes for a converted graph: what a reader of the file sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from exporter.lazy import LazyArray
from exporter.records import OnnxNode, Shape
from exporter.sources.conversion.tracing import OpOwners
from exporter.sources.rewriting.onnx_graph import graphs, subgraphs, used_names
from exporter.unique_names import Names


def name_weights(
    model: ModelProto, weights: Mapping[str, LazyArray], weight_nbytes: Mapping[str, int]
) -> dict[str, LazyArray]:
    """Initializers named after the weight that they mostly consist of; returns the lazy ones under their new names.

    A folded kernel keeps the kernel's name; a folded bias, all of whose vectors are of one size, gets the name of the
    one that the fewest other initializers depend on. `weight_nbytes` has the size of each weight of the model.
    """
    uses = Counter(origin for array in weights.values() for origin in array.origins)
    outputs = {value.name for value in model.graph.output}
    inner = list(graphs(model.graph))
    taken = {value.name for graph in inner for value in [*graph.input, *graph.output]}
    taken |= {output for graph in inner for node in graph.node for output in node.output}
    taken |= {proto.name for graph in inner for proto in graph.initializer if proto.name not in weights}
    names = Names(taken)
    renamed: dict[str, str] = {}
    for proto in model.graph.initializer:
        array = weights.get(proto.name)
        if array is not None and array.origins:
            origin = min(array.origins, key=lambda name: (-weight_nbytes.get(name, 0), uses[name], name))
            renamed[proto.name] = names.unique(origin)
        elif proto.name in outputs:
            renamed[proto.name] = names.unique(f"{proto.name}/constant")
    _rename(model.graph, renamed)
    return {renamed.get(name, name): array for name, array in weights.items()}


def _rename(graph: GraphProto, renamed: Mapping[str, str]) -> None:
    """Outputs of the model keep their names: one that is an initializer becomes a copy of it."""
    for value in graph.output:
        if value.name in renamed:
            graph.node.add(op_type="Identity", name=value.name, input=[value.name], output=[value.name])
    for inner in graphs(graph):
        for node in inner.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
        for proto in inner.initializer:
            proto.name = renamed.get(proto.name, proto.name)


def infer_shapes(model: ModelProto, batch: str = "batch") -> ModelProto:
    """The model with a shape on every value that ONNX can infer; dynamic batches are called `batch`.

    Done on the hollow model: `onnx.shape_inference` silently empties models above 2 GB.
    """
    for value in model.graph.input:
        _name_dims(value, batch)
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.ClearField("dim_param")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value in inferred.graph.output:
        _name_dims(value, None)
    return inferred


def _name_dims(value: ValueInfoProto, batch: str | None) -> None:
    """Names for dynamic dimensions that have none, or one that shape inference made up (`unk__7`)."""
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if not (
            dim.HasField("dim_value") or (batch is None and dim.dim_param and not dim.dim_param.startswith("unk_"))
        ):
            dim.dim_param = batch if batch and axis == 0 else f"{value.name}_dim_{axis}"


def describe_nodes(model: ModelProto, layers: NodeLayers) -> tuple[OnnxNode, ...]:
    """Each node with its layer, shapes and dtypes; writes its name and its `namespace`, a piece of metadata.

    The nodes inside of loops and branches get the metadata too.
    """
    matches = layers.match(model.graph.node)
    _name_nodes(model.graph, [layer for layer, _ in matches])
    types = {value.name: value.type.tensor_type for value in _values(model.graph)}
    nodes = []
    for index, (node, (layer, kind)) in enumerate(zip(model.graph.node, matches, strict=True)):
        node.metadata_props.add(key="namespace", value=layer or "")
        for body in subgraphs(node):
            layers.mark(body, layer or "")
        nodes.append(
            OnnxNode(
                index=index,
                name=node.name,
                op_type=node.op_type,
                domain=node.domain,
                namespace=layer or "",
                layer=layer,
                match_kind=kind,
                inputs=tuple(node.input),
                outputs=tuple(node.output),
                output_shapes=tuple(_shape(types.get(name)) for name in node.output),
                output_dtypes=tuple(_dtype(types.get(name)) for name in node.output),
            )
        )
    return tuple(nodes)


def _name_nodes(graph: GraphProto, layers: Iterable[str | None]) -> None:
    """Call each node `layer/Op`, and the values between nodes after the one that makes them: `layer/Op:0`.

    tf2onnx's names are those of TensorFlow's ops, with its counters in them.
    """
    kept = {value.name for value in [*graph.input, *graph.output, *graph.initializer]}
    inside = {name for body in graphs(graph) if body is not graph for node in body.node for name in node.output}
    node_names, value_names = Names(set()), Names(kept | inside)
    renamed: dict[str, str] = {}
    for node, layer in zip(graph.node, layers, strict=True):
        node.name = node_names.unique(f"{layer}/{node.op_type}" if layer else node.op_type)
        for place, name in enumerate(node.output):
            if name and name not in kept:
                renamed[name] = value_names.unique(f"{node.name}:{place}")
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for body in graphs(graph):
        for node in body.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
        for value in [*body.value_info, *(body.output if body is not graph else ())]:
            value.name = renamed.get(value.name, value.name)


def _values(graph: GraphProto) -> Iterable[ValueInfoProto]:
    return [*graph.value_info, *graph.output]


def _shape(kind: onnx.TypeProto.Tensor | None) -> Shape | None:
    if kind is None or not kind.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)


def _dtype(kind: onnx.TypeProto.Tensor | None) -> str | None:
    if kind is None or kind.elem_type == TensorProto.UNDEFINED:
        return None
    return str(helper.tensor_dtype_to_np_dtype(kind.elem_type))


class NodeLayers:
    """Finds the layer of each node, from the surest evidence to the weakest."""

    def __init__(
        self,
        weights: Mapping[str, LazyArray],
        layer_of_weight: Mapping[str, str],
        layer_of_output: Mapping[str, str | None],
        owners: OpOwners,
    ) -> None:
        self._weights, self._layer_of_weight, self._owners = weights, layer_of_weight, owners
        self._layer_of_output = layer_of_output

    def match(self, nodes: Iterable[NodeProto]) -> list[tuple[str | None, str]]:
        nodes = list(nodes)
        found = [self._owners.find(node.name) for node in nodes]
        found = [
            self._by_weight(node) if layer is None else (layer, kind)
            for node, (layer, kind) in zip(nodes, found, strict=True)
        ]
        return self._by_neighbour(nodes, found)

    def mark(self, body: GraphProto, enclosing: str) -> None:
        """Write the namespace of each node inside of a loop or branch, at least that of the loop itself."""
        for node in body.node:
            namespace = self._owners.find(node.name)[0] or enclosing
            node.metadata_props.add(key="namespace", value=namespace)
            for inner in subgraphs(node):
                self.mark(inner, namespace)

    def _by_weight(self, node: NodeProto) -> tuple[str | None, str]:
        for name in used_names(node):
            # An initializer has the name of the weight that it mostly consists of.
            if name in self._layer_of_weight:
                return self._layer_of_weight[name], "weight"
            origins = self._weights[name].origins if name in self._weights else ()
            for origin in sorted(origins):
                if origin in self._layer_of_weight:
                    return self._layer_of_weight[origin], "weight"
        return None, "none"

    def _by_neighbour(
        self, nodes: list[NodeProto], found: list[tuple[str | None, str]]
    ) -> list[tuple[str | None, str]]:
        """A node without a layer takes that of the first producer that has one, else of the first consumer."""
        made_by: dict[str, str] = {}
        for place, node in enumerate(nodes):
            if found[place][0] is None:
                producer = next((made_by[name] for name in node.input if name in made_by), None)
                found[place] = (producer, "neighbour" if producer else "none")
            layer = found[place][0]
            made_by.update({name: layer for name in node.output if layer})
        used_by = {name: layer for name, layer in self._layer_of_output.items() if layer}
        for place in reversed(range(len(nodes))):
            if found[place][0] is None:
                consumer = next((used_by[name] for name in nodes[place].output if name in used_by), None)
                found[place] = (consumer, "neighbour" if consumer else "none")
            layer = found[place][0]
            used_by.update({name: layer for name in used_names(nodes[place]) if layer})
        return found
