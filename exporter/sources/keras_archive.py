"""`.keras` archives: a zip of `config.json` and `model.weights.h5`, read where they lie."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import h5py
import keras
from keras.src.saving import saving_lib

from exporter.errors import SourceError, UnsupportedError
from exporter.files import output_error
from exporter.records import Job
from exporter.sources import untrusted
from exporter.sources.hollow import HollowScope
from exporter.sources.loading import bind_saved_state, keras_errors

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
CONFIG_LIMIT_BYTES = 2**30
# Deflate reaches about 1000:1 on zeros; weights do not compress like that.
LARGEST_EXPANSION = 100
LOCAL_HEADER_BYTES = 30


def without_weights(job: Job) -> keras.Model:
    """The architecture from the archive's config. Raises SourceError, TrustError or UnsupportedError."""
    with _opened(job.source) as archive:
        text = _config_text(archive, job.source)
    config = untrusted.parse_config(text, job.source)
    if not job.trust_code:
        untrusted.refuse_code(config, job.source)
    untrusted.refuse_foreign_classes(config, job.source)
    with keras_errors(job.source):
        return saving_lib._model_from_config(text, custom_objects=None, compile=False, safe_mode=not job.trust_code)


def with_weights(job: Job, scope: HollowScope, spool_path: str) -> tuple[keras.Model, str]:
    """The model with the archive's weights bound to its variables, unread."""
    model = without_weights(job)
    with _opened(job.source) as archive:
        if WEIGHTS not in archive.namelist():
            raise UnsupportedError(
                f"has no {WEIGHTS}",
                where=job.source,
                why="this version reads weights that are stored as HDF5",
                hint="save the model again with model.save('model.keras')",
            )
        stream, text = _weights_stream(archive, job.source, spool_path)
        assets = saving_lib.DiskIOStore("assets", archive=archive, mode="r") if _has_assets(archive) else None
        try:
            with scope.listening(), keras_errors(job.source):
                bind_saved_state(model, ArchivedH5Store(stream), assets, job.source)
        finally:
            if assets:
                assets.close()
    return model, text


def reference(job: Job) -> Any:
    """The model as Keras itself loads it."""
    with open(job.source, "rb") as stream:
        return saving_lib.load_model(stream, compile=False, safe_mode=not job.trust_code)


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise _corrupt(path, str(error)) from error


def _corrupt(path: str, why: str) -> SourceError:
    return SourceError("is truncated or corrupt", where=path, why=why, hint="copy or download it again")


def _config_text(archive: zipfile.ZipFile, path: str) -> bytes:
    info = archive.getinfo(CONFIG)
    if info.file_size > CONFIG_LIMIT_BYTES:
        raise _corrupt(path, f"{CONFIG} claims to be {info.file_size} bytes long")
    return archive.read(info)


def _has_assets(archive: zipfile.ZipFile) -> bool:
    return any(name.startswith("assets/") for name in archive.namelist())


def _weights_stream(archive: zipfile.ZipFile, path: str, spool_path: str) -> tuple[BinaryIO, str]:
    """The weights file inside the archive: a window onto it, or a copy in `spool_path` when it is compressed."""
    info = archive.getinfo(WEIGHTS)
    if info.file_size > LARGEST_EXPANSION * max(info.compress_size, 2**20):
        raise _corrupt(path, f"{WEIGHTS} claims to expand from {info.compress_size} to {info.file_size} bytes")
    if info.compress_type == zipfile.ZIP_STORED:
        _check_crc(archive, info)
        return io.BufferedReader(_Window(path, info), 2**16), "from the archive"
    try:
        # The folder of the output, not the system's temporary one, which is often small or in memory.
        spool = tempfile.TemporaryFile(dir=spool_path)
        with archive.open(info) as member:
            shutil.copyfileobj(member, spool, 2**20)
    except OSError as error:
        raise output_error(error, spool_path) from error
    return spool, f"from the archive (compressed there; {info.file_size} bytes were spooled to the output's disk)"


def _check_crc(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Read the member once, as `zipfile` checks its sum at the end; HDF5 would not notice a changed weight."""
    with archive.open(info) as member:
        while member.read(2**20):
            pass


class _Window(io.RawIOBase):
    """A stored member of a zip file as a seekable file of its own."""

    def __init__(self, path: str, info: zipfile.ZipInfo) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with the window)
        header = os.pread(self._file.fileno(), LOCAL_HEADER_BYTES, info.header_offset)
        # The local header's name and extra field have lengths of their own (zip specification, 4.3.7).
        name_bytes, extra_bytes = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        self._start = info.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        self._size, self._position = info.file_size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._position)]
        count = os.preadv(self._file.fileno(), [view], self._start + self._position) if view else 0
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class ArchivedH5Store(saving_lib.H5IOStore):
    """Keras's own store over a stream; it is kept open, because weights are read from it later."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        super().__init__(WEIGHTS)

    def _get_h5_file(self, path_or_io: Any, mode: str | None = None) -> h5py.File:
        return h5py.File(self._stream, "r")
