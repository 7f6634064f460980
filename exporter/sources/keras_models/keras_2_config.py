"""Configs that Keras 2 wrote, made readable for Keras 3 where it lost the knowledge itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# Where Keras 2 had its kinds of models, also under the name that it has beside Keras 3 (`tf_keras`).
OLD_MODELS = re.compile(r"(tf_)?keras\.(src\.)?engine\.(functional|sequential|training)")


def modernise(config: Any) -> bool:
    """Change, in place, what Keras 3 refuses although it means the same; whether there was any of it.

    Recurrent layers had `time_major`, which Keras 3 drops by itself but for layers inside of others (`Bidirectional`),
    and batch norms had a list of one axis. Functional models were of a module that has another name now, and archives
    of them count calls of nested models as `renumber_nested_calls` has it.
    """
    stack, has_changed = [config], False
    if isinstance(config, dict) and OLD_MODELS.fullmatch(str(config.get("module"))):
        renumber_nested_calls(config)
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            has_changed |= _modernise_module(item) | _modernise_layer(item.get("class_name"), item.get("config"))
            stack.extend(item.values())
    return has_changed


def _modernise_module(item: dict[str, Any]) -> bool:
    is_old = OLD_MODELS.fullmatch(str(item.get("module"))) is not None
    if is_old:
        item["module"] = "keras.src.models.functional" if item.get("class_name") == "Functional" else "keras"
    return is_old


def _modernise_layer(class_name: Any, settings: Any) -> bool:
    if not isinstance(settings, dict):
        return False
    before = len(settings), settings.get("axis")
    if settings.get("time_major") is False:
        del settings["time_major"]
    if class_name == "BatchNormalization" and isinstance(settings.get("axis"), list) and len(settings["axis"]) == 1:
        settings["axis"] = settings["axis"][0]
    return before != (len(settings), settings.get("axis"))


def renumber_nested_calls(config: Any) -> None:
    """Change, in place, the references to calls of nested models, at every depth.

    Keras 2 counts a nested model's own graph as its call 0, so that references to it start at 1. Keras 3 has no such
    call and takes the file for broken; only in `output_layers` does it subtract 1, and only for functional models.
    """
    inner = config.get("config") if isinstance(config, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("layers"), list):
        return
    layers = [layer for layer in inner["layers"] if isinstance(layer, dict)]
    nested = {layer.get("name"): layer for layer in layers if _has_layers(layer)}
    is_keras_3 = any(isinstance(node, dict) for layer in layers for node in layer.get("inbound_nodes") or ())
    calls = list(_references([layer.get("inbound_nodes") for layer in layers]))
    outputs = list(_references(inner.get("output_layers")))
    for name, layer in nested.items():
        own_calls = [call for call in calls if call[0] == name]
        if layer.get("class_name") == "Sequential":
            own_calls += [call for call in outputs if call[0] == name]
        if not is_keras_3 and all(call[1] > 0 for call in own_calls):
            for call in own_calls:
                call[1] -= 1
        renumber_nested_calls(layer)


def _has_layers(layer: dict[str, Any]) -> bool:
    return isinstance(layer.get("config"), dict) and "layers" in layer["config"]


def _references(value: Any) -> Iterator[list[Any]]:
    """Every `[layer, call, output, …]` in the lists; Keras 3 writes dictionaries instead."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            if len(item) in (3, 4) and isinstance(item[0], str) and all(type(number) is int for number in item[1:3]):
                yield item
                # Keyword arguments may be tensors too.
                stack.extend(item[3].values() if len(item) == 4 and isinstance(item[3], dict) else ())
            else:
                stack.extend(item)
