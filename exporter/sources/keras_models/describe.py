"""What a Keras model tells about itself for free: its layers, the edges between their calls, and its weights.

The model may be hollow (built in `keras.StatelessScope(initialize_variables=False)`): only the shapes and dtypes of
variables are used, never a value.

Rows come depth first, in the model's own order: a layer, then what is inside it (the operations of a nested model, the
tracked sublayers of any other layer). An object has one row. What a layer lists as its own is its own, even when
something deeper refers to it too, so that the operations of one graph are siblings.

The outermost model has a row only when it holds weights itself (a subclass with `add_weight`): the first one, with the
namespace `""`, at depth 0 beside its layers, whose parent stays None.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import ml_dtypes
import numpy as np

from exporter.records import Edge, Layer, ModelGraph, TensorSpec, Weight
from exporter.sources.keras_models.config_text import config_text
from exporter.unique_names import Names

# What get_config and its serialization raise for layers that cannot be serialized (no get_config, foreign objects,
# attributes that build() would have made, a lambda without source).
UNSERIALIZABLE = (NotImplementedError, TypeError, ValueError, AttributeError, OSError)


@dataclass(frozen=True)
class Place:
    """Where an operation (a layer, or a `keras.ops` call) has its row."""

    item: Any
    namespace: str
    depth: int
    parent: str | None


@dataclass(frozen=True)
class Call:
    """One call of an operation: `node` is Keras's record of it, `number` counts from 0 for each operation."""

    item: Any
    number: int
    node: Any


def describe(model: keras.Model, name: str) -> ModelGraph:
    """The rows, edges and weights of `model`, under the given name; linear in the size of the model.

    A model without a graph of its own (subclassed, or not built) has rows for its sublayers, no edges and no inputs.
    """
    places = _places(model)
    calls = _calls(graph for graph in map(graph_of, [model, *(place.item for place in places)]) if graph)
    edges = tuple(_edges(calls, _namespaces(places)))
    weights = _weights(model, places)
    return ModelGraph(
        name=name,
        inputs=_inputs(model),
        outputs=_outputs(model),
        layers=tuple(_layers(places, calls, edges, weights.values())),
        edges=edges,
        weights=tuple(weights.values()),
    )


def weight_names(model: keras.Model) -> dict[int, str]:
    """The `Weight.name` that `describe` gives, by `id()` of the variable, in the order of `ModelGraph.weights`."""
    return {key: weight.name for key, weight in _weights(model, _places(model)).items()}


def layer_namespaces(model: keras.Model) -> dict[int, str]:
    """The `Layer.namespace` that `describe` gives, by `id()` of the layer or operation, in the order of the rows."""
    return _namespaces(_places(model))


def graph_of(item: Any) -> Any | None:
    """The functional graph inside a model; None for other layers and for models that have none."""
    graph = getattr(item, "_functional", None) if isinstance(item, keras.Sequential) else item
    return graph if isinstance(graph, keras.Function) and isinstance(graph, keras.Model) else None


def _children(item: Any) -> list[Any]:
    """What is directly inside: the operations of its graph, then the tracked sublayers that are not among them."""
    graph = graph_of(item)
    inside = [*(graph.operations if graph else ()), *getattr(item, "_layers", ())]
    return list({id(child): child for child in inside}.values())


def _places(model: keras.Model) -> list[Place]:
    names = Names()
    root = [Place(model, names.unique(""), 0, None)] if _own_variables(model) else []
    return root + list(_places_inside(model, None, 0, {id(model)}, names))


def _places_inside(item: Any, parent: str | None, depth: int, seen: set[int], names: Names) -> Iterator[Place]:
    new = [child for child in _children(item) if id(child) not in seen]
    seen.update(map(id, new))
    for child in new:
        namespace = names.unique(child.name if parent is None else f"{parent}/{child.name}")
        yield Place(child, namespace, depth, parent)
        yield from _places_inside(child, namespace, depth + 1, seen, names)


def _namespaces(places: Iterable[Place]) -> dict[int, str]:
    return {id(place.item): place.namespace for place in places}


def _calls(graphs: Iterable[Any]) -> dict[int, Call]:
    """The calls that belong to these graphs, by `id()` of the node: a layer may have been called in other models too.

    A node that several graphs share (a model and an extractor of its features) counts once.
    """
    calls: dict[int, Call] = {}
    numbers: Counter[int] = Counter()
    for graph in graphs:
        members = {id(node) for nodes in graph._nodes_by_depth.values() for node in nodes}
        for item in graph.operations:
            for node in item._inbound_nodes:
                if id(node) in members and id(node) not in calls:
                    calls[id(node)] = Call(item, numbers[id(item)], node)
                    numbers[id(item)] += 1
    return calls


def _edges(calls: dict[int, Call], namespaces: dict[int, str]) -> Iterator[Edge]:
    for call in calls.values():
        for position, tensor in enumerate(call.node.input_tensors):
            item, node_index, output = tensor._keras_history
            source = calls.get(id(item._inbound_nodes[node_index])) if item else None
            if source:
                yield Edge(
                    source=namespaces[id(item)],
                    source_call=source.number,
                    source_output=output,
                    target=namespaces[id(call.item)],
                    target_call=call.number,
                    target_input=position,
                    shape=tuple(tensor.shape),
                    dtype=tensor.dtype,
                )


def _own_variables(item: Any) -> list[Any]:
    """The weights that a layer holds itself: no seeds, no metrics, none of its sublayers'."""
    return [*getattr(item, "_trainable_variables", ()), *getattr(item, "_non_trainable_variables", ())]


def _weights(model: keras.Model, places: Iterable[Place]) -> dict[int, Weight]:
    """Each weight once, by `id()` of its variable, with the first row that holds it."""
    weights: dict[int, Weight] = {}
    names = Names()
    for place in places:
        for variable in _own_variables(place.item):
            if id(variable) not in weights:
                name = _weight_name(variable, place, names)
                weights[id(variable)] = _weight(variable, name, place, trainable=bool(model.trainable))
    return weights


def _weight_name(variable: Any, place: Place, names: Names) -> str:
    """Keras's path; it is not unique when nested models were built apart, then the namespace helps."""
    path = variable.path
    return names.unique(f"{place.namespace}/{variable.name}" if path in names.taken and place.namespace else path)


def _weight(variable: Any, name: str, place: Place, trainable: bool) -> Weight:
    shape = tuple(int(size) for size in variable.shape)
    dtype = str(variable.dtype)
    nbytes = math.prod(shape) * _itemsize(dtype)
    return Weight(name, place.namespace, shape, dtype, nbytes, trainable and bool(variable.trainable))


def _itemsize(dtype: str) -> int:
    """Bytes of one element as NumPy holds it. Keras packs int4 into int8 variables, which say so themselves."""
    return np.dtype(getattr(ml_dtypes, dtype, dtype)).itemsize


def _layers(
    places: Iterable[Place], calls: dict[int, Call], edges: Iterable[Edge], weights: Iterable[Weight]
) -> Iterator[Layer]:
    first = {id(call.item): call.node for call in calls.values() if call.number == 0}
    count = Counter(id(call.item) for call in calls.values())
    sources: dict[str, dict[str, None]] = {}
    for edge in edges:
        sources.setdefault(edge.target, {})[edge.source] = None
    own: dict[str, list[Weight]] = {}
    for weight in weights:
        own.setdefault(weight.layer, []).append(weight)
    for index, place in enumerate(places):
        node = first.get(id(place.item))
        held = own.get(place.namespace, [])
        yield Layer(
            index=index,
            name=place.item.name,
            class_name=type(place.item).__name__,
            namespace=place.namespace,
            depth=place.depth,
            parent=place.parent,
            trainable=bool(getattr(place.item, "trainable", False)),
            inputs=None if node is None else _specs(node.input_tensors),
            outputs=None if node is None else _specs(node.outputs),
            params=sum(math.prod(weight.shape) for weight in held),
            params_trainable=sum(math.prod(weight.shape) for weight in held if weight.trainable),
            params_total=sum(math.prod(variable.shape) for variable in getattr(place.item, "weights", ())),
            weight_bytes=sum(weight.nbytes for weight in held),
            calls=count[id(place.item)],
            connected_to=tuple(sources.get(place.namespace, ())),
            config=_config(place.item),
        )


def _specs(tensors: Iterable[Any]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(_tensor_name(tensor), tuple(tensor.shape), tensor.dtype) for tensor in tensors)


def _tensor_name(tensor: Any) -> str:
    """The operation that made it, with `:1` and so on for further outputs: Keras's own name is a global counter."""
    item, _, output = tensor._keras_history
    name = item.name if item else tensor.name
    return f"{name}:{output}" if output else name


def _inputs(model: keras.Model) -> tuple[TensorSpec, ...]:
    graph = graph_of(model)
    return _specs(graph.inputs) if graph else ()


def _outputs(model: keras.Model) -> tuple[TensorSpec, ...]:
    """In Keras's flat order, with the keys of a dict of outputs, otherwise the layers' names, made unique.

    No output has the name of an input either: in ONNX both are values of one graph.
    """
    graph = graph_of(model)
    if not graph:
        return ()
    names = Names(spec.name for spec in _inputs(model))
    keys = _output_keys(graph._outputs_struct)
    wanted = [key or layer for key, layer in zip(keys, graph.output_names, strict=True)]
    return tuple(
        TensorSpec(names.unique(name), tuple(tensor.shape), tensor.dtype)
        for name, tensor in zip(wanted, graph.outputs, strict=True)
    )


def _output_keys(struct: Any) -> list[str]:
    """For each output in flat order its key in the dictionary of outputs, if it is one; one tensor may have several."""
    if not isinstance(struct, dict):
        return [""] * len(keras.tree.flatten(struct))
    named = struct.copy()
    for key, value in struct.items():
        inside = keras.tree.map_structure(lambda _: "", value)
        named[key] = str(key) if inside == "" else inside
    return [str(key) for key in keras.tree.flatten(named)]


def _config(item: Any) -> str:
    """The layer's settings as JSON text; `{}` when it cannot say. A model's inner layers are left to their rows."""
    if isinstance(item, keras.Model):
        return config_text({"class_name": type(item).__name__, "name": item.name, "trainable": bool(item.trainable)})
    try:
        return config_text(keras.saving.serialize_keras_object(item.get_config() or {}))
    except UNSERIALIZABLE:
        return "{}"
