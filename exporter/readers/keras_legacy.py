"""Configs as Keras 2 wrote them, and Keras 3 still does into `.h5` files, in the words of a Keras 3 archive.

Keras 2 lists the tensors of a call as `[layer, call, output, keywords]`, without their shapes; its Sequential may have
no input layer, but a first layer that knows its shape.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_2_settings import as_in_keras_3
from exporter.readers.keras_classes import WEIGHTS
from exporter.readers.keras_config import raw_layers, raw_model
from exporter.readers.keras_model import RawModel
from exporter.readers.keras_operations import OPERATIONS
from exporter.readers.keras_outputs import resolve
from exporter.readers.keras_reading import Reading
from exporter.readers.keras_sequences import BUILT, BUILT_WITH_SHAPES
from exporter.sources.keras_models.keras_2_config import renumber_nested_calls

MODELS = {"Functional": "Functional", "Model": "Functional", "Sequential": "Sequential"}
# Names of classes in a file that are not those by which an archive has them.
ALIASES = {"GroupedQueryAttention": "GroupQueryAttention", "BatchNormalizationV1": "BatchNormalization"}
# What JSON has no words for, and Keras wrote as objects.
AS_LISTS = {"__tuple__": "items", "TensorShape": "items"}


def read_legacy_config(text: str, *, lenient: bool = False) -> RawModel:
    """Raises Unexplained, and ValueError for what is no JSON."""
    config = _plain(json.loads(text))
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        raise Unexplained("a config that describes no model")
    renumber_nested_calls(config)
    reading = Reading(lenient=lenient, in_place=True)
    record = _entry(config)
    settings = record["config"]
    if not isinstance(settings, dict) or not isinstance(settings.get("layers"), list):
        raise Unexplained("a config without layers")
    model = raw_model(record, settings, list(raw_layers(settings["layers"], reading)), reading)
    resolve(model, lenient=lenient)
    return model


def _plain(value: Any) -> Any:
    """JSON data with tuples and shapes as lists."""
    if isinstance(value, dict):
        key = AS_LISTS.get(str(value.get("class_name")))
        if key and isinstance(value.get(key), list):
            return [_plain(item) for item in value[key]]
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _entry(entry: Any) -> Any:
    """A layer's or a model's entry with what that of an archive has."""
    if not isinstance(entry, dict) or not isinstance(entry.get("class_name"), str):
        return entry
    config, name = entry.get("config"), entry["class_name"]
    if name in MODELS:
        module = str(entry.get("module") or "")
        module = module if module.startswith("keras") else "keras"
        return {**entry, "class_name": MODELS[name], "module": module, **_model(name, config, entry)}
    name = ALIASES.get(name, name)
    if not isinstance(config, dict) or (name in OPERATIONS and "trainable" not in config) or name not in WEIGHTS:
        # A class that is not Keras's own, or an operation, whose class a layer may share.
        return {**entry, "module": str(entry.get("module", ""))} | _calls(entry)
    if name == "InputLayer" and "batch_input_shape" in config:
        config = {**config, "batch_shape": config["batch_input_shape"]}
    config = as_in_keras_3(name, _with_entries(config))
    found = {**entry, "class_name": name, "module": "keras.layers", "config": config} | _calls(entry)
    if name in BUILT_WITH_SHAPES and (shapes := _shapes(found)):
        found["build_config"] = {BUILT: shapes}
    return found


def _model(class_name: str, config: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """The config of a model; the oldest of a Sequential are a bare list of layers."""
    settings = {"layers": config} if isinstance(config, list) else dict(config) if isinstance(config, dict) else {}
    settings.setdefault("name", str(entry.get("name") or class_name.lower()))
    layers = settings.get("layers")
    if isinstance(layers, list):
        found = [_entry(layer) for layer in layers]
        settings["layers"] = [*_input_of(layers), *found] if class_name == "Sequential" else found
    return {"config": settings} | _calls(entry)


def _input_of(layers: list[Any]) -> Iterator[dict[str, Any]]:
    """The input layer that Keras makes where the first layer of a Sequential says its shape."""
    config = layers[0].get("config") if layers and isinstance(layers[0], dict) else None
    shape = config.get("batch_input_shape") if isinstance(config, dict) else None
    if isinstance(config, dict) and isinstance(shape, list) and layers[0].get("class_name") != "InputLayer":
        name, dtype = "input_layer", config.get("dtype", "float32")
        dtype = "float32" if not isinstance(dtype, str) or layers[0]["class_name"] == "Embedding" else dtype
        settings = {"batch_shape": shape, "dtype": dtype, "name": name, "sparse": False}
        yield {"module": "keras.layers", "class_name": "InputLayer", "config": settings}


def _with_entries(config: dict[str, Any]) -> dict[str, Any]:
    """Settings that hold layers, as wrappers' do."""
    found = dict(config)
    for key in ("layer", "backward_layer", "cell"):
        if isinstance(found.get(key), dict):
            found[key] = _entry(found[key])
    if isinstance(found.get("cells"), list):
        found["cells"] = [_entry(cell) for cell in found["cells"]]
    return found


def _calls(entry: dict[str, Any]) -> dict[str, Any]:
    nodes = entry.get("inbound_nodes")
    if not isinstance(nodes, list):
        return {}
    return {"inbound_nodes": [node if isinstance(node, dict) else _node(node) for node in nodes]}


def _node(node: Any) -> dict[str, Any]:
    """A call in the words of Keras 3: the tensors in their order, then those among the keywords of the first."""
    tensors = list(_tensors(node))
    keywords = [tensor[3] for tensor in tensors if len(tensor) == 4 and isinstance(tensor[3], dict)]
    named = {key: _tensor(value) for found in keywords for key, value in found.items() if _is_tensor(value)}
    return {"args": [_tensor(tensor) for tensor in tensors], "kwargs": named}


def _tensors(node: Any) -> Iterator[list[Any]]:
    stack = [node]
    while stack:
        item = stack.pop()
        if _is_tensor(item):
            yield item
        elif isinstance(item, list):
            stack.extend(reversed(item))


def _is_tensor(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and all(type(number) is int for number in value[1:3])
    )


def _tensor(tensor: list[Any]) -> dict[str, Any]:
    settings = {"shape": None, "dtype": None, "keras_history": tensor[:3]}
    return {"class_name": "__keras_tensor__", "config": settings}


def _shapes(entry: dict[str, Any]) -> dict[str, Any]:
    """The shapes that the first call of an attention layer is given, by argument; empty where they are not known."""
    nodes = entry.get("inbound_nodes")
    if not nodes or not isinstance(nodes[0], dict):
        return {}
    given = dict(zip(("query", "value", "key"), nodes[0].get("args", ()), strict=False)) | nodes[0].get("kwargs", {})
    shapes = {f"{name}_shape": _shape(given.get(name)) for name in ("query", "value", "key")}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _shape(tensor: Any) -> Any:
    return (
        tensor["config"].get("shape") if isinstance(tensor, dict) and isinstance(tensor.get("config"), dict) else None
    )
