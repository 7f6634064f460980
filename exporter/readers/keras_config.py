"""The config of a Keras 3 model as plain records, one layer at a time.

A functional model's config lists, for each call of each layer, the tensors that go in with shape, dtype and the layer
that made them (`keras_history`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.json_cursor import JsonCursor
from exporter.readers.keras_calls import Ref, Tensor, arguments_of, calls_of, returns_scores, tensors_of
from exporter.readers.keras_classes import RENAMED, own_weights
from exporter.readers.keras_encodings import BOXES
from exporter.readers.keras_inner import ACTIVATIONS, inner_layers, without_layers
from exporter.readers.keras_model import RawLayer, RawModel
from exporter.readers.keras_operations import OPERATIONS, operation_outputs
from exporter.readers.keras_outputs import ODD, UNKNOWN, Known, call_specs
from exporter.readers.keras_quantised import as_loaded, is_plain
from exporter.readers.keras_reading import MODELS, Inner, Reading
from exporter.readers.keras_sequences import ATTENTION, output_count
from exporter.readers.keras_settings import built_shape, holds_layers, shape_settings, unshared
from exporter.readers.keras_shapes import PASSING, input_spec, output_dtype
from exporter.readers.keras_spectral import SPECTRAL, lend_kernel
from exporter.records import Shape
from exporter.sources.keras_models.config_text import config_text

OPERATION_MODULES = ("keras.src.ops", "keras.ops")
PACKAGE = re.compile(r"keras(\.|$)")


def read_config(text: str, *, lenient: bool = False) -> RawModel:
    """The model of a whole `config.json`, layer by layer. Raises Unexplained, and ValueError for what is no JSON.

    With `lenient`, layers of unknown classes are taken as they stand there.
    """
    cursor, record, settings = JsonCursor(text), {}, {}
    layers: list[RawLayer] = []
    reading = Reading(lenient=lenient)
    for key in cursor.members():
        if key == "config" and cursor.peek() == "{":
            for name in cursor.members():
                if name == "layers" and cursor.peek() == "[":
                    layers = list(raw_layers(cursor.elements(), reading))
                else:
                    settings[name] = cursor.value()
        else:
            record[key] = cursor.value()
    return raw_model(record, settings, layers, reading)


def is_model_of_its_own(text: str) -> bool:
    """Whether the config is that of a subclass of Keras's models, which has no layers in it."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return False
    config = record.get("config") if isinstance(record, dict) else None
    return isinstance(config, dict) and isinstance(record.get("class_name"), str) and "layers" not in config


def raw_model(
    record: Mapping[str, Any], settings: Mapping[str, Any], layers: list[RawLayer], reading: Reading
) -> RawModel:
    class_name = str(record.get("class_name"))
    if reading.lenient and layers and class_name not in MODELS and "input_layers" in settings:
        return _functional(class_name, settings, layers)
    if class_name not in MODELS or not PACKAGE.match(str(record.get("module"))):
        raise Unexplained(f"models of class {class_name}")
    if class_name == "Functional":
        return _functional(class_name, settings, layers)
    # Keras gives a Sequential its name and its layers back, and nothing else.
    found = RawModel(str(settings["name"]), class_name, True, layers, is_scope=reading.in_place)
    _chain(found, lenient=reading.lenient)
    return found


def _functional(class_name: str, settings: Mapping[str, Any], layers: list[RawLayer]) -> RawModel:
    found = RawModel(str(settings["name"]), class_name, bool(settings.get("trainable", True)), layers)
    nested = {layer.name for layer in layers if layer.model and layer.class_name != "Sequential"}
    found.inputs = [_place(place, nested) for _, place in tensors_of(settings.get("input_layers"))]
    found.outputs = [(key, _place(place, nested)) for key, place in tensors_of(settings.get("output_layers"))]
    return found


def _place(place: Tensor, nested: set[str]) -> Tensor:
    """Of functional models inside, their own graph is counted as a call here, and only here.

    (Keras's `functional_from_config` says so.)
    """
    layer, call, output = place
    return layer, call - 1 if layer in nested and call else call, output


def _chain(model: RawModel, *, lenient: bool) -> None:
    """The calls of a Sequential, which its config leaves out: each layer takes what the one before gives."""
    layers = model.layers
    if not layers or (layers[0].class_name != "InputLayer" and not lenient):
        raise Unexplained("a Sequential without its input")
    has_input = layers[0].class_name == "InputLayer"
    model.inputs = [(layers[0].name, 0, 0)] if has_input else []
    model.outputs = [("", (layers[-1].name, 0, 0))]
    spec: Known = input_spec(layers[0].config) if has_input else UNKNOWN
    for before, layer in pairwise(layers):
        if before is not layers[0] or not has_input:
            try:
                spec = _given(before, spec, layer.built)
            except ODD:
                if not lenient:
                    raise
                spec = (layer.built, None)
        layer.calls = [(Ref(before.name, 0, 0, *spec),)]


def _given(layer: RawLayer, spec: Known, built: Shape | None) -> Known:
    """What a layer of a chain gives; `built` is the shape that the one after it was built with, if it says so."""
    if built is None or layer.model or spec[1] is None:
        return call_specs(layer, [Ref("", 0, 0, *spec)])[0]
    return built, output_dtype(layer.class_name, layer.config, spec[1])


def raw_layers(entries: Iterable[Any], reading: Reading) -> Iterator[RawLayer]:
    for entry in entries:
        first = reading.known(entry)
        if first is None:
            found = _layer(entry, reading)
            reading.remember(entry, found)
            yield found
        elif reading.in_place:
            raise Unexplained("a layer that is shared between models")
        else:
            yield replace(first, calls=calls_of(entry.get("inbound_nodes"), first.class_name), same=first)


def _layer(entry: Any, reading: Reading) -> RawLayer:
    if not reading.lenient:
        return _known_layer(entry, reading)
    try:
        return _known_layer(entry, reading)
    except ODD:
        return _unknown_layer(entry)


def _unknown_layer(entry: Any) -> RawLayer:
    """A layer of which only the file's own words are known. Raises Unexplained for what is no layer at all."""
    config = entry.get("config") if isinstance(entry, dict) else None
    if not isinstance(config, dict) or not isinstance(entry.get("class_name"), str):
        raise Unexplained("an entry that is no layer")
    calls: list[tuple[Ref, ...]] = []
    for node in entry.get("inbound_nodes") or ():
        with suppress(*ODD):
            calls += calls_of([node], "")
    return RawLayer(
        name=str(entry.get("name") or config.get("name") or entry["class_name"]),
        class_name=entry["class_name"].rpartition(">")[2],
        is_layer=True,
        trainable=bool(config.get("trainable", True)),
        text=config_text(unshared(config)),
        calls=calls,
        weights=None,
    )


def _known_layer(entry: Any, reading: Reading) -> RawLayer:
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict) or "module" not in entry:
        raise Unexplained("a config of an older layout")
    module, class_name, config = str(entry["module"]), str(entry["class_name"]), entry["config"]
    is_model = class_name in MODELS and "layers" in config
    if not is_model and module != "keras.layers":
        return _operation(entry, module, class_name, config)
    name = str(entry.get("name") or config["name"])
    if is_model:
        model = raw_model(entry, config, list(raw_layers(config["layers"], reading)), reading)
        text = config_text(_own_settings(model))
        found = RawLayer(name, class_name, True, model.trainable, text, model=model, outputs=len(model.outputs))
    else:
        found = _plain_layer(name, class_name, entry, reading)
    found.calls = calls_of(entry.get("inbound_nodes"), class_name)
    if class_name in (*PASSING, BOXES) and found.calls:
        found.outputs = len(found.calls[0])
    return found


def _operation(entry: Mapping[str, Any], module: str, class_name: str, config: Mapping[str, Any]) -> RawLayer:
    """A call of `keras.ops` among the layers."""
    if not module.startswith(OPERATION_MODULES) or class_name not in OPERATIONS:
        raise Unexplained(f"{module}.{class_name}")
    if any(holds_layers(value) for value in config.values()):
        raise Unexplained(f"a {class_name} with layers inside")
    nodes = entry.get("inbound_nodes")
    calls = calls_of(nodes, class_name)
    return RawLayer(
        name=str(entry.get("name") or config["name"]),
        class_name=class_name,
        is_layer=False,
        trainable=False,
        text=config_text(unshared(config)),
        config=config,
        calls=calls,
        outputs=operation_outputs(class_name, config, calls),
        arguments=arguments_of(nodes),
    )


def _plain_layer(name: str, class_name: str, entry: Mapping[str, Any], reading: Reading) -> RawLayer:
    """A layer that is no model; its calls are left to the caller."""
    config, build = entry["config"], entry.get("build_config")
    if any(holds_layers(value) for value in without_layers(class_name, config).values()):
        raise Unexplained(f"a {class_name} with layers inside")
    if reading.in_place and not is_plain(config):
        raise Unexplained(f"a {class_name} that is quantised or has adapters")
    if (
        reading.in_place
        and class_name == "Softmax"
        and "inbound_nodes" in entry
        and isinstance(config.get("axis"), list)
    ):
        # The legacy loader of Keras 3.15 forgets several axes, and has the last one instead.
        raise Unexplained("a Softmax along several axes")
    scores = class_name in ATTENTION and returns_scores(entry.get("inbound_nodes"))
    found = RawLayer(
        name=name,
        class_name=RENAMED.get(class_name, class_name),
        is_layer=True,
        trainable=bool(config.get("trainable", True)),
        text=config_text(unshared(as_loaded(class_name, config))),
        config=shape_settings(class_name, entry),
        built=built_shape(build),
        weights=own_weights(class_name, config),
        outputs=output_count(class_name, config, with_scores=scores),
        with_scores=scores,
    )
    for inner in inner_layers(class_name, config, build, reading):
        # One activation of several layers has its row in the first of them.
        if inner.stored not in ACTIVATIONS or not reading.is_repeated(inner.entry):
            found.inside.append(_inner_layer(inner, reading))
    if class_name == SPECTRAL:
        lend_kernel(found, found.inside[0])
    return found


def _inner_layer(inner: Inner, reading: Reading) -> RawLayer:
    if not reading.is_new(inner.entry):
        raise Unexplained("a layer that is shared between layers")
    found = _layer(inner.entry, reading)
    says_how = reading.in_place or inner.is_made or found.model or "build_config" in inner.entry
    if not says_how and (found.weights or found.inside):
        raise Unexplained(f"{found.name} does not say how it was built")
    found.stored = inner.stored
    found.is_made = inner.is_made or (reading.in_place and not found.model and "build_config" not in inner.entry)
    return found


def _own_settings(model: RawModel) -> dict[str, Any]:
    return {"class_name": model.class_name, "name": model.name, "trainable": model.trainable}
