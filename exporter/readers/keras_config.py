"""The config of a Keras 3 model as plain records, one layer at a time.

A functional model's config lists, for each call of each layer, the tensors that go in with shape, dtype and the layer
that made them (`keras_history`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.json_cursor import JsonCursor
from exporter.readers.keras_calls import Ref, Tensor, calls_of, returns_scores, shape_of, tensors_of
from exporter.readers.keras_classes import OPERATIONS, RENAMED, OwnWeight, own_weights
from exporter.readers.keras_inner import Inner, Reading, built_shapes, inner_layers, without_layers
from exporter.readers.keras_sequences import (
    ATTENTION,
    BUILT,
    BUILT_WITH_SHAPES,
    RECURRENT,
    WRAPPERS,
    output_count,
    output_specs,
)
from exporter.readers.keras_shapes import SETTINGS, Spec, input_spec, output_dtype
from exporter.records import Shape
from exporter.sources.config_text import config_text

MODELS = ("Functional", "Sequential")
OPERATION_MODULES = ("keras.src.ops", "keras.ops")
PACKAGE = re.compile(r"keras(\.|$)")
# Layers inside of another layer's settings, which would be rows of their own.
INNER_LAYERS = ("keras.layers", "keras.models", "keras.src.layers", "keras.src.models")


@dataclass(slots=True)
class RawLayer:
    """One entry of a model's `layers`. `calls` has the tensors that go into each call; operations are no layers.

    `built` is the shape that the layer was built with, None where the file does not say. `config` has the few settings
    that shapes depend on, `text` all of them. `outputs` is the number of tensors that a call gives, `with_scores` says
    whether attention scores are among them. A layer has layers `inside` it, or is a `model`; of one that is inside of
    another, `stored` is the group of its weights below its owner's, and `is_made` says whether its owner makes it.
    """

    name: str
    class_name: str
    is_layer: bool
    trainable: bool
    text: str
    config: Mapping[str, Any]
    calls: list[tuple[Ref, ...]]
    built: Shape | None
    weights: list[OwnWeight]
    outputs: int = 1
    with_scores: bool = False
    inside: list[RawLayer] = field(default_factory=list)
    model: RawModel | None = None
    stored: str = ""
    is_made: bool = False


@dataclass(slots=True)
class RawModel:
    """`outputs` are those of the graph, with the key of each where the model gives them as a dictionary."""

    name: str
    class_name: str
    trainable: bool
    layers: list[RawLayer] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[tuple[str, Tensor]] = field(default_factory=list)


def read_config(text: str) -> RawModel:
    """The model of a whole `config.json`, layer by layer. Raises Unexplained, and ValueError for what is no JSON."""
    cursor, record, settings = JsonCursor(text), {}, {}
    layers: list[RawLayer] = []
    reading = Reading()
    for key in cursor.members():
        if key == "config" and cursor.peek() == "{":
            for name in cursor.members():
                if name == "layers" and cursor.peek() == "[":
                    layers = list(raw_layers(cursor.elements(), reading))
                else:
                    settings[name] = cursor.value()
        else:
            record[key] = cursor.value()
    return _model(record, settings, layers)


def _model(record: Mapping[str, Any], settings: Mapping[str, Any], layers: list[RawLayer]) -> RawModel:
    class_name = record.get("class_name")
    if class_name not in MODELS or not PACKAGE.match(str(record.get("module"))):
        raise Unexplained(f"models of class {class_name}")
    # Keras gives a Sequential its name and its layers back, and nothing else.
    trainable = class_name == "Sequential" or bool(settings.get("trainable", True))
    found = RawModel(str(settings["name"]), class_name, trainable, layers)
    if class_name == "Sequential":
        _chain(found)
    else:
        found.inputs = [place for _, place in tensors_of(settings.get("input_layers"))]
        found.outputs = list(tensors_of(settings.get("output_layers")))
    return found


def _chain(model: RawModel) -> None:
    """The calls of a Sequential, which its config leaves out: each layer takes what the one before gives."""
    layers = model.layers
    if not layers or layers[0].class_name != "InputLayer":
        raise Unexplained("a Sequential without its input")
    model.inputs, model.outputs = [(layers[0].name, 0, 0)], [("", (layers[-1].name, 0, 0))]
    spec = input_spec(layers[0].config)
    for before, layer in pairwise(layers):
        if before is not layers[0]:
            spec = _given(before, spec, layer.built)
        layer.calls = [(Ref(before.name, 0, 0, *spec),)]


def _given(layer: RawLayer, spec: Spec, built: Shape | None) -> Spec:
    """What a layer of a chain gives; `built` is the shape that the one after it was built with, if it says so."""
    if layer.model:
        raise Unexplained("a model inside of a Sequential")
    if built is None:
        return output_specs(layer.class_name, layer.config, [spec], with_scores=False)[0]
    return built, output_dtype(layer.class_name, layer.config, spec[1])


def raw_layers(entries: Iterable[Any], reading: Reading) -> Iterator[RawLayer]:
    for entry in entries:
        # A layer that stands in two models of one file is one object; it is not followed here.
        if not reading.is_new(entry):
            raise Unexplained("a layer that is shared between models")
        yield _layer(entry, reading)


def _layer(entry: Any, reading: Reading) -> RawLayer:
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict) or "module" not in entry:
        raise Unexplained("a config of an older layout")
    module, class_name, config = str(entry["module"]), str(entry["class_name"]), entry["config"]
    is_model = class_name in MODELS and "layers" in config
    if not is_model and module != "keras.layers":
        return _operation(entry, module, class_name, config)
    name = str(entry.get("name") or config["name"])
    if is_model:
        model = _model(entry, config, list(raw_layers(config["layers"], reading)))
        found = RawLayer(name, class_name, True, model.trainable, config_text(_own_settings(model)), {}, [], None, [])
        found.model, found.outputs = model, len(model.outputs)
    else:
        found = _plain_layer(name, class_name, entry, reading)
    found.calls = calls_of(entry.get("inbound_nodes"), class_name)
    return found


def _operation(entry: Mapping[str, Any], module: str, class_name: str, config: Mapping[str, Any]) -> RawLayer:
    """A call of `keras.ops` among the layers."""
    if not module.startswith(OPERATION_MODULES) or class_name not in OPERATIONS:
        raise Unexplained(f"{module}.{class_name}")
    if any(_holds_layers(value) for value in config.values()):
        raise Unexplained(f"a {class_name} with layers inside")
    name, text = str(entry.get("name") or config["name"]), config_text(_unshared(config))
    return RawLayer(
        name, class_name, False, False, text, {}, calls_of(entry.get("inbound_nodes"), class_name), None, []
    )


def _plain_layer(name: str, class_name: str, entry: Mapping[str, Any], reading: Reading) -> RawLayer:
    """A layer that is no model; its calls are left to the caller."""
    config, build = entry["config"], entry.get("build_config")
    if any(_holds_layers(value) for value in without_layers(class_name, config).values()):
        raise Unexplained(f"a {class_name} with layers inside")
    scores = class_name in ATTENTION and returns_scores(entry.get("inbound_nodes"))
    found = RawLayer(
        name=name,
        class_name=RENAMED.get(class_name, class_name),
        is_layer=True,
        trainable=bool(config.get("trainable", True)),
        text=config_text(_unshared(config)),
        config=_settings(class_name, config, build),
        calls=[],
        built=_built(build),
        weights=own_weights(class_name, config),
        outputs=output_count(class_name, config, with_scores=scores),
        with_scores=scores,
    )
    for inner in inner_layers(class_name, config, build, reading):
        found.inside.append(_inner_layer(inner, reading))
    return found


def _inner_layer(inner: Inner, reading: Reading) -> RawLayer:
    if not reading.is_new(inner.entry):
        raise Unexplained("a layer that is shared between layers")
    found = _layer(inner.entry, reading)
    if not inner.is_made and not found.model and "build_config" not in inner.entry and (found.weights or found.inside):
        raise Unexplained(f"{found.name} does not say how it was built")
    found.stored, found.is_made = inner.stored, inner.is_made
    return found


def _settings(class_name: str, config: Mapping[str, Any], build: Any) -> Mapping[str, Any]:
    """What shapes depend on."""
    if class_name in (*RECURRENT, *WRAPPERS):
        return config
    if class_name in BUILT_WITH_SHAPES:
        return {**config, BUILT: built_shapes(build)}
    return {key: value for key, value in config.items() if key in SETTINGS}


def _own_settings(model: RawModel) -> dict[str, Any]:
    return {"class_name": model.class_name, "name": model.name, "trainable": model.trainable}


def _unshared(value: Any) -> Any:
    """Without the numbers by which Keras finds objects that stand in several places of one file."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items() if key != "shared_object_id"}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _holds_layers(value: Any) -> bool:
    """Whether a setting is, or has in it, a layer."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if str(item.get("module")).startswith(INNER_LAYERS):
                return True
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


def _built(config: Any) -> Shape | None:
    shape = config.get("input_shape") if isinstance(config, dict) else None
    return (
        shape_of(shape)
        if isinstance(shape, list) and all(size is None or type(size) is int for size in shape)
        else None
    )
