"""Layers models of TensorFlow.js: the config of Keras 2, and weights in files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.legacy.saving import legacy_h5_format

from exporter.errors import SourceError
from exporter.lazy import LazyArray
from exporter.records import Job
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.keras_h5 import legacy_model
from exporter.sources.keras_models.loading import keras_errors
from exporter.sources.web.layer_weights import model_config, weights_by_layer
from exporter.sources.web.model_json import COPY_HINT, WEIGHTS, WebModel, read_model_json
from exporter.sources.web.web_values import lazy_values


def without_weights(job: Job) -> keras.Model:
    """Raises SourceError, TrustError or UnsupportedError."""
    return _built(read_model_json(job.source), job)


def with_weights(job: Job, scope: HollowScope, spool_path: str) -> tuple[keras.Model, str]:
    """The model with its weights bound in the order that Keras's legacy files have."""
    file = read_model_json(job.source)
    model = _built(file, job)
    with keras_errors(job.source):
        for variable, value in _bound(file, model):
            scope.bind(variable, value)
    return model, WEIGHTS


def reference(job: Job) -> Any:
    """The model with its weights for good."""
    file = read_model_json(job.source)
    model = _built(file, job)
    for variable, value in _bound(file, model):
        variable.assign(value.real())
    return model


def _built(file: WebModel, job: Job) -> keras.Model:
    with keras_errors(job.source):
        return legacy_model(job, json.dumps(model_config(file)))


def _bound(file: WebModel, model: keras.Model) -> Iterator[tuple[Any, LazyArray]]:
    """Each variable with its value. Raises SourceError where a layer has other weights than the file."""
    values = lazy_values(file)
    groups = weights_by_layer(file, model_config(file))
    for layer in model.layers:
        variables = legacy_h5_format._legacy_weights(layer)
        held = groups.pop(layer.name, [])
        shapes = [tuple(variable.shape) for variable in variables], [weight.shape for weight in held]
        if shapes[0] != shapes[1]:
            why = f"the layer {layer.name} has weights of the shapes {shapes[0]}, the file {shapes[1]}"
            raise SourceError("does not fit its weights", where=file.path, why=why, hint=COPY_HINT)
        yield from zip(variables, (values[weight.name] for weight in held), strict=True)
