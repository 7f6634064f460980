"""A `tf.Module` or `tf.function` that a factory returns: saved as a SavedModel, which is the source from then on."""

from __future__ import annotations

import dataclasses
import gc
import os
from typing import Any

import keras
import tensorflow as tf

from exporter.errors import SourceError, UnsupportedError, UsageError
from exporter.records import Job
from exporter.sources.detection.kinds import SAVED_MODEL
from exporter.sources.graphs import saved_model
from exporter.sources.graphs.graph_source import OpenedGraph
from exporter.sources.keras_models.factory import returned

FOLDER = "module"
CALL = "__call__"
SIGNATURE_HINT = "@tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)]) before its def"


def open_source(job: Job, spool_path: str) -> OpenedGraph:
    """The factory is called for real, so that all variables are in memory until they are saved below `spool_path`.

    Raises UsageError, UnsupportedError and SourceError.
    """
    if job.weights != "auto":
        why, hint = "it makes a tf.Module, whose weights are its own", "leave --weights out"
        raise UsageError(f"cannot take --weights {job.weights}", where=job.source, why=why, hint=hint)
    # What it draws at random is the same in each run then.
    keras.utils.set_random_seed(job.seed)
    folder = os.path.join(spool_path, FOLDER)
    _save(returned(job), folder, job)
    gc.collect()
    reading = dataclasses.replace(job.reading, signature="", arguments={})
    opened = saved_model.open_source(
        dataclasses.replace(job, source=folder, kind=SAVED_MODEL, reading=reading), spool_path
    )
    opened.weights, opened.stand_in = "from the factory", folder
    return opened


def _save(found: Any, folder: str, job: Job) -> None:
    function = _function(found, job)
    module = found if isinstance(found, tf.Module) else tf.Module()
    try:
        concrete = function.get_concrete_function()
        if module is not found:
            # A function alone keeps nothing alive; a SavedModel has what hangs on the object that is saved.
            module.captured = list(concrete.graph.variables)
        tf.saved_model.save(module, folder, signatures={saved_model.USUAL_SIGNATURE: concrete})
    # The function's own code runs here, and what TensorFlow does not save it refuses in many ways.
    except Exception as error:
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        hint = "--debug shows where it comes from and what it printed"
        raise SourceError("cannot be saved as a SavedModel", where=job.source, why=why, hint=hint) from error


def _function(found: Any, job: Job) -> Any:
    """The one that `--signature` names, `__call__`, or the only one that says what it takes."""
    if not isinstance(found, tf.Module):
        functions = {CALL: found} if _says_what_it_takes(found) else {}
    else:
        names = [CALL, *(name for name in dir(type(found)) if not name.startswith("_"))]
        functions = {name: value for name in names if _says_what_it_takes(value := getattr(found, name, None))}
    if not functions:
        kind = type(found).__name__
        why = f"{kind} has no tf.function with an input_signature, so that nothing says what it takes"
        raise UnsupportedError("cannot be exported", where=job.source, why=why, hint=SIGNATURE_HINT)
    wanted = job.reading.signature or (CALL if CALL in functions else next(iter(functions)))
    if wanted not in functions or (not job.reading.signature and CALL not in functions and len(functions) > 1):
        what = f"has no function {wanted!r}" if wanted not in functions else "has several functions"
        why, hint = f"there are {', '.join(functions)}", f"--signature {next(iter(functions))}"
        raise UsageError(what, where=job.source, why=why, hint=hint)
    return functions[wanted]


def _says_what_it_takes(value: Any) -> bool:
    return hasattr(value, "get_concrete_function") and getattr(value, "input_signature", None) is not None
