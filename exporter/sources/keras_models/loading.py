"""What the loaders of Keras files share: binding saved states, weights files, and Keras's errors as ours."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import keras
from keras.src.legacy.saving import legacy_h5_format
from keras.src.saving import saving_lib

from exporter.errors import ExportError, SourceError, TrustError
from exporter.records import Job
from exporter.sources.keras_models import untrusted
from exporter.sources.keras_models.deep_graphs import deep_recursion
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.keras_2_config import modernise
from exporter.sources.keras_models.sharded_store import ShardedStore
from exporter.sources.keras_models.untrusted import TRUST_HINT, unknown_class
from exporter.sources.keras_models.user_code import known_names
from exporter.sources.keras_models.weight_map import is_sharded

UNKNOWN_CLASS = re.compile(r"(?:Unknown (?:layer|object|\w+)|Could not locate \w+|Cannot find class):? '?([\w>.]+)'?")


@contextmanager
def keras_errors(where: str) -> Iterator[None]:
    """Turn what Keras raises while it reads a file into errors that say what to do."""
    try:
        yield
    except (ExportError, MemoryError):
        raise
    # The file decides which of Keras's functions run with which arguments, so that nearly anything can be raised.
    except Exception as error:
        text = str(error)
        if "safe_mode" in text or "unsafe deserialization" in text:
            why = "Keras found serialised code in it"
            raise TrustError("contains Python code", where=where, why=why, hint=TRUST_HINT) from error
        if found := UNKNOWN_CLASS.search(text):
            raise unknown_class(found[1], where) from error
        why = f"Keras says: {type(error).__name__}: {_first_lines(text)}"
        is_class = "could not be deserialized" in text
        hint = "a factory makes it from its code: models.py:make_model" if is_class else "is it the right file?"
        raise SourceError("cannot be loaded", where=where, why=why, hint=hint) from error


def _first_lines(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines()[:3] if line.strip())[:400]


def model_from_config(text: bytes, job: Job) -> keras.Model:
    """The architecture from a `config.json`, or from `model.to_json()`, of Keras 3.

    Raises SourceError, TrustError or UnsupportedError.
    """
    config = untrusted.parse_config(text, job.source)
    if not job.trust_code:
        untrusted.refuse_code(config, job.source)
    if modernise(config):
        text = json.dumps(config).encode()
    untrusted.refuse_foreign_classes(config, job.source, known_names())
    with keras_errors(job.source), deep_recursion():
        return saving_lib._model_from_config(text, custom_objects=None, compile=False, safe_mode=not job.trust_code)


def bind_saved_state(model: keras.Model, store: saving_lib.H5IOStore, assets: Any, where: str) -> None:
    """Keras's recursive walk over layers and their stores; under `HollowScope.listening` it only binds.

    Raises SourceError with the first layer that refuses what the file holds for it.
    """
    failed: set[int] = set()
    errors: dict[int, tuple[Any, Exception]] = {}
    saving_lib._load_state(
        model,
        weights_store=store,
        assets_store=assets,
        inner_path="",
        visited_saveables=set(),
        failed_saveables=failed,
        error_msgs=errors,
    )
    if failed:
        layer, error = next(iter(errors.values()))
        raise SourceError(
            "does not fit the model",
            where=f"{where}, layer {getattr(layer, 'name', layer)}",
            why=_first_lines(str(error)),
            hint="is it the right weights file for this model?",
        ) from error


def bind_weights_file(model: keras.Model, path: str, scope: HollowScope, assets: Any = None) -> None:
    """Bind the weights of a `.weights.h5` file, of sharded ones (`.weights.json`) or of a legacy `.h5` file.

    Legacy are the files of Keras 2 and whole models; they are told by their content. `assets` is Keras's store of
    what layers load beside their weights (vocabularies).
    """
    with keras_errors(path), scope.listening():
        if is_sharded(path):
            bind_saved_state(model, ShardedStore(path), assets, path)
            return
        # Left open for the life of the worker: the weights are read from it later.
        file = h5py.File(path, "r", locking=False)
        if group := _legacy_root(file):
            legacy_h5_format.load_weights_from_hdf5_group(group, model)
        else:
            bind_saved_state(model, OpenedH5Store(file), assets, path)


class OpenedH5Store(saving_lib.H5IOStore):
    """Keras's own store over a file that is open already."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        super().__init__(os.path.basename(file.filename))

    def _get_h5_file(self, path_or_io: Any, mode: str | None = None) -> h5py.File:
        return self._file


def _legacy_root(file: h5py.File) -> h5py.Group | None:
    """Where a legacy file keeps its layers, None for one that follows the layout of Keras 3."""
    group = legacy_h5_format.safe_get_h5_group(file, "model_weights") if "model_weights" in file else file
    return group if "layer_names" in group.attrs or "layer_names0" in group.attrs else None


class UnlockedShards(saving_lib.ShardedH5IOStore):
    """Keras's own store of shards, without the locks that read-only and network file systems may refuse."""

    def _get_h5_file(self, path_or_io: Any, mode: str | None = None) -> h5py.File:
        return h5py.File(path_or_io, mode or self.mode, locking=False)


def load_weights_file(model: keras.Model, path: str, assets: Any = None) -> None:
    """The same into a real model, by Keras alone: the reference that verification compares with."""
    if is_sharded(path):
        saving_lib._load_state(model, UnlockedShards(path), assets, "", visited_saveables=set())
        return
    with h5py.File(path, "r", locking=False) as file:
        if group := _legacy_root(file):
            legacy_h5_format.load_weights_from_hdf5_group(group, model)
        else:
            saving_lib._load_state(model, OpenedH5Store(file), assets, "", visited_saveables=set())
