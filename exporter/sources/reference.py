"""The source as its own framework runs it: real weights, real arithmetic; what an ONNX file is compared with."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType

import keras
import numpy as np
import tensorflow as tf

from exporter.records import Job
from exporter.sources import SOURCES
from exporter.sources.keras_models.deep_graphs import deep_recursion
from exporter.sources.keras_models.describe import weight_names
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.loading import load_weights_file
from exporter.sources.keras_models.random_weights import random_value
from exporter.sources.keras_models.symbolic_inputs import with_inputs
from exporter.sources.keras_models.user_code import register_custom_objects

# What a source raises for inputs that are too small for it: Keras, TensorFlow's kernels, TensorFlow Lite's interpreter.
UNFIT = (ValueError, tf.errors.InvalidArgumentError, RuntimeError)


def reference_outputs(job: Job, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the source's framework computes in inference mode; of a Keras model, in the order of its flattened outputs.

    `job.weights` must be what the export used: `random` after a fallback, never `auto` then.
    """
    source = importlib.import_module(SOURCES[job.kind])
    if hasattr(source, "reference_outputs"):
        outputs: list[np.ndarray] = source.reference_outputs(job, inputs)
        return outputs
    register_custom_objects(job)
    with deep_recursion():
        model = with_inputs(_model(job, source), job)
    tensors = [keras.ops.convert_to_tensor(array) for array in inputs]
    structured = tensors[0]
    if not isinstance(model, keras.Sequential):
        structured = keras.tree.pack_sequence_as(model._inputs_struct, tensors)
    return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(model(structured, training=False))]


def _model(job: Job, source: ModuleType) -> keras.Model:
    if job.weights == "random":
        return _filled(source.without_weights, job)
    if job.weights in ("auto", "imagenet"):
        model: keras.Model = source.reference(job)
        return model
    model = source.without_weights(job)
    load_weights_file(model, job.weights)
    return model


def _filled(build: Callable[[Job], keras.Model], job: Job) -> keras.Model:
    """A hollow model, so that nothing is initialised twice, whose variables then get their seeded values for good."""
    with HollowScope():
        model = with_inputs(build(job), job)
        names = weight_names(model)
        lazies = [random_value(v, job.seed, names.get(id(v), v.path)) for v in model.variables]
    for variable, lazy in zip(model.variables, lazies, strict=True):
        variable._initialize(lazy.real())
    return model
