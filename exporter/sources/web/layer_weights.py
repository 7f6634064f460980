"""The config of a TensorFlow.js layers model, and which weights are whose, by their names: `conv/kernel`.

The converter, and TensorFlow.js itself, write them in the order of Keras's legacy files within each layer of the
outermost model: those that training changes first.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

from exporter.errors import SourceError
from exporter.sources.web.model_json import COPY_HINT, WebModel, WebWeight

MODEL_CONFIG = "model_config"


def model_config(model: WebModel) -> dict[str, Any]:
    """The config of the Keras model, which is the topology or in it. Raises SourceError."""
    config: Any = model.topology.get(MODEL_CONFIG, model.topology)
    try:
        config = json.loads(config) if isinstance(config, str) else copy.deepcopy(config)
        if isinstance(config["config"], (dict, list)) and isinstance(config["class_name"], str):
            _complete(config)
            return dict(config)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    why = "its topology is neither a graph nor the config of a Keras model"
    raise SourceError("is not a TensorFlow.js model", where=model.path, why=why, hint=COPY_HINT)


def _complete(entry: Any) -> None:
    """What TensorFlow.js leaves out, in place: an input layer for a Sequential whose first layer says its shape.

    Keras 3 takes that shape, which includes the batch, for one without (`legacy/saving/saving_utils.py`).
    """
    stack = [entry]
    while stack:
        item = stack.pop()
        layers = _layers(item)
        found = layers[0].get("config") if layers and isinstance(layers[0], dict) else None
        first: dict[str, Any] = found if isinstance(found, dict) else {}
        is_chain = item.get("class_name") == "Sequential"
        if is_chain and "batch_input_shape" in first and layers[0].get("class_name") != "InputLayer":
            shape, dtype = first.pop("batch_input_shape"), first.get("dtype", "float32")
            settings = {"batch_input_shape": shape, "dtype": dtype, "name": "input_layer", "sparse": False}
            layers.insert(0, {"class_name": "InputLayer", "config": settings})
        for layer in layers:
            if isinstance(layer, dict):
                stack.append(layer)
                if isinstance(layer.get("config"), dict) and not _layers(layer):
                    # TensorFlow.js has one type of floating-point numbers, and leaves it out.
                    layer["config"].setdefault("dtype", "float32")


def _layers(entry: Mapping[str, Any]) -> list[Any]:
    """Of a model; the oldest configs of a Sequential are a bare list."""
    settings = entry.get("config")
    layers = settings.get("layers") if isinstance(settings, dict) else settings
    return layers if isinstance(layers, list) else []


def weights_by_layer(model: WebModel, config: Mapping[str, Any]) -> dict[str, list[WebWeight]]:
    """By layer of the outermost model, in the file's order. Raises SourceError for one that belongs to no layer."""
    outer_of = dict(_outer_names(config))
    found: dict[str, list[WebWeight]] = {}
    for weight in model.weights.values():
        scopes = weight.name.split("/")[:-1]
        outer = next((outer_of[scope] for scope in scopes if scope in outer_of), None)
        if outer is None:
            why = f"no layer has the name of the weight {weight.name}"
            raise SourceError("does not fit its weights", where=model.path, why=why, hint=COPY_HINT)
        found.setdefault(outer, []).append(weight)
    return found


def _outer_names(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The name of each layer, at any depth, with that of the outermost around it; those come last and so count."""
    outermost = [layer for layer in _layers(config) if isinstance(layer, dict)]
    for layer in outermost:
        yield from ((name, _name(layer)) for name in _names(layer))
    yield from ((_name(layer), _name(layer)) for layer in outermost)


def _name(layer: Mapping[str, Any]) -> str:
    config = layer.get("config")
    return str(layer.get("name") or (config.get("name") if isinstance(config, dict) else ""))


def _names(layer: Any) -> Iterator[str]:
    stack = [layer]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if "class_name" in item and (name := _name(item)):
                yield name
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
