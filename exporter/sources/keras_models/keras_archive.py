"""`.keras` archives: a zip of `config.json` and `model.weights.h5`, read where they lie."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import keras
from keras.src.saving import saving_lib

from exporter.files import output_error
from exporter.records import Job
from exporter.sources.keras_models import archive_members
from exporter.sources.keras_models.archive_members import WEIGHTS
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.keras_2_config import modernise
from exporter.sources.keras_models.loading import OpenedH5Store, bind_saved_state, keras_errors, model_from_config


def without_weights(job: Job) -> keras.Model:
    """The architecture from the archive's config. Raises SourceError, TrustError or UnsupportedError."""
    with archive_members.opened(job.source) as archive:
        text = archive_members.config_bytes(archive, job.source)
    return model_from_config(text, job)


def with_weights(job: Job, scope: HollowScope, spool_path: str) -> tuple[keras.Model, str]:
    """The model with the archive's weights bound to its variables, unread."""
    model = without_weights(job)
    return model, bind_archive(model, job.source, scope, spool_path)


def bind_archive(model: keras.Model, path: str, scope: HollowScope, spool_path: str) -> str:
    """Bind the weights of an archive, unread, and say where they come from. Raises SourceError."""
    with archive_members.opened(path) as archive:
        if WEIGHTS not in archive.namelist():
            raise archive_members.no_weights(archive, path)
        stream, extent, text = archive_members.weights_stream(archive, path, spool_path, scope.check_last)
        with _assets(archive, path, spool_path) as assets, scope.listening(extent), keras_errors(path):
            bind_saved_state(model, OpenedH5Store(h5py.File(stream, "r")), assets, path)
    return text


def reference(job: Job) -> Any:
    """The model as Keras itself loads it; of Keras 2's archives, which it does not load, it reads the weights."""
    with open(job.source, "rb") as stream:
        with archive_members.opened(job.source) as archive:
            text = archive_members.config_bytes(archive, job.source)
            if modernise(json.loads(text)):
                model = model_from_config(text, job)
                with h5py.File(io.BytesIO(archive.read(WEIGHTS)), "r") as file:
                    saving_lib._load_state(model, OpenedH5Store(file), None, "", visited_saveables=set())
                return model
        return saving_lib.load_model(stream, compile=False, safe_mode=not job.trust_code)


@contextmanager
def _assets(archive: zipfile.ZipFile, path: str, spool_path: str) -> Iterator[saving_lib.DiskIOStore | None]:
    """The archive's assets (vocabularies) as files, for as long as layers load them.

    Keras would unpack the whole archive, weights included, into the system's temporary folder.
    """
    members = [info for info in archive.infolist() if info.filename.startswith("assets/")]
    if not members:
        yield None
        return
    with tempfile.TemporaryDirectory(dir=spool_path) as folder:
        for info in members:
            if ".." in info.filename.replace("\\", "/").split("/"):
                raise archive_members.corrupt(
                    path, f"the name of its member {info.filename!r} leads out of the archive"
                )
            archive_members.check_expansion(info, path)
            try:
                archive.extract(info, folder)
            except OSError as error:
                raise output_error(error, os.path.dirname(spool_path)) from error
        yield saving_lib.DiskIOStore(os.path.join(folder, "assets"), mode="r")
