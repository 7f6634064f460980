"""Models of `keras.applications`, by name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from exporter.errors import ExportError, SourceError
from exporter.records import Job
from exporter.sources.keras_models.hollow import HollowScope

# A server that does not answer must not hang the export; Keras's downloader sets no limit of its own.
DOWNLOAD_TIMEOUT_SECONDS = 20.0
NO_WEIGHTS_HINT = (
    "--weights random uses seeded random values; --weights FILE reads a .weights.h5, .weights.json or .h5 file"
)
BROKEN_CACHE_HINT = "if a download was cut short, delete its file in ~/.keras/models"


def without_weights(job: Job) -> keras.Model:
    return getattr(keras.applications, job.source)(weights=None)


def with_weights(job: Job, scope: HollowScope, spool_path: str) -> tuple[keras.Model, str]:
    """The model with its ImageNet weights bound; Keras itself finds, downloads and checks the file.

    Raises SourceError when they cannot be had.
    """
    with scope.listening():
        return pretrained(job), "imagenet"


def pretrained(job: Job) -> keras.Model:
    """Also the reference for a verification, when it is called outside of a hollow scope."""
    try:
        with _socket_timeout():
            return getattr(keras.applications, job.source)(weights="imagenet")
    except (ExportError, MemoryError):
        raise
    # Keras's downloader wraps every failure in a bare Exception, and a broken file in its cache can raise anything.
    except Exception as error:
        raise SourceError(
            "the ImageNet weights cannot be had",
            where=job.source,
            why=" ".join(str(error).split())[:300],
            hint=NO_WEIGHTS_HINT if "URL fetch failure" in str(error) else f"{BROKEN_CACHE_HINT}; {NO_WEIGHTS_HINT}",
        ) from error


@contextmanager
def _socket_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def reference(job: Job) -> Any:
    return pretrained(job)
