"""What the settings of a layer in a config say: what shapes depend on, and which layers are among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.readers.keras_calls import argument_names, shape_of
from exporter.readers.keras_encodings import BOXED, BOXES, REVERSED, REVERSIBLE, boxed_calls, reversed_calls
from exporter.readers.keras_encodings import SETTINGS as ENCODING_SETTINGS
from exporter.readers.keras_inner import is_layer
from exporter.readers.keras_sequences import BUILT_WITH_SHAPES, CELLS, RECURRENT, ROLE_NAMES, ROLES, WRAPPERS
from exporter.readers.keras_shapes import SETTINGS
from exporter.records import Shape


def shape_settings(class_name: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """What shapes depend on."""
    config = entry["config"]
    if class_name in (*RECURRENT, *WRAPPERS, *CELLS):
        return config
    if class_name in BUILT_WITH_SHAPES:
        return {**config, ROLES: [argument_names(node, ROLE_NAMES) for node in entry.get("inbound_nodes") or ()]}
    found = {key: value for key, value in config.items() if key in SETTINGS or key in ENCODING_SETTINGS}
    if class_name == REVERSIBLE:
        found[REVERSED] = reversed_calls(entry.get("inbound_nodes") or ())
    if class_name == BOXES:
        found[BOXED] = boxed_calls(entry.get("inbound_nodes") or ())
    return found


def unshared(value: Any) -> Any:
    """Without the numbers by which Keras finds objects that stand in several places of one file."""
    if isinstance(value, dict):
        return {key: unshared(inner) for key, inner in value.items() if key != "shared_object_id"}
    return [unshared(inner) for inner in value] if isinstance(value, list) else value


def holds_layers(value: Any) -> bool:
    """Whether a setting is, or has in it, a layer."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if is_layer(item):
                return True
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


def built_shape(config: Any) -> Shape | None:
    shape = config.get("input_shape") if isinstance(config, dict) else None
    return (
        shape_of(shape)
        if isinstance(shape, list) and all(size is None or type(size) is int for size in shape)
        else None
    )
