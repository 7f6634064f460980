"""A temporary folder of one process, which does not stay for ever where the process is killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from exporter.files import output_error

PREFIX = "export-model-job-"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary folder that goes at the end, or, if this process is killed, when the next one asks for its own.

    Raises OutputError when the system has no place for temporary files.
    """
    try:
        remove_abandoned()
        path, descriptor = _locked_temporary()
    except OSError as error:
        raise output_error(error, "the folder for temporary files") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _locked_temporary() -> tuple[Path, int]:
    """The lock says that its process lives. Raises OSError."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    return path, descriptor
            os.close(descriptor)
        # Another process has taken it for abandoned in the moment before it was locked.


def remove_abandoned() -> None:
    """The temporary folders of processes that were killed go."""
    _remove_abandoned(tempfile.gettempdir())


@cache
def _remove_abandoned(place: str) -> None:
    """Once in a process, because the place may hold many files."""
    for path in Path(place).glob(PREFIX + "*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(descriptor)
