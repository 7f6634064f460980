"""The members of a `.keras` archive: found, checked and opened where they lie. Imports neither TensorFlow nor Keras."""

from __future__ import annotations

import functools
import io
import lzma
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from exporter.errors import ExportError, SourceError, UnsupportedError
from exporter.files import output_error, require_space
from exporter.sources.graphs.crc import PiecewiseCrc
from exporter.sources.h5_values import COPY_AGAIN, Extent

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
# Deflate reaches about 1000:1 on zeros; neither weights nor configs compress like that.
LARGEST_EXPANSION = 100
LOCAL_HEADER_BYTES = 30
# Of a file of at most this size, damage is called damage before a loader meets it.
AT_ONCE_NBYTES = 64 * 2**20


@contextmanager
def opened(path: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    # zipfile raises RuntimeError for an encrypted member, NotImplementedError for an unknown compression.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError) as error:
        raise corrupt(path, str(error)) from error


def corrupt(path: str, why: str) -> SourceError:
    return SourceError("is truncated or corrupt", where=path, why=why, hint=COPY_AGAIN)


def no_weights(archive: zipfile.ZipFile, path: str) -> ExportError:
    hint = "save the model again with model.save('model.keras'); --weights random goes on without weights"
    if "model.weights.npz" in archive.namelist():
        why = "its weights are stored as NumPy arrays, and this version reads HDF5"
        return UnsupportedError("cannot be converted", where=path, why=why, hint=hint)
    return SourceError("is not complete", where=path, why=f"the archive has no {WEIGHTS}", hint=hint)


def config_bytes(archive: zipfile.ZipFile, path: str) -> bytes:
    info = archive.getinfo(CONFIG)
    check_expansion(info, path)
    return archive.read(info)


def check_expansion(info: zipfile.ZipInfo, path: str) -> None:
    """Before a byte is unpacked. Raises SourceError."""
    if info.file_size > LARGEST_EXPANSION * max(info.compress_size, 2**20):
        why = f"{info.filename} claims to expand from {info.compress_size} to {info.file_size} bytes"
        raise corrupt(path, why)


def weights_stream(
    archive: zipfile.ZipFile, path: str, spool_path: str, check_last: Callable[[Callable[[], None]], None]
) -> tuple[BinaryIO, Extent, str]:
    """The weights file inside the archive: a window onto it, or a copy in `spool_path` when it is compressed.

    The check of a large window is given to `check_last`, to be made when most of it has been read anyway.
    """
    info = archive.getinfo(WEIGHTS)
    check_expansion(info, path)
    if info.compress_type == zipfile.ZIP_STORED:
        window = Window(path, info)
        check = functools.partial(_check_crc, window.extent, info, path)
        check_last(check) if info.file_size > AT_ONCE_NBYTES else check()
        return io.BufferedReader(window, 2**16), window.extent, "from the archive"
    require_space(spool_path, info.file_size)
    try:
        # The folder of the output, not the system's temporary one, which is often small or in memory.
        spool = tempfile.TemporaryFile(dir=spool_path)  # noqa: SIM115 (read from for the life of the worker)
        with archive.open(info) as member:
            shutil.copyfileobj(member, spool, 2**20)
        spool.flush()
    except OSError as error:
        raise output_error(error, os.path.dirname(spool_path)) from error
    text = f"from the archive (compressed there; {info.file_size} bytes were spooled to the output's disk)"
    return spool, Extent(spool.fileno(), owner=spool), text


def _check_crc(extent: Extent, info: zipfile.ZipInfo, path: str) -> None:
    """Compare the member's sum with the zip's; HDF5 would not notice a changed weight. Raises SourceError."""
    crc, unheard = extent.crc or PiecewiseCrc(), Extent(extent.descriptor, extent.offset)
    try:
        found = crc.total(info.file_size, unheard.read)
    except OSError as error:
        raise corrupt(path, f"{WEIGHTS}: {error}") from error
    if found != info.CRC:
        raise corrupt(path, f"Bad CRC-32 for file {WEIGHTS!r}")


class Window(io.RawIOBase):
    """A stored member of a zip file as a seekable file of its own."""

    def __init__(self, path: str, info: zipfile.ZipInfo) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed with the window)
        header = os.pread(self._file.fileno(), LOCAL_HEADER_BYTES, info.header_offset)
        # The local header's name and extra field have lengths of their own (zip specification, 4.3.7).
        name_bytes, extra_bytes = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        self._start = info.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        # A file of its own, because weights are read when the window may have been closed.
        own = open(path, "rb", buffering=0)  # noqa: SIM115 (closed when the last reader of weights is gone)
        self.extent = Extent(own.fileno(), self._start, PiecewiseCrc(), own)
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
