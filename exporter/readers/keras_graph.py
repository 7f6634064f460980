"""From a config and the shapes of weights to a description: the rows that `sources.keras_models.describe` gives.

Linear in layers and edges; the tensors of a call carry the shapes of what came before, so that only the outputs of the
model have to be worked out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from exporter.lazy import LazyArray
from exporter.readers import Unexplained
from exporter.readers.keras_calls import Ref
from exporter.readers.keras_model import RawLayer, RawModel
from exporter.readers.keras_names import stored_name
from exporter.readers.keras_outputs import Outputs
from exporter.readers.keras_quantised import OwnWeight
from exporter.readers.keras_shared import CallNumbers, is_shared, stored_places
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
    shared = stored_places(model) if is_shared(model) else {}
    places = list(_places(model, None, Names(), set(), shared))
    weights, values = [], {}
    for weight, value in _weights(places, stored, model.trainable):
        weights.append(weight)
        if value is not None:
            values[weight.name] = value.named(weight.name)
    outer = Outputs(model, lenient=lenient)
    numbers = CallNumbers([model, *(place.layer.model for place in places if place.layer.model)]) if shared else None
    edges = tuple(_edges(model, None, _Inside(places), numbers))
    graph = ModelGraph(
        name=name,
        inputs=tuple(TensorSpec(layer, *outer.spec((layer, call, output))) for layer, call, output in model.inputs),
        outputs=_outputs(model, outer),
        layers=tuple(_rows(outer, places, edges, weights, numbers)),
        edges=edges,
        weights=tuple(weights),
    )
    return graph, values


def _places(
    model: RawModel, parent: Place | None, names: Names, seen: set[int], shared: Mapping[int, str]
) -> Iterator[Place]:
    """The layers that no model around has claimed; a model claims all of its own before those inside claim theirs."""
    used: dict[str, int] = {}
    scope = f"{parent.layer.name if parent else model.name}/" if model.is_scope else ""
    groups = [f"layers/{stored_name(layer.class_name, used)}" if layer.is_layer else "" for layer in model.layers]
    new = [(layer, group) for layer, group in zip(model.layers, groups, strict=True) if layer.key not in seen]
    seen.update(layer.key for layer, _ in new)
    for layer, group in new:
        yield from _with_inner(layer, parent, group, names, seen, shared, scope)


def _with_inner(
    layer: RawLayer,
    parent: Place | None,
    group: str,
    names: Names,
    seen: set[int],
    shared: Mapping[int, str],
    scope: str = "",
) -> Iterator[Place]:
    """The layer, and what is inside it; `group` is where its weights are below those of its parent."""
    stored = shared.get(layer.key, f"{parent.stored if parent else ''}{group}/" if group else "")
    path = f"{parent.path}/{layer.name}" if parent and layer.is_made else f"{scope}{layer.name}"
    namespace = names.unique(f"{parent.namespace}/{layer.name}" if parent else layer.name)
    depth, above = (parent.depth + 1, parent.namespace) if parent else (0, None)
    place = Place(layer, namespace, depth, above, stored, path)
    yield place
    if layer.model:
        yield from _places(layer.model, place, names, seen, shared)
    for inner in layer.inside:
        yield from _with_inner(inner, place, inner.stored, names, seen, shared)


def _weights(places: list[Place], stored: StoredWeights, trainable: bool) -> Iterator[tuple[Weight, LazyArray | None]]:
    """Each weight with Keras's path; where that is taken, in nested models, the namespace helps."""
    names = Names()
    for place, found in zip(places, stored(places), strict=True):
        layer = place.layer
        known = [OwnWeight(each.name, True) for each in found] if layer.weights is None else layer.weights
        if len(found) != len(known):
            raise Unexplained(f"{place.namespace} has {len(found)} weights in the file")
        for weight, each in zip(known, found, strict=True):
            own, path = weight.name, _path(place, weight)
            name = names.unique(f"{place.namespace}/{own}" if path in names.taken else path)
            is_trained = trainable and weight.changes and layer.trainable
            yield Weight(name, place.namespace, each.shape, each.dtype, each.nbytes, is_trained), each.value


def _path(place: Place, weight: OwnWeight) -> str:
    if weight.is_of_inside:
        (maker,) = place.layer.inside
        return f"{f'{place.path}/' if maker.is_made else ''}{maker.name}/{weight.name}"
    return weight.name if weight.name.startswith(f"{place.path}/") else f"{place.path}/{weight.name}"


class _Inside:
    """The rows of layers, by the row that they are inside of and their names, or wherever a shared one has its row."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.by_parent: dict[str | None, dict[str, Place]] = {}
        self.by_key: dict[int, Place] = {}
        for place in places:
            self.by_parent.setdefault(place.parent, {})[place.layer.name] = place
            self.by_key[place.layer.key] = place

    def of(self, model: RawModel, parent: str | None) -> dict[str, Place]:
        here = self.by_parent.get(parent, {})
        if len(here) == len(model.layers):
            return here
        return {layer.name: self.by_key[layer.key] for layer in model.layers}


def _edges(model: RawModel, parent: str | None, inside: _Inside, numbers: CallNumbers | None) -> Iterator[Edge]:
    """Of this model, then of those inside, in the order of the rows."""
    here = inside.of(model, parent)
    for layer in model.layers:
        for call, refs in enumerate(layer.calls):
            if numbers is None or numbers.is_new(model, layer.name, call):
                yield from _edges_of(model, layer.name, call, refs, here, numbers)
    for layer in model.layers:
        place = here[layer.name]
        if place.parent == parent and place.layer is layer:
            yield from _edges_inside(place, inside, numbers)


def _edges_of(
    model: RawModel,
    name: str,
    call: int,
    refs: Iterable[Ref],
    here: Mapping[str, Place],
    numbers: CallNumbers | None,
) -> Iterator[Edge]:
    number = numbers.number(model, name, call) if numbers else call
    for position, ref in enumerate(refs):
        if ref.layer not in here:
            raise Unexplained(f"a tensor of {ref.layer}, which is no layer of the model")
        source, target = here[ref.layer].namespace, here[name].namespace
        source_number = numbers.number(model, ref.layer, ref.call) if numbers else ref.call
        yield Edge(source, source_number, ref.output, target, number, position, ref.shape, ref.dtype)


def _edges_inside(place: Place, inside: _Inside, numbers: CallNumbers | None) -> Iterator[Edge]:
    if place.layer.model:
        yield from _edges(place.layer.model, place.namespace, inside, numbers)
    for inner in place.layer.inside:
        yield from _edges_inside(inside.by_parent[place.namespace][inner.name], inside, numbers)


def _outputs(model: RawModel, outer: Outputs) -> tuple[TensorSpec, ...]:
    """With the keys of a dictionary of outputs, otherwise the layers' names; none twice, and none an input's."""
    names = Names(layer for layer, _, _ in model.inputs)
    return tuple(TensorSpec(names.unique(key or place[0]), *outer.spec(place)) for key, place in model.outputs)


def _rows(
    outer: Outputs,
    places: list[Place],
    edges: Iterable[Edge],
    weights: Iterable[Weight],
    numbers: CallNumbers | None,
) -> Iterator[Layer]:
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
    totals = _shared_totals(places, own) if numbers else _totals(places, own)
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
            calls=numbers.counts[layer.key] if numbers and layer.calls else len(layer.calls),
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
    return _with_lent(totals, places, own)


def _shared_totals(places: list[Place], own: dict[str, list[Weight]]) -> dict[str, int]:
    """The same where objects stand in several models: each counts once in every row that it is inside of."""
    held = {place.layer.key: sum(math.prod(w.shape) for w in own.get(place.namespace, ())) for place in places}
    inside: dict[str, set[int]] = {place.namespace: {place.layer.key} for place in places}
    by_key = {place.layer.key: place for place in places}
    for place in reversed(places):
        listed = [*(place.layer.model.layers if place.layer.model else ()), *place.layer.inside]
        # What is listed here and has its row elsewhere may come before or behind this row.
        stack = [layer.key for layer in listed]
        while stack:
            key = stack.pop()
            if key not in inside[place.namespace]:
                inside[place.namespace].add(key)
                layer = by_key[key].layer
                stack += [each.key for each in (*(layer.model.layers if layer.model else ()), *layer.inside)]
    totals = {name: sum(held[key] for key in keys) for name, keys in inside.items()}
    return _with_lent(totals, places, own)


def _with_lent(totals: dict[str, int], places: list[Place], own: dict[str, list[Weight]]) -> dict[str, int]:
    """A kernel that stands in the row around is in the layer inside, too."""
    for place in places:
        if place.layer.lent and place.parent is not None:
            totals[place.namespace] += math.prod(own[place.parent][0].shape)
    return totals


def _tensor_name(layer: str, output: int) -> str:
    return f"{layer}:{output}" if output else layer
