"""What a job reads, as a digest: equal bytes give an equal one. Imports neither TensorFlow nor Keras."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporter import files
from exporter.errors import SourceError
from exporter.records import WEIGHT_CHOICES, Job
from exporter.sources.detection import SourceRef, files_of
from exporter.sources.detection.kinds import APPLICATION, FACTORY
from exporter.sources.detection.python_sources import code_file, parts
from exporter.sources.keras_models.weight_map import weights_files

# Hashing more than this takes longer than a glance; it is then done beside the conversion.
CHEAP_NBYTES = 256 * 2**20


def source_digest(job: Job) -> str:
    """Of the source and of a weights file; of an application by name, Keras version and seed. Raises SourceError.

    Zip archives count by their directory: the names, sizes and CRC-32 sums of their members, which loading checks.
    """
    paths = _paths(job)
    content = [_file_digest(path) for path in paths]
    if job.kind == FACTORY:
        # The text of its file says nothing about which function it is, and initial values come from the seed.
        return digest_of([parts(job.source)[1], job.seed, *content])
    if job.kind != APPLICATION:
        return content[0] if len(content) == 1 else digest_of(content)
    choice = job.weights if job.weights in WEIGHT_CHOICES else "file"
    return digest_of([job.source, version("keras"), choice, job.seed, *content])


def nbytes_to_read(job: Job) -> int:
    """How much `source_digest` reads, about. Raises SourceError."""
    # The status first: opening a pipe would wait for whoever writes into it.
    sizes = [(path, _status(path).st_size) for path in _paths(job)]
    return sum(nbytes for path, nbytes in sizes if not zipfile.is_zipfile(path))


def nbytes(job: Job) -> int:
    """The size of all that the job reads; 0 for a model that is made. Raises SourceError."""
    return sum(_status(path).st_size for path in _paths(job)) if job.kind != FACTORY else 0


def digest_of(data: Any) -> str:
    """The SHA-256 of JSON data."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _paths(job: Job) -> list[str]:
    of_weights: Sequence[str] = () if job.weights in WEIGHT_CHOICES else weights_files(job.weights)
    of_code = map(code_file, job.reading.custom_objects)
    return [*files_of(SourceRef(job.kind, job.source, job.name)), *of_weights, *of_code]


def _status(path: str) -> os.stat_result:
    """Of a file: reading a pipe or a device may have no end. Raises SourceError."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        raise SourceError("cannot be read", where=path, why=getattr(error, "strerror", "") or str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        hint = "copy the file itself there"
        raise SourceError("cannot be read", where=path, why="it is not a file", hint=hint)
    return found


def _file_digest(path: str) -> str:
    status = _status(path)
    try:
        return _digest_of_version(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise SourceError("cannot be read", where=path, why=error.strerror or str(error)) from error


@functools.lru_cache(maxsize=64)
def _digest_of_version(path: str, nbytes: int, mtime_ns: int) -> str:
    """Each file is read once in a run, and again when it has changed."""
    if not zipfile.is_zipfile(path):
        return files.sha256(Path(path))
    try:
        with zipfile.ZipFile(path) as archive:
            return digest_of([[info.filename, info.file_size, info.CRC] for info in archive.infolist()])
    except (zipfile.BadZipFile, NotImplementedError):
        return files.sha256(Path(path))
