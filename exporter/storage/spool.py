"""The folder for what comes from elsewhere or goes there: it does not outlive its process, even one that was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exporter import files
from exporter.errors import ResourceError
from exporter.memory import format_bytes

PREFIX = "export-model-spool-"


@contextmanager
def spool() -> Iterator[Path]:
    """A new folder among the temporary files (TMPDIR), which is removed afterwards. Raises OutputError.

    It is locked as long as somebody uses it, so that the next one can tell what a killed process has left.
    """
    _clear()
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise files.output_error(error, "the folder for temporary files") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def require_room(folder: Path, nbytes: int) -> None:
    """Raises ResourceError where so much does not fit: better now than after an hour."""
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        why = f"{format_bytes(nbytes)} are to be fetched and {format_bytes(free)} are free"
        hint = "free some space, or set TMPDIR to a folder with more"
        raise ResourceError("the disk for temporary files is too full", where=str(folder.parent), why=why, hint=hint)


def _clear() -> None:
    """What processes of this user that were killed have left."""
    with suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                _remove_unlocked(Path(entry.path))


def _remove_unlocked(folder: Path) -> None:
    with suppress(OSError):
        if folder.stat().st_uid != os.getuid():
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(descriptor)
