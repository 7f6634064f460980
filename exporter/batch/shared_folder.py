"""Whether another machine sees the very folder that the results go to."""

from __future__ import annotations

import fcntl
import os
import uuid
from contextlib import suppress
from pathlib import Path

from exporter import files
from exporter.errors import OutputError

MARK_PREFIX = ".shared-"


class SharedFolder:
    """A folder with a mark in it, made by the batch and looked for by its nodes; it goes when the batch ends.

    The mark is locked as long as the batch lives, so that the next one can tell that of a batch that was killed.
    """

    def __init__(self, folder: Path) -> None:
        """Raises OutputError."""
        self.mark = folder.absolute() / f"{MARK_PREFIX}{uuid.uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
            files.write_lines(self.mark, [])
            self._descriptor = os.open(self.mark, os.O_RDONLY)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise files.output_error(error, folder) from error

    def close(self) -> None:
        """Take the mark away, and the folder if nothing came into it."""
        os.close(self._descriptor)
        with suppress(OSError):
            self.mark.unlink()
        with suppress(OSError):
            self.mark.parent.rmdir()


def require_seen(mark: Path, node: str) -> None:
    """On a node. Raises OutputError."""
    if not mark.exists():
        raise OutputError(
            "is not shared with all nodes",
            where=str(mark.parent),
            why=f"what this machine has there is not there on {node}",
            hint="-o with a folder that every node sees under the same path, or the URL of an object store",
        )


def _remove_abandoned(folder: Path) -> None:
    for mark in folder.glob(MARK_PREFIX + "*"):
        with suppress(OSError):
            descriptor = os.open(mark, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mark.unlink()
            finally:
                os.close(descriptor)
