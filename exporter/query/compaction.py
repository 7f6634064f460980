"""One copy of a table of many exports, because opening ten thousand files takes longer than reading them.

The copies are in the user's cache folder, never in the catalogue, and are made by `exporter.query.copying`. A copy says
of which files it was made, with their sizes and times; files that have changed since are read themselves, and when
there are many of them it is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from exporter.query.places import LocalFile
from exporter.schema import SCHEMA_VERSION

# Opening a file takes some tenths of a millisecond, and a query should not spend much longer on that than it takes.
FEW_FILES = 400
FILE_COLUMN = "compacted_from"
FILES_KEY = "export_model.compacted_from"

# Writes all rows, with that text under `FILES_KEY`, to a path.
Write = Callable[[Path, str], None]


@dataclass(frozen=True)
class Compacted:
    """A copy, the files whose rows in it no longer count, and those that have to be read instead or besides."""

    path: str
    stale: list[str]
    changed: list[LocalFile]


def is_worth_it(files: Sequence[LocalFile]) -> bool:
    return len(files) > FEW_FILES


def up_to_date(table: str, files: Sequence[LocalFile]) -> Compacted | None:
    """The copy that has nearly all of these files; None where there is none."""
    for path in cache_folder().glob(f"{_identity(table, files)}.*.parquet"):
        compacted = _compared(path, files)
        if compacted is not None and len(compacted.changed) + len(compacted.stale) <= FEW_FILES:
            return compacted
    return None


def make(table: str, files: Sequence[LocalFile], write: Write) -> Path:
    """A file of a new name, because a query may be reading the old one; that one goes. Raises OSError."""
    identity = _identity(table, files)
    record = json.dumps({file.path: [file.mtime_ns, file.nbytes] for file in files})
    path = cache_folder() / f"{identity}.{hashlib.sha256(record.encode()).hexdigest()[:16]}.parquet"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary, record)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    for other in path.parent.glob(f"{identity}.*.parquet"):
        if other != path:
            with suppress(OSError):
                other.unlink()
    return path


@contextmanager
def only_maker(table: str, files: Sequence[LocalFile]) -> Iterator[bool]:
    """Whether nobody else makes this copy now; nobody else does inside of the block then. Raises OSError."""
    folder = cache_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / f"{_identity(table, files)}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/export-model/catalogue`, of which any file may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "export-model" / "catalogue"


def _identity(table: str, files: Sequence[LocalFile]) -> str:
    """One copy for each root: the folder that the files have in common."""
    root = os.path.commonpath([file.path for file in files])
    digest = hashlib.sha256(f"{SCHEMA_VERSION}\n{table}\n{root}".encode()).hexdigest()
    return f"{digest[:24]}.{table}"


def _compared(path: Path, files: Sequence[LocalFile]) -> Compacted | None:
    import pyarrow.parquet as pq

    try:
        recorded = json.loads((pq.read_metadata(path).metadata or {})[FILES_KEY.encode()])
    except (OSError, ValueError, KeyError):
        return None
    changed = [file for file in files if recorded.get(file.path) != [file.mtime_ns, file.nbytes]]
    valid = {file.path for file in files}.difference(file.path for file in changed)
    return Compacted(str(path), [path for path in recorded if path not in valid], changed)
