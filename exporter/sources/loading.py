"""What the loaders of Keras files share: binding saved states, weights files, and Keras's errors as ours."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import keras
from keras.src.legacy.saving import legacy_h5_format
from keras.src.saving import saving_lib

from exporter.errors import SourceError, TrustError
from exporter.sources.hollow import HollowScope
from exporter.sources.untrusted import TRUST_HINT, unknown_class

UNKNOWN_CLASS = re.compile(r"(?:Unknown (?:layer|object|\w+)|Could not locate \w+|Cannot find class):? '?([\w>.]+)'?")
# What Keras raises for files that do not hold what they should.
KERAS_FAILURES = (ValueError, TypeError, LookupError, AttributeError, OSError, NotImplementedError, zipfile.BadZipFile)


@contextmanager
def keras_errors(where: str) -> Iterator[None]:
    """Turn what Keras raises while it reads a file into errors that say what to do."""
    try:
        yield
    except KERAS_FAILURES as error:
        text = str(error)
        if "safe_mode" in text or "unsafe deserialization" in text:
            why = "Keras found serialised code in it"
            raise TrustError("contains Python code", where=where, why=why, hint=TRUST_HINT) from error
        if found := UNKNOWN_CLASS.search(text):
            raise unknown_class(found[1], where) from error
        why = f"Keras says: {_first_lines(text)}" if text else type(error).__name__
        raise SourceError("cannot be loaded", where=where, why=why, hint="is it the right file?") from error


def _first_lines(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines()[:3] if line.strip())[:400]


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


def bind_weights_file(model: keras.Model, path: str, scope: HollowScope) -> None:
    """Bind the weights of a `.weights.h5` file or of a legacy (Keras 2, or whole-model) `.h5` file, told by content."""
    with keras_errors(path):
        file = h5py.File(path, "r", locking=False)
        group = file["model_weights"] if "model_weights" in file else file
        with scope.listening():
            if "layer_names" in group.attrs or "layer_names0" in group.attrs:
                legacy_h5_format.load_weights_from_hdf5_group(group, model)
            else:
                bind_saved_state(model, saving_lib.H5IOStore(path), None, path)


def load_weights_file(model: keras.Model, path: str) -> None:
    """The same into a real model, by Keras alone: the reference that verification compares with."""
    with h5py.File(path, "r", locking=False) as file:
        group = file["model_weights"] if "model_weights" in file else file
        if "layer_names" in group.attrs or "layer_names0" in group.attrs:
            legacy_h5_format.load_weights_from_hdf5_group(group, model)
        else:
            saving_lib._load_state(model, saving_lib.H5IOStore(path), None, "", visited_saveables=set())
