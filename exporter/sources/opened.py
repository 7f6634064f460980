"""A source opened in this process: its description for free, its ONNX structure, its weights one at a time."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Protocol

import keras
from google.protobuf.message import DecodeError
from keras.src.utils.naming import reset_uids

from exporter.errors import SourceError, UnsupportedError
from exporter.lazy import LazyArray
from exporter.records import Job, ModelGraph, TensorSpec
from exporter.sources import SOURCES
from exporter.sources.conversion import onnx_structure
from exporter.sources.conversion.structure_costs import with_node_costs
from exporter.sources.conversion.tracing import trace
from exporter.sources.input_shapes import input_specs
from exporter.sources.keras_models.describe import describe, layer_namespaces, weight_names
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.loading import bind_weights_file
from exporter.sources.keras_models.random_weights import random_value
from exporter.sources.keras_models.symbolic_inputs import with_inputs
from exporter.sources.keras_models.untrusted import SAVE_HINT
from exporter.sources.keras_models.user_code import ModuleReturned, register_custom_objects
from exporter.structure import OnnxStructure


class Opened(Protocol):
    """What the worker needs of an open source; `OpenedModel` says what each is.

    `stand_in` is a SavedModel that is compared in place of a source which is not the same when it is made again.
    """

    graph: ModelGraph
    weights: str
    notes: tuple[str, ...]

    @property
    def is_random(self) -> bool: ...

    @property
    def stand_in(self) -> str: ...

    @property
    def values(self) -> Mapping[str, LazyArray]: ...

    def inputs(self, job: Job) -> tuple[TensorSpec, ...]: ...

    def finish_checks(self) -> None: ...

    def structure(self, job: Job, *, with_costs: bool = False) -> OnnxStructure: ...


@dataclass
class OpenedModel:
    """`weights` says where the values come from; `notes` are sentences that the user must see."""

    stand_in: ClassVar[str] = ""

    graph: ModelGraph
    weights: str
    notes: tuple[str, ...]
    _model: keras.Model
    _values: Mapping[int, LazyArray]
    _scope: HollowScope

    @property
    def is_random(self) -> bool:
        return is_random(self.weights)

    def inputs(self, job: Job) -> tuple[TensorSpec, ...]:
        """The inputs with the shapes that the job asks for. Raises UsageError."""
        return input_specs(self.graph, job)

    @property
    def values(self) -> dict[str, LazyArray]:
        """The weights of the model by name, unread."""
        return {name: value for value in self._values.values() for name in value.origins}

    def finish_checks(self) -> None:
        """Wait for what finds out, beside the work, whether the source is whole. Raises SourceError."""
        self._scope.finish_checks()

    def structure(self, job: Job, *, with_costs: bool = False) -> OnnxStructure:
        """The model in ONNX, without its weights. Raises UnsupportedError and UsageError (a shape that cannot be)."""
        if not self.graph.inputs:
            raise UnsupportedError(
                "cannot be converted",
                where=self.graph.name,
                why="the model is subclassed and its inputs are not recorded in the file",
                hint="--input-shape 1,224,224,3 says what goes in; --to parquet,dot,svg describes it without",
            )
        specs = self.inputs(job)
        graph = dataclasses.replace(self.graph, inputs=specs)
        traced = trace(self._model, specs, layer_namespaces(self._model))
        weights = [self._values[id(variable)] for variable in traced.variables]
        structure = onnx_structure.build(traced, weights, graph, job.opset, job.dtype)
        return with_node_costs(structure, job, self.graph.inputs) if with_costs else structure


def open_model(job: Job, spool_path: str) -> Opened:
    """Open the job's source hollow. Raises SourceError, TrustError or UnsupportedError."""
    source = _source(job)
    if not hasattr(source, "open_source"):
        return _open_keras(job, spool_path)
    try:
        opened: Opened = source.open_source(job, spool_path)
    except DecodeError as error:
        # Messages inside of messages are taken apart where they are needed.
        why, hint = f"as protobuf: {str(error)[:200]}", "copy or download it again"
        raise SourceError("is damaged", where=job.source, why=why, hint=hint) from error
    return opened


def _open_keras(job: Job, spool_path: str) -> Opened:
    """The scope that keeps the model hollow stays open for the life of this process."""
    register_custom_objects(job)
    scope = HollowScope()
    scope.__enter__()
    try:
        model, weights, notes = _opened(job, scope, spool_path)
    except ModuleReturned:
        from exporter.sources.graphs import returned_module

        scope.__exit__()
        return returned_module.open_source(job, spool_path)
    if not isinstance(model, keras.Model):
        why, hint = f"its config describes a {type(model).__name__}, which is no model", SAVE_HINT
        raise SourceError("is not a Keras model", where=job.source, why=why, hint=hint)
    model = with_inputs(model, job)
    if not model.built:
        raise UnsupportedError(
            "has no weights yet",
            where=job.source,
            why="the model has not been built, so that the shapes of its weights are not known",
            hint="--input-shape 1,224,224,3 builds it; or call it once and save it again",
        )
    graph = describe(model, job.name)
    return OpenedModel(graph, weights, notes, model, _values(job, model, scope, weights), scope)


def _source(job: Job) -> ModuleType:
    return importlib.import_module(SOURCES[job.kind])


def _opened(job: Job, scope: HollowScope, spool_path: str) -> tuple[keras.Model, str, tuple[str, ...]]:
    source = _source(job)
    if job.weights == "random":
        return source.without_weights(job), random_text(job), ()
    if job.weights not in ("auto", "imagenet"):
        model = source.without_weights(job)
        bind_weights_file(model, job.weights, scope)
        return model, f"from {os.path.basename(job.weights)}", ()
    try:
        model, text = source.with_weights(job, scope, spool_path)
    except SourceError as error:
        if job.weights == "imagenet" or job.kind != "application":
            raise
        note = f"RANDOM WEIGHTS: {error.what} ({error.why}); seeded random values (seed {job.seed}) are used instead"
        scope.bound.clear()
        # Keras counts the layers that it names, also those of the model that has just been given up.
        reset_uids()
        return source.without_weights(job), random_text(job), (note,)
    return model, text, ()


def random_text(job: Job) -> str:
    return f"random (seed {job.seed})"


def is_random(weights: str) -> bool:
    return weights.startswith("random ")


def _values(job: Job, model: keras.Model, scope: HollowScope, weights: str) -> dict[int, LazyArray]:
    """A value for every variable: what was bound, or random ones when asked for; generators get their initial state."""
    names = weight_names(model)
    values: dict[int, LazyArray] = {}
    for variable in model.variables:
        key = id(variable)
        name = names.get(key, variable.path)
        if key in scope.bound:
            values[key] = scope.bound[key].named(name)
        elif is_random(weights) or key not in names:
            values[key] = random_value(variable, job.seed, name)
        else:
            raise SourceError(
                f"holds no value for {name}",
                where=job.source if job.weights in ("auto", "imagenet") else job.weights,
                why=f"the model has a weight of shape {list(variable.shape)} there",
                hint="is it the right weights file for this model? --weights random goes on without it",
            )
    return values
