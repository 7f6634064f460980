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
from exporter.readers.keras_classes import OPERATIONS, OwnWeight, own_weights
from exporter.readers.keras_shapes import SETTINGS, Spec, input_spec, output_dtype, output_spec
from exporter.records import Shape
from exporter.sources.config_text import config_text

MODELS = ("Functional", "Sequential")
OPERATION_MODULES = ("keras.src.ops", "keras.ops")
PACKAGE = re.compile(r"keras(\.|$)")
# Layers inside of another layer's settings, which would be rows of their own.
INNER_LAYERS = ("keras.layers", "keras.models", "keras.src.layers", "keras.src.models")


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor that goes into a call: which output of which call of which layer of the same model."""

    layer: str
    call: int
    output: int
    shape: Shape
    dtype: str


@dataclass(slots=True)
class RawLayer:
    """One entry of a model's `layers`. `calls` has the tensors that go into each call; operations are no layers.

    `built` is the shape that the layer was built with, None where the file does not say. `config` has the few settings
    that shapes depend on, `text` all of them.
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
    model: RawModel | None = None


@dataclass(slots=True)
class RawModel:
    """`outputs` are those of the graph, with the key of each where the model gives them as a dictionary."""

    name: str
    class_name: str
    trainable: bool
    layers: list[RawLayer] = field(default_factory=list)
    inputs: list[tuple[str, int, int]] = field(default_factory=list)
    outputs: list[tuple[str, tuple[str, int, int]]] = field(default_factory=list)


def read_config(text: str) -> RawModel:
    """The model of a whole `config.json`, layer by layer. Raises Unexplained, and ValueError for what is no JSON."""
    cursor, record, settings = JsonCursor(text), {}, {}
    layers: list[RawLayer] = []
    for key in cursor.members():
        if key == "config" and cursor.peek() == "{":
            for name in cursor.members():
                if name == "layers" and cursor.peek() == "[":
                    layers = list(raw_layers(cursor.elements()))
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
        found.inputs = [place for _, place in _places(settings.get("input_layers"))]
        found.outputs = list(_places(settings.get("output_layers")))
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
        return output_spec(layer.class_name, layer.config, [spec])
    return built, output_dtype(layer.class_name, layer.config, spec[1])


def raw_layers(entries: Iterable[Any]) -> Iterator[RawLayer]:
    shared: set[Any] = set()
    for entry in entries:
        # A layer that stands in two models of one file is one object; it is not followed here.
        if isinstance(entry, dict) and (key := entry.get("shared_object_id")) is not None:
            if key in shared:
                raise Unexplained("a layer that is shared between models")
            shared.add(key)
        yield _layer(entry)


def _layer(entry: Any) -> RawLayer:
    if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict) or "module" not in entry:
        raise Unexplained("a config of an older layout")
    module, class_name, config = str(entry["module"]), str(entry["class_name"]), entry["config"]
    is_model = class_name in MODELS and "layers" in config
    is_layer = is_model or module == "keras.layers"
    if not is_layer and not (module.startswith(OPERATION_MODULES) and class_name in OPERATIONS):
        raise Unexplained(f"{module}.{class_name}")
    if not is_model and any(_holds_layers(value) for value in config.values()):
        raise Unexplained(f"a {class_name} with layers inside")
    name = str(entry.get("name") or config["name"])
    model = _model(entry, config, list(raw_layers(config["layers"]))) if is_model else None
    return RawLayer(
        name=name,
        class_name=class_name,
        is_layer=is_layer,
        trainable=model.trainable if model else bool(config.get("trainable", True)) and is_layer,
        text=config_text(_own_settings(model) if model else _unshared(config)),
        config={} if is_model else {key: value for key, value in config.items() if key in SETTINGS},
        calls=_calls(entry.get("inbound_nodes"), class_name),
        built=_built(entry.get("build_config")),
        weights=own_weights(class_name, config) if is_layer and not is_model else [],
        model=model,
    )


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
        _shape(shape) if isinstance(shape, list) and all(size is None or type(size) is int for size in shape) else None
    )


def _calls(nodes: Any, class_name: str) -> list[tuple[Ref, ...]]:
    """The tensors of each call; an input layer has one call, which takes none."""
    if class_name == "InputLayer":
        return [()]
    calls = [tuple(_refs(node)) for node in nodes or ()]
    if not all(calls):
        raise Unexplained("a call without tensors")
    return calls


def _refs(node: Any) -> Iterator[Ref]:
    """In the order in which Keras flattens arguments: positions first, then keywords by name."""
    if not isinstance(node, dict) or not {"args", "kwargs"} <= node.keys():
        raise Unexplained("calls of an older layout")
    stack = [node["kwargs"], node["args"]]
    while stack:
        item = stack.pop()
        if isinstance(item, dict) and item.get("class_name") == "__keras_tensor__":
            tensor = item["config"]
            layer, call, output = tensor["keras_history"]
            yield Ref(str(layer), int(call), int(output), _shape(tensor["shape"]), str(tensor["dtype"]))
        elif isinstance(item, dict):
            stack.extend(value for _, value in sorted(item.items(), reverse=True))
        elif isinstance(item, list):
            stack.extend(reversed(item))


def _places(value: Any, key: str = "") -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Every `[layer, call, output]` in the structure; of a flat dictionary with its keys."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        yield key, (value[0], int(value[1]), int(value[2]))
    elif isinstance(value, dict):
        for name, inner in sorted(value.items()):
            yield from _places(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _places(inner)
    else:
        raise Unexplained("inputs or outputs in another layout")


def _shape(sizes: Any) -> Shape:
    return tuple(None if size is None else int(size) for size in sizes)
