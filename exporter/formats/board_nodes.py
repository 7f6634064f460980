"""A model as graph viewers with a hierarchy take it: nodes in scopes, links between them, and facts about each.

There are two such graphs: of the layers, and of the nodes of the ONNX file that was made in the same run. Weights are
in neither; what they are and cost stands at the node that uses them.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from exporter.formats.node_style import settings, trait
from exporter.formats.scopes import Scope, Scopes
from exporter.formats.wiring import Link, Wiring
from exporter.records import Cost, Layer, Material, OnnxNode, TensorSpec, Weight
from exporter.unique_names import Names

# Of a layer's settings, so many are shown: those of a layer of one's own could be a table of thousands.
MOST_SETTINGS = 32
Fact = str | int
UNKNOWN = Cost(None, None, None, None)


@dataclass(frozen=True, slots=True)
class BoardNode:
    """`key` is unique in its graph, `name` short, `label` what equal nodes have in common where that is not the name.

    `layer` is the layer that this is or belongs to, `onnx` the node of the ONNX file that this is.
    `params` counts the elements of the weights that this node is the first to use, `weights` names all it uses.
    """

    key: str
    name: str
    scope: Scope
    op: str
    links: tuple[Link, ...]
    outputs: tuple[TensorSpec, ...]
    layer: Layer | None = None
    onnx: OnnxNode | None = None
    cost: Cost = UNKNOWN
    params: int | None = None
    weights: tuple[str, ...] = ()
    label: str = ""


class LayerBoard:
    """The graph of layers. Nested models are scopes, with links through their inputs and outputs."""

    def __init__(self, material: Material, scopes: Scopes) -> None:
        self._material, self._scopes = material, scopes
        self._wiring = Wiring(scopes.hierarchy)
        self._weights = weights_of_layers(material.graph.weights)
        self._costs = material.costs.layers if material.costs else {}

    def __iter__(self) -> Iterator[BoardNode]:
        for layer in self._material.graph.layers:
            scope = self._scopes.drawn(layer)
            if scope is not None:
                yield self._node(layer, scope)

    def _node(self, layer: Layer, scope: Scope) -> BoardNode:
        return BoardNode(
            # The outermost model has a row without a namespace when it holds weights itself.
            key=layer.namespace or f"{layer.name} (model)",
            name=layer.name,
            scope=scope,
            op=layer.class_name,
            links=tuple(self._wiring.into.get(layer.namespace, ())),
            outputs=layer.outputs or (),
            layer=layer,
            cost=self._costs.get(layer.namespace, UNKNOWN),
            params=layer.params,
            weights=self._weights.get(layer.namespace, ()),
        )


class NodeBoard:
    """The graph of the ONNX file, with its inputs and outputs; each node is in the scope of its layer."""

    def __init__(self, material: Material, scopes: Scopes) -> None:
        self._material, self._scopes = material, scopes
        self._nodes = material.nodes or ()
        keys = Names()
        self._keys = [keys.unique(node.name or node.op_type) for node in self._nodes]
        graph = material.graph
        self._inputs = [(keys.unique(spec.name), spec) for spec in graph.inputs]
        self._outputs = [(keys.unique(f"{spec.name} (output)"), spec) for spec in graph.outputs]
        self._makers = {name: place for place, node in enumerate(self._nodes) for name in node.outputs if name}
        self._initializers = weights_of_initializers(material)
        self._given = {spec.name: key for key, spec in self._inputs}

    def __iter__(self) -> Iterator[BoardNode]:
        for key, spec in self._inputs:
            yield BoardNode(key, spec.name, (), "Input", (), (spec,))
        seen: set[str] = set()
        for place, node in enumerate(self._nodes):
            new = [name for name in dict.fromkeys(node.inputs) if name in self._initializers and name not in seen]
            seen.update(new)
            yield self._node(place, node, sum(self._initializers[name][0] for name in new))
        for key, spec in self._outputs:
            yield BoardNode(key, f"{spec.name} (output)", (), "Output", tuple(self._links([spec.name])), ())

    def _node(self, place: int, node: OnnxNode, params: int) -> BoardNode:
        layer = self._scopes.hierarchy.by_name.get(node.layer) if node.layer else None
        around = layer.namespace if layer else node.namespace
        scope = self._scopes.inside(layer) if layer else tuple(filter(None, node.namespace.split("/")))
        *inner, name = filter(None, (self._keys[place].removeprefix(f"{around}/") or node.op_type).split("/"))
        shapes = zip(node.outputs, node.output_shapes, node.output_dtypes, strict=True)
        return BoardNode(
            key=self._keys[place],
            name=name,
            scope=(*scope, *inner),
            op=node.op_type,
            links=tuple(self._links(node.inputs)),
            outputs=tuple(TensorSpec(*output) for output in shapes),
            layer=layer,
            onnx=node,
            cost=node.cost or UNKNOWN,
            params=params,
            label=node.op_type,
            weights=tuple(weight for name in node.inputs for weight in self._initializers.get(name, (0, ()))[1]),
        )

    def _links(self, names: Iterable[str]) -> Iterator[Link]:
        """From the nodes and inputs that deliver these tensors; constants come from nowhere."""
        for name in names:
            if name in self._makers:
                place = self._makers[name]
                maker = self._nodes[place]
                number = maker.outputs.index(name)
                yield Link(self._keys[place], number, maker.output_shapes[number], maker.output_dtypes[number])
            elif name in self._given:
                yield Link(self._given[name], 0)


def weights_of_layers(weights: Iterable[Weight]) -> dict[str, tuple[str, ...]]:
    names: dict[str, list[str]] = defaultdict(list)
    for weight in weights:
        names[weight.layer].append(weight.name)
    return {layer: tuple(found) for layer, found in names.items()}


def weights_of_initializers(material: Material) -> dict[str, tuple[int, tuple[str, ...]]]:
    """By the name of each initializer made from weights: how many elements it has, and of which weights it is made.

    In a source that is an ONNX file itself, weights go by the names of their initializers.
    """
    if material.stored is None:
        return {weight.name: (math.prod(weight.shape), (weight.name,)) for weight in material.graph.weights}
    elements: dict[str, int] = {}
    names: dict[str, list[str]] = defaultdict(list)
    for stored in material.stored:
        # The first number in a type's name is its number of bits: `bfloat16`, `float8_e4m3fn`, `int4`; not in `bool`.
        bits = re.search(r"\d+", stored.dtype)
        elements[stored.initializer] = stored.data_nbytes * 8 // int(bits[0] if bits else 8)
        names[stored.initializer].append(stored.weight)
    return {initializer: (elements[initializer], tuple(found)) for initializer, found in names.items()}


def facts(node: BoardNode) -> dict[str, Fact]:
    """What is known about a node, in the order to be shown."""
    known: dict[str, Fact] = {}
    if node.onnx:
        known = node_facts(node.onnx, node.layer)
    elif node.layer:
        known = layer_facts(node.layer)
    return known | cost_facts(node.cost)


def layer_facts(layer: Layer) -> dict[str, Fact]:
    known: dict[str, Fact] = {
        "class": layer.class_name,
        "kind": trait(layer),
        "layer": layer.namespace,
        "parameters": layer.params_total,
        "trainable": "yes" if layer.trainable else "no",
    }
    return known | ({"calls": layer.calls} if layer.calls != 1 else {})


def node_facts(node: OnnxNode, layer: Layer | None) -> dict[str, Fact]:
    known: dict[str, Fact] = {"op": f"{node.domain}.{node.op_type}" if node.domain else node.op_type}
    if layer:
        known |= {"layer": layer.namespace, "layer class": layer.class_name, "layer found by": node.match_kind}
    return known


def cost_facts(cost: Cost) -> dict[str, Fact]:
    """What is known about a node's costs; see `exporter.costs.counting` for what is counted."""
    found = {"MACs": cost.macs, "FLOPs": cost.flops, "activation bytes": cost.activation_bytes}
    return {name: number for name, number in found.items() if number is not None}


def setting_facts(layer: Layer) -> dict[str, Fact]:
    """The layer's plain settings, as `settings: kernel_size`."""
    plain = ((key, value) for key, value in sorted(settings(layer).items()) if key not in ("name", "trainable"))
    texts = {f"settings: {key}": _text(value) for key, value in plain if not isinstance(value, dict)}
    return {key: text for key, text in list(texts.items())[:MOST_SETTINGS] if text}


def _text(value: object) -> str:
    return "" if value is None else str(value)
