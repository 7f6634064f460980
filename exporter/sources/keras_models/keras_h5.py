"""Whole-model `.h5` files: the layout of Keras 2, which Keras 3 still writes."""

from __future__ import annotations

from typing import Any

import h5py
import keras
from keras.src.legacy.saving import json_utils, legacy_h5_format, saving_options, saving_utils
from keras.src.saving import serialization_lib

from exporter.records import Job
from exporter.sources.keras_models import untrusted
from exporter.sources.keras_models.deep_graphs import deep_recursion
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.keras_2_config import modernise, renumber_nested_calls
from exporter.sources.keras_models.loading import keras_errors


def without_weights(job: Job) -> keras.Model:
    """The architecture from the file's `model_config`. Raises SourceError, TrustError or UnsupportedError."""
    with keras_errors(job.source), h5py.File(job.source, "r", locking=False) as file:
        return legacy_model(job, _config_text(file))


def with_weights(job: Job, scope: HollowScope, spool_path: str) -> tuple[keras.Model, str]:
    """The model with the file's weights bound in the file's order, which is Keras's legacy rule."""
    model = without_weights(job)
    with keras_errors(job.source):
        # Left open for the life of the worker: the weights are read from it later.
        file = h5py.File(job.source, "r", locking=False)
        with scope.listening():
            legacy_h5_format.load_weights_from_hdf5_group(
                legacy_h5_format.safe_get_h5_group(file, "model_weights"), model
            )
    return model, "from the file"


def reference(job: Job) -> Any:
    """The model as Keras itself fills it."""
    with h5py.File(job.source, "r", locking=False) as file:
        model = legacy_model(job, _config_text(file))
        legacy_h5_format.load_weights_from_hdf5_group(legacy_h5_format.safe_get_h5_group(file, "model_weights"), model)
    return model


def _config_text(file: h5py.File) -> str:
    text = file.attrs["model_config"]
    return text.decode() if isinstance(text, bytes) else str(text)


def legacy_model(job: Job, text: str) -> keras.Model:
    """The architecture from a config as Keras 2 writes it. Raises SourceError and TrustError."""
    config = untrusted.parse_config(text, job.source)
    if not job.trust_code:
        untrusted.refuse_code(config, job.source)
    legacy = saving_options.keras_option_scope(use_legacy_config=True)
    decoded = json_utils.decode(text)
    renumber_nested_calls(decoded)
    modernise(decoded)
    with legacy, serialization_lib.SafeModeScope(not job.trust_code), deep_recursion():
        return saving_utils.model_from_config(decoded, custom_objects={})
