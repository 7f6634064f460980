"""Unpacked Keras archives: a folder with `config.json`, `model.weights.h5` (or sharded weights) and `assets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from keras.src.saving import saving_lib

from exporter.errors import SourceError
from exporter.records import Job
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.live_file import FOLDER_MARK, FROM_LIVE_MODEL
from exporter.sources.keras_models.loading import bind_weights_file, keras_errors, load_weights_file, model_from_config
from exporter.sources.keras_models.weight_map import folder_weights


def without_weights(job: Job) -> keras.Model:
    """The architecture from the folder's config. Raises SourceError, TrustError or UnsupportedError."""
    with keras_errors(job.source):
        return model_from_config((Path(job.source) / "config.json").read_bytes(), job)


def with_weights(job: Job, scope: HollowScope, spool_path: str) -> tuple[keras.Model, str]:
    """The model with the folder's weights bound to its variables, unread."""
    model, path = without_weights(job), _weights(job)
    bind_weights_file(model, str(path), scope, _assets(job))
    is_live = (Path(job.source) / FOLDER_MARK).exists()
    return model, FROM_LIVE_MODEL if is_live else f"from {path.name} in the folder"


def reference(job: Job) -> Any:
    """The model as Keras itself fills it."""
    model = without_weights(job)
    load_weights_file(model, str(_weights(job)), _assets(job))
    return model


def _assets(job: Job) -> saving_lib.DiskIOStore | None:
    folder = Path(job.source) / "assets"
    return saving_lib.DiskIOStore(str(folder), mode="r") if folder.is_dir() else None


def _weights(job: Job) -> Path:
    path = folder_weights(job.source)
    if path is None:
        why = "the folder has neither model.weights.h5 nor model.weights.json"
        hint = "--weights FILE reads them from elsewhere; --weights random goes on without"
        raise SourceError("is not complete", where=job.source, why=why, hint=hint)
    return path
