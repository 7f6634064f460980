"""Looks for code in a model's config before any of it is deserialised."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from exporter.errors import SourceError, TrustError, UnsupportedError

SAVE_HINT = "save the model from Keras with model.save('model.keras') and export that file"
TRUST_HINT = "if you trust where the file comes from, repeat the command with --trust-code"


def parse_config(text: str | bytes, where: str) -> dict[str, Any]:
    """Raises SourceError when the text is not the JSON of a model."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            "is corrupt", where=where, why=f"its config is not JSON: {error}", hint="copy or download it again"
        ) from error
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str) or "config" not in config:
        why = "its config does not describe a model"
        raise SourceError("is not a Keras model", where=where, why=why, hint=SAVE_HINT)
    # Losses, metrics and optimizers are not loaded, so that foreign ones do no harm.
    return {key: value for key, value in config.items() if key != "compile_config"}


def refuse_code(config: dict[str, Any], where: str) -> None:
    """Raises TrustError for Lambda layers and marshalled functions."""
    for entry, layer in _serialised(config, ""):
        name = entry.get("class_name")
        if name in ("Lambda", "__lambda__"):
            raise TrustError(
                "contains Python code",
                where=f"{where}, layer {layer}" if layer else where,
                why="a Lambda layer holds marshalled bytecode, which would run on this machine",
                hint=TRUST_HINT,
            )


def refuse_foreign_classes(config: dict[str, Any], where: str, known: Collection[str] = ()) -> None:
    """Raises UnsupportedError for a layer whose class neither Keras nor TensorFlow has, and that is not `known`."""
    for entry, layer in _serialised(config, ""):
        module, name, registered = entry.get("module"), entry.get("class_name"), entry.get("registered_name")
        package = str(module or "keras").partition(".")[0]
        # Keras 3 leaves the module of classes open that are not its own, and names what they are registered as.
        is_foreign = package not in ("keras", "builtins") or (registered and module is None)
        if is_foreign and not {str(name), str(registered)} & set(known):
            raise unknown_class(str(name), f"{where}, layer {layer}" if layer else where)


def unknown_class(name: str, where: str) -> UnsupportedError:
    return UnsupportedError(
        f"has a custom class {name!r}",
        where=where,
        why="its code is not in the file and is not part of Keras",
        hint="--custom-objects FILE.py --trust-code says where the class is",
    )


def _serialised(value: Any, layer: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Every serialised object in the config with the name of the innermost layer around it."""
    stack: list[tuple[Any, str]] = [(value, layer)]
    while stack:
        item, around = stack.pop()
        if isinstance(item, dict):
            if isinstance(item.get("class_name"), str) and "config" in item:
                config = item["config"]
                name = item.get("name") or (config.get("name") if isinstance(config, dict) else None)
                around = str(name) if isinstance(name, str) else around
                yield item, around
            stack.extend((inner, around) for inner in reversed(item.values()))
        elif isinstance(item, list):
            stack.extend((inner, around) for inner in reversed(item))
