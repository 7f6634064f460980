"""A model without weights: the JSON that `model.to_json()` gives, of Keras 3 or Keras 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import keras

from exporter.errors import SourceError
from exporter.records import Job
from exporter.sources.keras_models import untrusted
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.keras_h5 import legacy_model
from exporter.sources.keras_models.loading import keras_errors, model_from_config

NO_WEIGHTS_HINT = "--weights FILE reads a .weights.h5, .weights.json or .h5 file; --weights random makes seeded values"


def without_weights(job: Job) -> keras.Model:
    """Raises SourceError, TrustError or UnsupportedError."""
    with keras_errors(job.source):
        text = Path(job.source).read_bytes()
        if "module" in untrusted.parse_config(text, job.source):
            return model_from_config(text, job)
        # Keras 2 did not say which module a class is from.
        return legacy_model(job, text.decode())


def with_weights(job: Job, scope: HollowScope, spool_path: str) -> NoReturn:
    """Raises SourceError: there are none."""
    raise SourceError(
        "has no weights", where=job.source, why="it is the architecture of a model alone", hint=NO_WEIGHTS_HINT
    )


def reference(job: Job) -> Any:
    """Raises SourceError: there is no model without weights."""
    return with_weights(job, HollowScope(), "")
