"""A Keras model of the calling process, written where a worker process finds it.

Only for a process that has imported Keras already: nobody else has a model. Weights go to the disk one at a time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FunctionType
from typing import Any

import h5py
import keras
import numpy as np
from keras.src.saving import saving_lib

from exporter.errors import ExportError, UnsupportedError
from exporter.files import output_error, require_space, write_lines
from exporter.sources.keras_models.deep_graphs import deep_recursion
from exporter.sources.keras_models.describe import describe, graph_of, weight_names
from exporter.sources.keras_models.live_file import FOLDER_MARK, GRAPH, GRAPH_VERSION, MARK, WEIGHTS

# What Keras raises for models that cannot say what they are made of (no get_config, arguments that are no JSON).
UNSERIALIZABLE = (NotImplementedError, TypeError, ValueError, AttributeError, OSError)
# Objects in a layer's settings that may be of the user's own classes.
SETTINGS = (keras.initializers.Initializer, keras.regularizers.Regularizer, keras.constraints.Constraint)
KNOWN_PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy", "builtins")
CATALOGUE_HINT = "to=['parquet', 'svg'] describes it without converting it"


def write_graph(model: keras.Model, name: str, path: Path, *, with_weights: bool) -> None:
    """What the model says of itself, and its weights where they are wanted. Raises OutputError and UnsupportedError."""
    _check_built(model, name)
    graph = describe(model, name)
    if with_weights:
        require_space(path.parent, sum(weight.nbytes for weight in graph.weights))
    text = np.frombuffer(json.dumps(asdict(graph)).encode(), np.uint8)
    try:
        with h5py.File(path, "w") as file:
            file.attrs[MARK] = GRAPH_VERSION
            file.create_dataset(GRAPH, data=text)
            for number, variable in enumerate(_variables(model) if with_weights else ()):
                value = keras.ops.convert_to_numpy(variable)
                dataset = file.create_dataset(f"{WEIGHTS}/{number}", data=value)
                if value.dtype.name == "bfloat16":
                    # HDF5 does not know it; Keras marks it in the same way.
                    dataset.attrs["dtype"] = "bfloat16"
    except OSError as error:
        raise output_error(error, path) from error


def _variables(model: keras.Model) -> Iterator[Any]:
    """In the order of the description's weights."""
    found = {id(variable): variable for variable in model.variables}
    return (found[key] for key in weight_names(model))


def write_folder(model: keras.Model, name: str, folder: Path) -> None:
    """An unpacked `.keras` archive, without the optimizer's state. Raises OutputError and UnsupportedError.

    `model.save` would pack it, and that takes the size of all weights twice in memory where there is enough of it.
    """
    _check_built(model, name)
    config = config_of(model, name)
    require_space(folder.parent, sum(int(np.prod(v.shape)) * np.dtype("float32").itemsize for v in model.variables))
    try:
        folder.mkdir()
        write_lines(folder / "config.json", [config])
        write_lines(folder / FOLDER_MARK, [])
        store = saving_lib.H5IOStore(folder / "model.weights.h5", mode="w")
        assets = saving_lib.DiskIOStore(str(folder / "assets"), mode="w")
        left_out = {id(part) for part in (getattr(model, "optimizer", None),) if part is not None}
        try:
            with deep_recursion():
                saving_lib._save_state(model, store, assets, inner_path="", visited_saveables=left_out)
        finally:
            store.close()
            assets.close()
    except OSError as error:
        raise output_error(error, folder) from error


def config_of(model: keras.Model, name: str) -> str:
    """What `model.save` writes as `config.json`. Raises UnsupportedError for a model that cannot say."""
    try:
        with deep_recursion():
            config: str = saving_lib._serialize_model_as_json(model)[0]
    except UNSERIALIZABLE as error:
        why = f"Keras cannot serialise it: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise UnsupportedError("cannot be converted", where=name, why=why, hint=CATALOGUE_HINT) from error
    return config


def modules_of_custom_classes(model: keras.Model, name: str) -> list[str]:
    """The files of the modules that have the model's own classes and functions; a worker imports them.

    Raises UnsupportedError for one that only this process has, such as one of a notebook's cells.
    """
    own = {part: str(part.__module__) for part in _parts(model) if _package(part) not in KNOWN_PACKAGES}
    files = {module: getattr(sys.modules.get(module), "__file__", None) for module in own.values()}
    missing = [part for part, module in own.items() if module == "__main__" or files[module] is None]
    if missing:
        raise _cannot_be_rebuilt(name, missing)
    return [os.path.abspath(file) for file in dict.fromkeys(files.values()) if file]


def _package(part: Any) -> str:
    return str(part.__module__).partition(".")[0]


def _parts(model: keras.Model) -> Iterator[Any]:
    """Classes and functions that Keras needs to build the model from its config. A Lambda layer brings its own."""
    for layer in model._flatten_layers():
        yield type(layer)
        for value in () if isinstance(layer, keras.layers.Lambda) else vars(layer).values():
            if isinstance(value, FunctionType):
                yield value
            elif isinstance(value, SETTINGS):
                yield type(value)


def recorded_input_shapes(model: keras.Model) -> tuple[str, ...]:
    """What a subclassed model has been called on, as `--input-shape` says it, of any batch size.

    Empty where the model has a graph of its own, or takes other things than tensors.
    """
    recorded = getattr(model, "_build_shapes_dict", None) or {}
    shapes = {name.removesuffix("_shape"): shape for name, shape in recorded.items()}
    is_plain = all(isinstance(shape, tuple) and all(map(_is_size, shape)) for shape in shapes.values())
    if graph_of(model) or not is_plain:
        return ()
    texts = {name: ",".join(["?", *map(_size_text, shape[1:])]) for name, shape in shapes.items()}
    return tuple(texts.values()) if len(texts) == 1 else tuple(f"{name}:{text}" for name, text in texts.items())


def _size_text(size: int | None) -> str:
    return "?" if size is None else str(size)


def _is_size(size: Any) -> bool:
    return size is None or isinstance(size, int)


def _check_built(model: keras.Model, name: str) -> None:
    if not model.built:
        why, hint = "the shapes of its weights are not known yet", "call it once, on a batch of any data"
        raise UnsupportedError("has no weights yet", where=name, why=why, hint=hint)


def _cannot_be_rebuilt(name: str, parts: list[Any]) -> ExportError:
    named = ", ".join(f"{part.__name__} of {part.__module__}" for part in parts)
    return UnsupportedError(
        "cannot be converted to ONNX from here",
        where=name,
        why=f"the process that converts it cannot import {named}",
        hint=f"put the code into a file and import it from there (%%writefile my_layers.py); {CATALOGUE_HINT}",
    )
