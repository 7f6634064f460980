"""A Python function that makes a Keras model: called hollow, so that its weights take no memory.

What its loaders assign is bound unread; what nothing is assigned to gets the values of its own initializer, seeded as
`--weights random` does it.
"""

from __future__ import annotations

import difflib
import inspect
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import keras
import tensorflow as tf
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.backend.common.variables import Variable as AnyVariable
from keras.src.saving import saving_lib

from exporter.errors import ExportError, SourceError, UnsupportedError, UsageError
from exporter.records import Job
from exporter.sources.detection.python_sources import check_trust, parts
from exporter.sources.keras_models import archive_members, keras_archive
from exporter.sources.keras_models.deep_graphs import deep_recursion
from exporter.sources.keras_models.describe import weight_names
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.random_weights import random_value
from exporter.sources.keras_models.symbolic_inputs import with_inputs
from exporter.sources.keras_models.user_code import ModuleReturned, import_code, user_errors
from exporter.sources.opened import random_text


def without_weights(job: Job) -> keras.Model:
    """The model as the function makes it; of a hollow one, what the function assigns is forgotten."""
    scope = get_stateless_scope() if in_stateless_scope() else None
    if not isinstance(scope, HollowScope):
        return made(job)
    with _loaders_bind(scope, tempfile.gettempdir()):
        model = made(job)
    scope.bound.clear()
    return model


def with_weights(job: Job, scope: HollowScope, spool_path: str) -> tuple[keras.Model, str]:
    """The model with what its function loads, unread, and its initial values for the rest."""
    with _loaders_bind(scope, spool_path):
        model = made(job)
    initial, count = _initial(model, scope), len(weight_names(model))
    if initial and len(initial) == count:
        return model, random_text(job)
    for variable, name in initial:
        scope.bind(variable, random_value(variable, job.seed, name))
    rest = f"; {len(initial)} of {count} are initial values (seed {job.seed})" if initial else ""
    return model, f"from the factory{rest}"


def reference(job: Job) -> Any:
    """The model as the function makes it for real, with the same initial values as the export."""
    with HollowScope() as scope:
        with _loaders_bind(scope, tempfile.gettempdir()):
            hollow = made(job)
        numbers = {id(variable): number for number, variable in enumerate(hollow.variables)}
        initial = {numbers[id(v)]: random_value(v, job.seed, name) for v, name in _initial(hollow, scope)}
    model = made(job)
    for number, value in initial.items():
        model.variables[number].assign(value.real())
    return model


@contextmanager
def _loaders_bind(scope: HollowScope, spool_path: str) -> Iterator[None]:
    """Inside, what Keras loads into variables is bound to them; of an archive it would read all weights first.

    A variable that is made with a value, as those of optimizers are, is bound to that.
    """
    real, make = saving_lib.load_model, AnyVariable.__init__

    def load(path: Any, custom_objects: Any = None, compile: Any = True, safe_mode: Any = True) -> Any:
        if not str(path).endswith(".keras") or not zipfile.is_zipfile(path):
            return real(path, custom_objects=custom_objects, compile=compile, safe_mode=safe_mode)
        with archive_members.opened(str(path)) as archive:
            text = archive_members.config_bytes(archive, str(path))
        with deep_recursion():
            model = saving_lib._model_from_config(text, custom_objects, compile=False, safe_mode=safe_mode)
        keras_archive.bind_archive(model, str(path), scope, spool_path)
        return model

    def init(variable: Any, initializer: Any, shape: Any = None, dtype: Any = None, *rest: Any, **named: Any) -> None:
        if callable(initializer) or isinstance(initializer, str):
            make(variable, initializer, shape, dtype, *rest, **named)
            return
        value = keras.ops.convert_to_tensor(initializer, dtype=dtype)
        make(variable, lambda shape, dtype=None: value, tuple(value.shape), dtype or value.dtype, *rest, **named)
        scope.bind(variable, keras.ops.convert_to_numpy(value))

    with ExitStack() as patches:
        patches.enter_context(scope.listening())
        patches.enter_context(mock.patch.object(saving_lib, "load_model", load))
        patches.enter_context(mock.patch.object(AnyVariable, "__init__", init))
        yield


def _initial(model: keras.Model, scope: HollowScope) -> list[tuple[Any, str]]:
    """The weights to which the function has assigned nothing, with their names."""
    names = weight_names(model)
    weights = [variable for variable in model.variables if id(variable) in names]
    return [(variable, names[id(variable)]) for variable in weights if id(variable) not in scope.bound]


def made(job: Job) -> keras.Model:
    """The Keras model that the function returns. Raises TrustError, SourceError, UnsupportedError, ModuleReturned."""
    model = returned(job)
    if not isinstance(model, keras.Model):
        raise ModuleReturned
    return with_inputs(model, job)


def returned(job: Job) -> Any:
    """What the function returns, a Keras model if there is one in it, else a `tf.Module` or `tf.function`."""
    check_trust(job.kind, job.source, (), trusted=job.trust_code)
    function = _function(job.source)
    _check_arguments(function, job)
    with user_errors(job.source):
        result = function(**job.reading.arguments)
    several = result if isinstance(result, tuple | list) else [result]
    found = [each for each in several if isinstance(each, keras.Model)] or [each for each in several if _is_tf(each)]
    if not found:
        raise _no_model(result, job.source)
    return found[0]


def _check_arguments(function: Callable[..., Any], job: Job) -> None:
    """Raises UsageError, which says what the function takes; some that are written in C do not say it."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**job.reading.arguments)
    except TypeError as error:
        takes = str(signature.replace(return_annotation=signature.empty))[:200]
        why, hint = f"{error}; it takes {takes}", _argument_hint(signature, job.reading.arguments)
        raise UsageError("cannot be called like this", where=job.source, why=why, hint=hint) from error


def _argument_hint(signature: inspect.Signature, given: Mapping[str, Any]) -> str:
    """The flag for what is missing or was misspelt."""
    open_names = [name for name in signature.parameters if name not in given]
    for name in given.keys() - signature.parameters.keys():
        if near := difflib.get_close_matches(name, open_names, n=1):
            return f"--arg {near[0]}={given[name]}"
    wanted = [name for name in open_names if signature.parameters[name].default is inspect.Parameter.empty]
    return " ".join(f"--arg {name}=VALUE" for name in wanted) or "leave it out"


def _is_tf(result: Any) -> bool:
    """A layer of Keras is a `tf.Module` too, and does not say what it takes."""
    if isinstance(result, keras.layers.Layer):
        return False
    return isinstance(result, tf.Module) or (callable(result) and hasattr(result, "get_concrete_function"))


def _function(source: str) -> Callable[..., Any]:
    place, name = parts(source)
    module = import_code(place)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [each for each in dir(found) if callable(getattr(found, each))], n=1)
            hint = f"{place}:{near[0]}" if near else "check its name"
            raise SourceError(f"has no function {name!r}", where=place, hint=hint)
        found = getattr(found, part)
    if not callable(found) or isinstance(found, keras.Model):
        why = f"it is a {type(found).__name__}"
        raise SourceError("is not a function", where=source, why=why, hint="def make_model(): ... return the_model")
    function: Callable[..., Any] = found
    return function


def _no_model(result: Any, source: str) -> ExportError:
    kind = type(result).__name__
    if isinstance(result, keras.layers.Layer):
        hint = "return keras.Sequential([keras.Input(...), layer])"
        return UnsupportedError("returns a layer", where=source, why=f"{kind} is not a model", hint=hint)
    why = f"it returns {'nothing' if result is None else kind}"
    return SourceError("returns no model", where=source, why=why, hint="return a keras.Model, or a tf.Module")
