"""The flat graph that a view is made of: its nodes in drawing order, and what they read, make and stand for.

Constants (initializers and `Constant` nodes) are kept apart: they are drawn in the box of whatever reads them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from exporter.formats.view_model.facts import NO_FACTS, LayerFacts
from exporter.formats.view_model.order import drawing_order

NAMESPACE = "namespace"


@dataclass(frozen=True)
class Flat:
    """`nodes[i]` reads `reads[i]`, tensors that other nodes or the model's inputs make; `paths[i]` is its namespace.

    `last_use` is the position of the last node that reads a tensor; beyond all nodes for an output of the model.
    `uses` counts the nodes that read a tensor. `hidden[i]` are tensors that only the loops and branches inside of a
    node read, by name.
    """

    nodes: list[NodeProto]
    reads: list[tuple[str, ...]]
    hidden: list[frozenset[str]]
    paths: list[tuple[str, ...]]
    macs: list[int | None]
    facts: list[LayerFacts]
    layers: Mapping[str, LayerFacts]
    constants: Mapping[str, TensorProto]
    types: Mapping[str, ValueInfoProto]
    inputs: Sequence[ValueInfoProto]
    outputs: Sequence[ValueInfoProto]
    last_use: dict[str, int] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)

    def made(self, place: int) -> tuple[str, ...]:
        return tuple(name for name in self.nodes[place].output if name)

    def name(self, place: int) -> str:
        """That of the node, or of its first output where it has none."""
        node = self.nodes[place]
        return node.name or next(iter(self.made(place)), node.op_type)

    def weights(self, place: int) -> tuple[str, ...]:
        """The constants that a node reads; those of the loops inside it too."""
        names = (*self.nodes[place].input, *sorted(self.hidden[place]))
        return tuple(dict.fromkeys(name for name in names if name in self.constants))


def flat(model: ModelProto, facts: Mapping[str, LayerFacts], macs: Sequence[int | None]) -> Flat:
    """`facts` are by the layer's namespace, `macs` one for each node of the graph, or empty where nothing is known."""
    graph = model.graph
    constants = _constants(graph)
    numbers = [index for index, node in enumerate(graph.node) if constant_value(node) is None]
    hidden = [_hidden_reads(graph.node[index]) for index in numbers]
    reads = [
        tuple(name for name in dict.fromkeys((*graph.node[index].input, *sorted(inner))) if name not in constants)
        for index, inner in zip(numbers, hidden, strict=True)
    ]
    known = {name for index in numbers for name in graph.node[index].output} | {value.name for value in graph.input}
    reads = [tuple(name for name in names if name in known and name) for names in reads]
    made = [tuple(filter(None, graph.node[index].output)) for index in numbers]
    paths = [path_of(graph.node[index]) for index in numbers]
    order = drawing_order(reads, made, paths)
    found = Flat(
        nodes=[graph.node[numbers[place]] for place in order],
        reads=[reads[place] for place in order],
        hidden=[hidden[place] for place in order],
        paths=[paths[place] for place in order],
        macs=[macs[numbers[place]] if macs else None for place in order],
        facts=[facts.get("/".join(paths[place]), NO_FACTS) for place in order],
        layers=facts,
        constants=constants,
        types={value.name: value for value in (*graph.value_info, *graph.output, *graph.input)},
        inputs=[value for value in graph.input if value.name not in constants],
        outputs=list(graph.output),
    )
    for place, names in enumerate(found.reads):
        found.uses.update(names)
        found.last_use.update(dict.fromkeys(names, place))
    found.last_use.update((value.name, len(order)) for value in graph.output)
    return found


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    found = {proto.name: proto for proto in graph.initializer}
    for node in graph.node:
        value = constant_value(node)
        if value is not None:
            found[node.output[0]] = value
    for sparse in graph.sparse_initializer:
        found[sparse.values.name] = TensorProto(data_type=sparse.values.data_type, dims=sparse.dims)
    return found


def constant_value(node: NodeProto) -> TensorProto | None:
    """The tensor of a `Constant` node; None for other nodes and for those with another kind of value."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    return next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)


def path_of(node: NodeProto) -> tuple[str, ...]:
    """The namespace as its parts: the one in the node's metadata, or what its name says before the last slash."""
    for entry in node.metadata_props:
        if entry.key == NAMESPACE:
            return tuple(filter(None, entry.value.split("/")))
    return tuple(filter(None, node.name.split("/")[:-1]))


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _hidden_reads(node: NodeProto) -> frozenset[str]:
    """What the loops and branches of a node take from around them."""
    return frozenset(name for body in bodies(node) for name in _free_names(body))


def _free_names(graph: GraphProto) -> set[str]:
    made = {value.name for value in graph.input} | {proto.name for proto in graph.initializer}
    made.update(name for node in graph.node for name in node.output)
    read = {name for node in graph.node for name in (*node.input, *_hidden_reads(node))}
    return (read | {value.name for value in graph.output}) - made - {""}


def elements(tensor: TensorProto) -> int:
    return math.prod(tensor.dims)
