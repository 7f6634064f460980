"""From a model's config and the shapes of its weights to its description: the rows that `sources.describe` gives.

Linear in layers and edges; the tensors of a call carry the shapes of what came before, so that only the outputs of the
model have to be worked out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from exporter.readers import Unexplained
from exporter.readers.keras_calls import Ref
from exporter.readers.keras_config import RawLayer, RawModel
from exporter.readers.keras_names import stored_name
from exporter.readers.keras_sequences import BUILT_WITH_SHAPES, output_specs
from exporter.readers.keras_shapes import Spec, input_spec
from exporter.records import Edge, Layer, ModelGraph, TensorSpec, Weight
from exporter.unique_names import Names

# Shape, dtype and bytes of each weight of a layer in a file, in its order; given the layer.
StoredWeights = Callable[["Place"], list[tuple[tuple[int, ...], str, int]]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer has its row. `stored` is where the file has its weights, `path` what their names start with."""

    layer: RawLayer
    namespace: str
    depth: int
    parent: str | None
    stored: str
    path: str


class Outputs:
    """The shapes and dtypes of what the calls of one model's layers give."""

    def __init__(self, model: RawModel) -> None:
        self.model = model
        self.layers = {layer.name: layer for layer in model.layers}
        self.known: dict[tuple[str, int, int], Spec] = {}
        self.counts: dict[tuple[str, int], int] = {}
        for layer in model.layers:
            for refs in layer.calls:
                for ref in refs:
                    self._note((ref.layer, ref.call, ref.output), (ref.shape, ref.dtype))
        for _, place in model.outputs:
            self._note(place, None)

    def _note(self, place: tuple[str, int, int], spec: Spec | None) -> None:
        call = place[:2]
        self.counts[call] = max(self.counts.get(call, 0), place[2] + 1)
        if spec is not None:
            self.known[place] = spec

    def of(self, layer: RawLayer, call: int) -> list[Spec]:
        """All outputs of one call. Raises Unexplained."""
        if self.counts.get((layer.name, call), 0) > layer.outputs:
            raise Unexplained(f"{layer.name} gives more tensors than known")
        return [self.spec((layer.name, call, output)) for output in range(layer.outputs)]

    def spec(self, place: tuple[str, int, int]) -> Spec:
        if place not in self.known:
            self.known[place] = self._worked_out(*place)
        return self.known[place]

    def _worked_out(self, name: str, call: int, output: int) -> Spec:
        layer = self.layers[name]
        if layer.class_name == "InputLayer":
            return input_spec(layer.config)
        inputs = layer.calls[call]
        if layer.model:
            inner = Outputs(layer.model)
            # Called with the shapes that it was made for, it gives the shapes that it was made to give.
            if [(ref.shape, ref.dtype) for ref in inputs] != [inner.spec(place) for place in layer.model.inputs]:
                raise Unexplained(f"{name} is called with other shapes")
            return inner.spec(layer.model.outputs[output][1])
        if not layer.is_layer:
            raise Unexplained(f"the output of {layer.class_name}")
        if layer.class_name == "TimeDistributed" and layer.inside[0].model:
            return _each_time(layer.inside[0].model, inputs[0])
        if layer.class_name in BUILT_WITH_SHAPES and len(layer.calls) > 1:
            raise Unexplained(f"the output of a shared {layer.class_name}")
        given = [(ref.shape, ref.dtype) for ref in inputs]
        return output_specs(layer.class_name, layer.config, given, with_scores=layer.with_scores)[output]


def _each_time(model: RawModel, given: Ref) -> Spec:
    """What a model gives that is applied to each step of a sequence. Raises Unexplained."""
    inner = Outputs(model)
    specs = [inner.spec(place) for place in model.inputs]
    if specs != [((given.shape[0], *given.shape[2:]), given.dtype)] or len(model.outputs) != 1:
        raise Unexplained("a model that is applied to other shapes")
    (batch, *rest), dtype = inner.spec(model.outputs[0][1])
    return (batch, given.shape[1], *rest), dtype


def describe(model: RawModel, name: str, stored: StoredWeights) -> ModelGraph:
    """Raises Unexplained."""
    places = list(_places(model, None, Names()))
    weights = list(_weights(places, stored, model.trainable))
    outer = Outputs(model)
    edges = tuple(_edges(model, None, _by_parent(places)))
    return ModelGraph(
        name=name,
        inputs=tuple(TensorSpec(layer, *outer.spec((layer, call, output))) for layer, call, output in model.inputs),
        outputs=_outputs(model, outer),
        layers=tuple(_rows(model, places, edges, weights)),
        edges=edges,
        weights=tuple(weights),
    )


def _places(model: RawModel, parent: Place | None, names: Names) -> Iterator[Place]:
    used: dict[str, int] = {}
    for layer in model.layers:
        group = f"layers/{stored_name(layer.class_name, used)}" if layer.is_layer else ""
        yield from _with_inner(layer, parent, group, names)


def _with_inner(layer: RawLayer, parent: Place | None, group: str, names: Names) -> Iterator[Place]:
    """The layer, and what is inside it; `group` is where its weights are below those of its parent."""
    stored = f"{parent.stored if parent else ''}{group}/" if group else ""
    path = f"{parent.path}/{layer.name}" if parent and layer.is_made else layer.name
    namespace = names.unique(f"{parent.namespace}/{layer.name}" if parent else layer.name)
    depth, above = (parent.depth + 1, parent.namespace) if parent else (0, None)
    place = Place(layer, namespace, depth, above, stored, path)
    yield place
    if layer.model:
        yield from _places(layer.model, place, names)
    for inner in layer.inside:
        yield from _with_inner(inner, place, inner.stored, names)


def _weights(places: list[Place], stored: StoredWeights, trainable: bool) -> Iterator[Weight]:
    """Each weight with Keras's path; where that is taken, in nested models, the namespace helps."""
    names = Names()
    for place in places:
        layer, found = place.layer, stored(place)
        if len(found) != len(layer.weights):
            raise Unexplained(f"{place.namespace} has {len(found)} weights in the file")
        for (own, changes), (shape, dtype, nbytes) in zip(layer.weights, found, strict=True):
            path = f"{place.path}/{own}"
            name = names.unique(f"{place.namespace}/{own}" if path in names.taken else path)
            yield Weight(name, place.namespace, shape, dtype, nbytes, trainable and changes and layer.trainable)


def _edges(model: RawModel, parent: str | None, inside: dict[str | None, dict[str, Place]]) -> Iterator[Edge]:
    """Of this model, then of those inside, in the order of the rows."""
    here = inside.get(parent, {})
    for layer in model.layers:
        for number, refs in enumerate(layer.calls):
            for position, ref in enumerate(refs):
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


def _rows(model: RawModel, places: list[Place], edges: Iterable[Edge], weights: Iterable[Weight]) -> Iterator[Layer]:
    own: dict[str, list[Weight]] = {}
    for weight in weights:
        own.setdefault(weight.layer, []).append(weight)
    sources: dict[str, dict[str, None]] = {}
    for edge in edges:
        sources.setdefault(edge.target, {})[edge.source] = None
    outputs: dict[str | None, Outputs] = {None: Outputs(model)}
    outputs |= {place.namespace: Outputs(place.layer.model) for place in places if place.layer.model}
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
