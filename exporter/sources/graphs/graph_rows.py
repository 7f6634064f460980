"""The catalogue of a TensorFlow graph: rows from names of operations, or of layers where they are known."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.records import ModelGraph, Shape, TensorSpec, Weight
from exporter.sources.conversion.tracing import OpOwners, claim_scope
from exporter.sources.conversion.weight_arithmetic import FOLDERS
from exporter.sources.graphs.graph_names import namespaces, weight_name
from exporter.sources.graphs.graph_walk import followed, node_name, tensor_name
from exporter.sources.graphs.hollow_graph import HOLLOW_OP
from exporter.sources.graphs.inlined_graph import INPUTS, InlinedGraph, data_inputs
from exporter.sources.graphs.scope_rows import ROOT, ScopeRows
from exporter.sources.graphs.tensorflow_types import numpy_dtype, type_name
from exporter.unique_names import Names

if TYPE_CHECKING:
    from exporter.sources.graphs.graph_source import GraphParts

# Ops whose outputs are their inputs.
SAME = ("Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot")
NO_ROWS = (*SAME, *INPUTS, HOLLOW_OP, "Const", "NoOp")
# Ops that are done on weights before the model runs, if nothing else goes in.
COMBINING = {*FOLDERS, "ConcatV2", "Pack"} - {*SAME}
LONGEST_SETTING = 200


@dataclass
class GraphRows:
    """`weight_names` has the name of each weight by the key of its value, `owners` the row of each operation."""

    graph: ModelGraph
    weight_names: dict[str, str] = field(default_factory=dict)
    owners: OpOwners = field(default_factory=OpOwners)


def describe_graph(inlined: InlinedGraph, parts: GraphParts, name: str) -> GraphRows:
    """Linear in operations and tensors."""
    return _Description(inlined, parts).rows(name)


class _Description:
    def __init__(self, inlined: InlinedGraph, parts: GraphParts) -> None:
        self.inlined, self.parts = inlined, parts
        self.same = dict(_same(inlined.graph_def.node))
        self.combining = self._combining()
        self.nodes = [n for n in inlined.graph_def.node if n.op not in NO_ROWS and n.name not in self.combining]
        self.shown = self._shown_names()
        self.known_as = {shown: tensor for tensor, shown in self.shown.items()}
        holders = dict(self._holders())
        operations = [(node.name, node.op) for node in self.nodes]
        self.layers = namespaces(operations, parts.known, holders)
        self.makers = {node.name: layer for node, layer in zip(self.nodes, self.layers, strict=True)}
        self.scopes = ScopeRows(self._shape_and_dtype, self._known())

    def rows(self, name: str) -> GraphRows:
        input_rows = self._input_rows()
        readers = self._connect(input_rows)
        weights = self._weights(readers)
        for weight in weights.values():
            self.scopes.hold(weight)
        for tensor in self.inlined.outputs:
            self._give_output(self.resolved(tensor), input_rows)
        graph = ModelGraph(
            name=name,
            inputs=self._specs_of(self.parts.inputs, self.inlined.inputs),
            outputs=self._specs_of(self.parts.outputs, self.inlined.outputs),
            layers=tuple(self.scopes.rows(set(input_rows.values()))),
            edges=tuple(self.scopes.edges.values()),
            weights=tuple(weights.values()),
            level="layer" if self.parts.known else "scope",
        )
        return GraphRows(graph, {key: weight.name for key, weight in weights.items()}, self._owners())

    def resolved(self, tensor: str) -> str:
        """The tensor that this one is a copy of."""
        return followed(tensor_name(tensor), self.same.get)

    def _shown_names(self) -> dict[str, str]:
        """Names for the outside of inputs and outputs, by tensor."""
        shown: dict[str, str] = {}
        ends = [
            *zip(self.parts.outputs, self.inlined.outputs, strict=True),
            *zip(self.parts.inputs, self.inlined.inputs, strict=True),
        ]
        for (name, _), tensor in ends:
            shown[self.resolved(tensor)] = name
        return shown

    def _shape_and_dtype(self, shown: str) -> tuple[Shape | None, str | None]:
        tensor = self.known_as.get(shown, tensor_name(shown))
        return self.inlined.specs.get(tensor, (None, None))

    def _show(self, tensor: str) -> str:
        plain = tensor.removesuffix(":0")
        return self.shown.get(tensor) or (tensor if plain in self.known_as else plain)

    def _key(self, tensor: str) -> str | None:
        """The key of the weight that the tensor is."""
        return self.inlined.weights.get(node_name(tensor)) if tensor.endswith(":0") else None

    def _combining(self) -> dict[str, Any]:
        """Operations that only combine weights, by name: they are done once, and are no part of a layer's work."""
        found: dict[str, Any] = {}
        constants = {node.name for node in self.inlined.graph_def.node if node.op == "Const"}
        for node in self.inlined.graph_def.node:
            if node.op in COMBINING:
                makers = [node_name(self.resolved(tensor)) for tensor in data_inputs(node)]
                given = [name for name in makers if name in found or name in self.inlined.weights]
                if given and all(name in found or name in constants or name in self.inlined.weights for name in makers):
                    found[node.name] = node
        return found

    def _keys_under(self, tensor: str, seen: set[str]) -> Iterator[str]:
        """The weights that a tensor is made of, unless they have been seen."""
        stack = [tensor]
        while stack:
            tensor = stack.pop()
            name = node_name(tensor)
            if name in seen:
                continue
            if (key := self._key(tensor)) is not None:
                seen.add(name)
                yield key
            elif name in self.combining:
                seen.add(name)
                stack.extend(reversed([self.resolved(each) for each in data_inputs(self.combining[name])]))

    def _holders(self) -> Iterator[tuple[str, str]]:
        """The name of a weight for each operation that takes one."""
        seen: set[str] = set()
        for node in self.nodes:
            for tensor in data_inputs(node):
                for key in self._keys_under(self.resolved(tensor), seen):
                    if key in self.parts.values and self.parts.values[key].name:
                        yield node.name, self.parts.values[key].name

    def _known(self) -> dict[str, Any]:
        """What is known of layers, by namespace: the last part of it is the layer's name."""
        found: dict[str, Any] = {}
        for layer in dict.fromkeys(self.layers):
            while layer:
                if (known := self.parts.known.get(layer.rpartition("/")[2])) is not None:
                    found[layer] = known
                layer = layer.rpartition("/")[0]
        return found

    def _input_rows(self) -> dict[str, str]:
        """The row of each input, which no layer may have the name of, by tensor."""
        taken = Names(self.layers)
        rows = {}
        for (name, _), tensor in zip(self.parts.inputs, self.inlined.inputs, strict=True):
            plain = name.replace("/", ".")
            rows[tensor] = taken.unique(f"{plain} (input)" if plain in taken.taken else plain)
            self.scopes.member(rows[tensor]).gives[self._show(tensor)] = 0
        return rows

    def _connect(self, input_rows: Mapping[str, str]) -> dict[str, str]:
        """Adds operations and edges; returns the first layer that takes each weight, by the weight's key."""
        readers: dict[str, str] = {}
        seen: set[str] = set()
        for index, (node, layer) in enumerate(zip(self.nodes, self.layers, strict=True)):
            self.scopes.add(layer, index, node.op, partial(_settings, node))
        for node, layer in zip(self.nodes, self.layers, strict=True):
            for tensor in map(self.resolved, data_inputs(node)):
                maker = input_rows.get(tensor) or self.makers.get(node_name(tensor))
                readers.update(dict.fromkeys(self._keys_under(tensor, seen), layer))
                if maker is not None and maker != layer:
                    self.scopes.connect(maker, layer, self._show(tensor))
        return readers

    def _give_output(self, tensor: str, input_rows: Mapping[str, str]) -> None:
        layer = input_rows.get(tensor) or self.makers.get(node_name(tensor))
        if layer is not None:
            self.scopes.give(layer, self._show(tensor))

    def _weights(self, readers: Mapping[str, str]) -> dict[str, Weight]:
        """By key, in the order in which they are taken."""
        order = {key: place for place, key in enumerate(readers)}
        names = Names()
        found: dict[str, Weight] = {}
        nodes = {key: node for node, key in reversed(self.inlined.weights.items())}
        for key, node in sorted(nodes.items(), key=lambda item: order.get(item[0], len(order))):
            value = self.parts.values.get(key)
            name = names.unique((value.name if value else "") or weight_name(node) or node)
            trainable = bool(value and value.trainable)
            shape, dtype = self._shape_of_weight(key)
            nbytes = math.prod(shape) * dtype.itemsize
            found[key] = Weight(name, readers.get(key, ROOT), shape, dtype.name, nbytes, trainable)
        return found

    def _shape_of_weight(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        """Those of the value, otherwise what the graph says of the variable; sizes that it leaves open count as 0."""
        value, node = self.parts.values.get(key), self.inlined.hollow[key]
        array = value.array if value else self.inlined.small.get(key)
        if array is not None:
            return array.shape, array.dtype
        shape = tuple(max(0, dim.size) for dim in node.attr["shape"].shape.dim)
        return shape, numpy_dtype(node.attr["dtype"].type) or np.dtype(object)

    def _specs_of(self, named: Iterable[tuple[str, str]], tensors: Iterable[str]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name, *self.inlined.specs.get(tensor, (None, None)))
            for (name, _), tensor in zip(named, tensors, strict=True)
        )

    def _owners(self) -> OpOwners:
        """By scopes alone: the names say where an operation is, nobody saw it being made."""
        owners = OpOwners(by_scope=dict(self.makers))
        for name, layer in self.makers.items():
            claim_scope(owners.by_scope, name.rpartition("/")[0], layer)
        for node in self.inlined.graph_def.node:
            maker = self.makers.get(node_name(self.resolved(node.name))) if node.op in SAME else None
            if maker is not None:
                owners.by_scope.setdefault(node.name, maker)
        return owners


def _same(nodes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        if node.op in SAME:
            yield from ((f"{node.name}:{place}", tensor_name(name)) for place, name in enumerate(data_inputs(node)))


def _settings(node: Any) -> str:
    """The node's attributes as JSON, without those that TensorFlow keeps for itself; functions by their names."""
    found = {key: _setting(value) for key, value in node.attr.items() if not key.startswith("_")}
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def _setting(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "list":
        lists = value.list
        plain = [*lists.i, *lists.b, *(_number(each) for each in lists.f), *map(_text, lists.s)]
        return [*plain, *map(type_name, lists.type), *map(_shape, lists.shape)][:LONGEST_SETTING]
    if kind in ("i", "b"):
        return getattr(value, kind)
    if kind == "f":
        return _number(value.f)
    if kind == "tensor":
        return f"{type_name(value.tensor.dtype)}{_shape(value.tensor.tensor_shape)}"
    if kind == "func":
        return value.func.name
    if kind == "s":
        return _text(value.s)
    if kind == "type":
        return type_name(value.type)
    return _shape(value.shape) if kind == "shape" else None


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _text(value: bytes) -> str:
    return value[:LONGEST_SETTING].decode("utf-8", "replace")


def _shape(shape: Any) -> list[int | None] | None:
    return None if shape.unknown_rank else [None if dim.size < 0 else dim.size for dim in shape.dim]
