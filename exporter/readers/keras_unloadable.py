"""Keras files of which it is certain, before Keras is imported, that it cannot or must not load them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from exporter.errors import ExportError
from exporter.readers import Unexplained, unloaded_note
from exporter.readers.described import DescribedModel
from exporter.readers.keras_classes import RENAMED, WEIGHTS
from exporter.readers.keras_legacy import ALIASES, MODELS
from exporter.records import Job
from exporter.sources.keras_models import untrusted

# The classes that Keras 3 looks for in a legacy file, code and the outsides of other layers among them.
LOADABLE = {
    *("FlaxLayer", "IndexLookup", "JaxLayer", "Lambda", "Layer", "TFSMLayer", "TorchModuleWrapper", "Wrapper"),
    *(*MODELS, *ALIASES, *WEIGHTS, *RENAMED.values()),
}


def with_refusals(
    job: Job, text: Callable[[], str], read: Callable[[bool], DescribedModel], *, has_modules: bool
) -> DescribedModel:
    """What `read` finds, or what it finds when it is lenient, where Keras would refuse the config anyway.

    `text` gives the config. `has_modules` says whether it names the packages of classes, as archives do. Raises
    Unexplained where Keras may know more.
    """
    try:
        return read(False)
    except Unexplained:
        error = None if job.trust_code or job.reading.custom_objects else _refusal(text(), job.source, has_modules)
        if error is None:
            raise
        return replace(read(True), notes=(unloaded_note(error),))


def _refusal(text: str, where: str, has_modules: bool) -> ExportError | None:
    try:
        config = untrusted.parse_config(text, where)
        untrusted.refuse_code(config, where)
        if has_modules:
            untrusted.refuse_foreign_classes(config, where)
        else:
            _refuse_unknown_layers(config, where)
    except ExportError as error:
        return error
    return None


def _refuse_unknown_layers(config: dict[str, Any], where: str) -> None:
    """Raises UnsupportedError for a layer of a class that Keras 3 has not, by the names that a legacy file has."""
    stack = [config]
    while stack:
        entry = stack.pop()
        inside = entry["config"].get("layers") if isinstance(entry.get("config"), dict) else entry.get("config")
        for layer in reversed(inside if isinstance(inside, list) else []):
            if isinstance(layer, dict):
                stack.append(layer)
        name = entry.get("class_name")
        if isinstance(name, str) and name not in LOADABLE:
            settings = entry.get("config")
            own = settings.get("name") if isinstance(settings, dict) else None
            raise untrusted.unknown_class(name, f"{where}, layer {entry.get('name') or own or '?'}")
