"""A live model on its way to the worker: written where that finds it, and removed afterwards."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from exporter.errors import UnsupportedError, UsageError
from exporter.files import output_error
from exporter.formats import HOLLOW, needed
from exporter.options import ExportOptions, checked
from exporter.sources.detection import safe_name

# By name: this process must be able to do without Keras, and one that has a model has imported Keras already.
LIVE_MODEL = "exporter.sources.keras_models.live_model"
WHAT_IS_TAKEN = "a Keras model, or the path or name of a source"


@dataclass(frozen=True)
class Handed:
    """What is planned. `name` is that of the folder, empty where the source decides."""

    source: str
    name: str
    options: ExportOptions


@contextmanager
def handed_over(model: Any, options: ExportOptions, name: str | None) -> Iterator[Handed]:
    """The model as a source, for as long as the block lasts. Raises ExportError."""
    if name is not None and safe_name(Path(f"{name}.x")) != name:
        why, hint = "it is the name of a folder", f"name={safe_name(Path(f'{name}.x'))!r}"
        raise UsageError("cannot be used", where=f"name={name!r}", why=why, hint=hint)
    if isinstance(model, str | os.PathLike):
        yield Handed(os.fspath(model), name or "", options)
        return
    live = _writer(model)
    name = name or safe_name(Path(f"{model.name}.x"))
    with _folder(options.output) as folder:
        yield _written(live, model, name, Path(folder), options)


def _writer(model: Any) -> ModuleType:
    """The module that writes models. Raises UsageError and UnsupportedError for what is no model of Keras 3."""
    bases = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(model).__mro__}
    if "tf_keras.Model" in bases:
        why, hint = "it is a model of Keras 2", "model.save('model.h5'), and exporter.export('model.h5')"
        raise UnsupportedError("cannot be handed over", where=str(model.name), why=why, hint=hint)
    if "keras.Model" not in bases:
        why, hint = f"it is a {type(model).__module__}.{type(model).__name__}", WHAT_IS_TAKEN
        raise UsageError("cannot be exported", why=why, hint=hint)
    return importlib.import_module(LIVE_MODEL)


@contextmanager
def _folder(output: str) -> Iterator[str]:
    """On the output's disk: the system's temporary folder is often small, or in memory."""
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".handover-", dir=output, ignore_cleanup_errors=True)
    except OSError as error:
        raise output_error(error, output) from error
    with folder as path:
        yield path


def _written(live: ModuleType, model: Any, name: str, folder: Path, options: ExportOptions) -> Handed:
    """A description where nothing is to be computed, otherwise what a worker can build the model from."""
    # Before anything is written: options that cannot be.
    job = checked(options)
    if "onnx" not in job.formats and HOLLOW not in needed(job.formats):
        live.write_graph(model, name, folder / name, with_weights=job.stats)
        return Handed(str(folder / name), name, options)
    modules = live.modules_of_custom_classes(model, name)
    live.write_folder(model, name, folder / name)
    # What is in the folder has run in this process before.
    trusted = replace(
        options,
        trust_code=True,
        custom_objects=(*options.custom_objects, *modules),
        input_shapes=options.input_shapes or live.recorded_input_shapes(model),
    )
    return Handed(str(folder / name), name, trusted)
