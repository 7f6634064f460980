"""From a model's config and the shapes of its weights to its description: the rows that `sources.describe` gives.

Linear in layers and edges; the tensors of a call carry the shapes of what came before, so that only the outputs of the
model have to be worked out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from exporter.lazy import LazyArray
from exporter.readers import Unexplained
from exporter.readers.keras_model import RawLayer, RawModel
from exporter.readers.keras_names import stored_name
from exporter.readers.keras_outputs import Outputs
from exporter.readers.keras_quantised import OwnWeight
from exporter.records import Edge, Layer, ModelGraph, TensorSpec, Weight
from exporter.unique_names import Names


@dataclass(frozen=True, slots=True)
class Stored:
    """A weight in a file; `name` is what the file calls it, for layers whose weights have no known names.

    `value` is there when it is going to be read.
    """

    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    name: str
    value: LazyArray | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer has its row. `stored` is where the file has its weights, `path` what their names start with."""

    layer: RawLayer
    namespace: str
    depth: int
    parent: str | None
    stored: str
    path: str


# The weights of each layer in a file, in its order; given the layers in the order of their rows.
StoredWeights = Callable[[list[Place]], Iterable[list[Stored]]]


def describe(
    model: RawModel, name: str, stored: StoredWeights, *, lenient: bool = False
) -> tuple[ModelGraph, dict[str, LazyArray]]:
    """The description, and the values of the weights as far as `stored` has them. Raises Unexplained.

    With `lenient`, shapes that cannot be worked out are unknown.
    """
    places = list(_places(model, None, Names()))
    weights, values = [], {}
    for weight, value in _weights(places, stored, model.trainable):
        weights.append(weight)
        if value is not None:
            values[weight.name] = value.named(weight.name)
    outer = Outputs(model, lenient=lenient)
    edges = tuple(_edges(model, None, _by_parent(places)))
    graph = ModelGraph(
        name=name,
        inputs=tuple(TensorSpec(layer, *outer.spec((layer, call, output))) for layer, call, output in model.inputs),
        outputs=_outputs(model, outer),
        layers=tuple(_rows(outer, places, edges, weights)),
        edges=edges,
        weights=tuple(weights),
    )
    return graph, values


def _places(model: RawModel, parent: Place | None, names: Names) -> Iterator[Place]:
    used: dict[str, int] = {}
    scope = f"{parent.layer.name if parent else model.name}/" if model.is_scope else ""
    for layer in model.layers:
        group = f"layers/{stored_name(layer.class_name, used)}" if layer.is_layer else ""
        yield from _with_inner(layer, parent, group, names, scope)


def _with_inner(layer: RawLayer, parent: Place | None, group: str, names: Names, scope: str = "") -> Iterator[Place]:
    """The layer, and what is inside it; `group` is where its weights are below those of its parent."""
    stored = f"{parent.stored if parent else ''}{group}/" if group else ""
    path = f"{parent.path}/{layer.name}" if parent and layer.is_made else f"{scope}{layer.name}"
    namespace = names.unique(f"{parent.namespace}/{layer.name}" if parent else layer.name)
    depth, above = (parent.depth + 1, parent.namespace) if parent else (0, None)
    place = Place(layer, namespace, depth, above, stored, path)
    yield place
    if layer.model:
        yield from _places(layer.model, place, names)
    for inner in layer.inside:
        yield from _with_inner(inner, place, inner.stored, names)


def _weights(places: list[Place], stored: StoredWeights, trainable: bool) -> Iterator[tuple[Weight, LazyArray | None]]:
    """Each weight with Keras's path; where that is taken, in nested models, the namespace helps."""
    names = Names()
    for place, found in zip(places, stored(places), strict=True):
        layer = place.layer
        known = [OwnWeight(each.name, True) for each in found] if layer.weights is None else layer.weights
        if len(found) != len(known):
            raise Unexplained(f"{place.namespace} has {len(found)} weights in the file")
        for weight, each in zip(known, found, strict=True):
            own = weight.name
            path = own if own.startswith(f"{place.path}/") else f"{place.path}/{own}"
            name = names.unique(f"{place.namespace}/{own}" if path in names.taken else path)
            is_trained = trainable and weight.changes and layer.trainable
            yield Weight(name, place.namespace, each.shape, each.dtype, each.nbytes, is_trained), each.value


def _edges(model: RawModel, parent: str | None, inside: dict[str | None, dict[str, Place]]) -> Iterator[Edge]:
    """Of this model, then of those inside, in the order of the rows."""
    here = inside.get(parent, {})
    for layer in model.layers:
        for number, refs in enumerate(layer.calls):
            for position, ref in enumerate(refs):
                if ref.layer not in here:
                    raise Unexplained(f"a tensor of {ref.layer}, which is no layer of the model")
                source, target = here[ref.layer].namespace, here[layer.name].namespace
                yield Edge(source, ref.call, ref.output, target, number, position, ref.shape, ref.dtype)
    for layer in model.layers:
        yield from _edges_inside(here[layer.name], inside)


def _edges_inside(place: Place, inside: dict[str | None, dict[str, Place]]) -> Iterator[Edge]:
    if place.layer.model:
        yield from _edges(place.layer.model, place.namespace, inside)
    for inner in place.layer.inside:
        yield from _edges_inside(inside[place.namespace][inner.name], inside)


def _by_parent(places: Iterable[Place]) -> dict[str | None, dict[str, Place]]:
    inside: dict[str | None, dict[str, Place]] = {}
    for place in places:
        inside.setdefault(place.parent, {})[place.layer.name] = place
    return inside


def _outputs(model: RawModel, outer: Outputs) -> tuple[TensorSpec, ...]:
    """With the keys of a dictionary of outputs, otherwise the layers' names; none twice, and none an input's."""
    names = Names(layer for layer, _, _ in model.inputs)
    return tuple(TensorSpec(names.unique(key or place[0]), *outer.spec(place)) for key, place in model.outputs)


def _rows(outer: Outputs, places: list[Place], edges: Iterable[Edge], weights: Iterable[Weight]) -> Iterator[Layer]:
    own: dict[str, list[Weight]] = {}
    for weight in weights:
        own.setdefault(weight.layer, []).append(weight)
    sources: dict[str, dict[str, None]] = {}
    for edge in edges:
        sources.setdefault(edge.target, {})[edge.source] = None
    outputs: dict[str | None, Outputs] = {None: outer}
    for place in places:
        if place.layer.model:
            outputs[place.namespace] = Outputs(place.layer.model, lenient=outer.lenient)
    totals = _totals(places, own)
    for index, place in enumerate(places):
        layer, held = place.layer, own.get(place.namespace, [])
        yield Layer(
            index=index,
            name=layer.name,
            class_name=layer.class_name,
            namespace=place.namespace,
            depth=place.depth,
            parent=place.parent,
            trainable=layer.trainable,
            inputs=_inputs(layer),
            outputs=_first_outputs(layer, outputs.get(place.parent)),
            params=sum(math.prod(weight.shape) for weight in held),
            params_trainable=sum(math.prod(weight.shape) for weight in held if weight.trainable),
            params_total=totals[place.namespace],
            weight_bytes=sum(weight.nbytes for weight in held),
            calls=len(layer.calls),
            connected_to=tuple(sources.get(place.namespace, ())),
            config=layer.text,
        )


def _inputs(layer: RawLayer) -> tuple[TensorSpec, ...] | None:
    """Those of the first call; a layer inside of another one that is no model has no calls."""
    if not layer.calls:
        return None
    return tuple(TensorSpec(_tensor_name(ref.layer, ref.output), ref.shape, ref.dtype) for ref in layer.calls[0])


def _first_outputs(layer: RawLayer, known: Outputs | None) -> tuple[TensorSpec, ...] | None:
    if not layer.calls or known is None:
        return None
    specs = enumerate(known.of(layer, 0))
    return tuple(TensorSpec(_tensor_name(layer.name, number), *spec) for number, spec in specs)


def _totals(places: list[Place], own: dict[str, list[Weight]]) -> dict[str, int]:
    """Elements of the weights of each layer and of what is inside; rows come before what is inside them."""
    totals = {place.namespace: sum(math.prod(w.shape) for w in own.get(place.namespace, ())) for place in places}
    for place in reversed(places):
        if place.parent is not None:
            totals[place.parent] += totals[place.namespace]
    return totals


def _tensor_name(layer: str, output: int) -> str:
    return f"{layer}:{output}" if output else layer
