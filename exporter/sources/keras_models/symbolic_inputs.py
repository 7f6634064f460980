"""Subclassed models with the inputs that the user names: called on symbolic tensors, they get a graph."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from exporter.errors import UnsupportedError
from exporter.records import Job, Shape
from exporter.sources.keras_models.describe import graph_of


def with_inputs(model: keras.Model, job: Job) -> keras.Model:
    """A functional model around one that has no graph of its own, if `--input-shape` says what goes in; else `model`.

    Raises UnsupportedError when the model does not take such inputs.
    """
    shapes = dict(job.input_shapes)
    if graph_of(model) or not shapes:
        return model
    dtype = "int32" if any(isinstance(layer, keras.layers.Embedding) for layer in model._flatten_layers()) else None
    tensors = {name: _input(name, shape, dtype) for name, shape in shapes.items()}
    try:
        outputs = _called(model, tensors)
    # The model's own code decides what it raises.
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        hint = "--input-shape NAME:SHAPE for each argument of its call, such as 1,224,224,3"
        raise UnsupportedError("does not take such inputs", where=model.name, why=why, hint=hint) from error
    return keras.Model(list(tensors.values()), outputs, name=model.name)


def _input(name: str, shape: Shape, dtype: str | None) -> Any:
    return keras.Input(batch_shape=shape, dtype=dtype, name=name or "inputs")


def _called(model: keras.Model, tensors: dict[str, Any]) -> Any:
    """One tensor as it is; several by the names of the call's arguments, or as one dictionary."""
    arguments = inspect.signature(model.call).parameters
    if len(tensors) == 1 and next(iter(tensors)) not in arguments:
        return model(next(iter(tensors.values())))
    return model(**tensors) if set(tensors) <= set(arguments) else model(tensors)
