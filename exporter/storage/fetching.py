"""A source comes from its address to this machine: one file or a folder, whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from exporter import files
from exporter.errors import ExportError, ResourceError, SourceError
from exporter.memory import format_bytes
from exporter.storage.addresses import WEB, beside, check_source, file_name, public, scheme_of
from exporter.storage.failures import failures, source_error
from exporter.storage.objects import ObjectStore, Stored

if TYPE_CHECKING:
    from exporter.storage.web import WebFile

# A folder with more files than this is a bucket, or a mistake.
MOST_FILES = 10_000
PARALLEL_LOOKS = 16

Progress = Callable[[int, int], None]


def silently(done_bytes: int, total_bytes: int) -> None:
    """For who does not want to know."""


@dataclass(frozen=True)
class Look:
    """What is known of a source before it is fetched: its size, -1 for unknown, and what changes with its content.

    `version` is empty where the store does not tell. `is_folder` is None as long as nobody has asked.
    """

    nbytes: int
    version: str
    files: tuple[Stored, ...]


def look(address: str) -> Look:
    """One request, or a listing where it is a folder. Raises SourceError and UsageError."""
    check_source(address)
    try:
        found = _found(address)
    except failures() as error:
        raise source_error(error, address) from error
    nbytes = sum(each.nbytes for each in found) if all(each.nbytes >= 0 for each in found) else -1
    return Look(nbytes, _version(found), tuple(found))


def look_at_all(addresses: Sequence[str]) -> dict[str, Look | ExportError]:
    """Several at the same time, because each look is mostly waiting."""

    def looked(address: str) -> Look | ExportError:
        try:
            return look(address)
        except ExportError as error:
            return error

    if not addresses:
        return {}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(PARALLEL_LOOKS, "look") as pool:
        return dict(zip(addresses, pool.map(looked, addresses), strict=True))


def fetch(address: str, folder: Path, progress: Progress = silently) -> Path:
    """The file or folder at `address`, inside of `folder` under its own name. `progress` may raise.

    Raises SourceError, and ResourceError where the disk has no room.
    """
    seen = look(address)
    place = folder / file_name(address)
    folder.mkdir(parents=True, exist_ok=True)
    require_room(folder, max(seen.nbytes, 0))
    done = 0

    def further(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(done, max(seen.nbytes, done))

    try:
        for stored in seen.files:
            path = place / stored.name if stored.name else place
            path.parent.mkdir(parents=True, exist_ok=True)
            save(_content(address, stored), path, stored.nbytes, address, further)
    except OSError as error:
        # Stores may have a file and a folder of one name, which the disk has not.
        raise files.output_error(error, place) from error
    again = look(address) if seen.version else seen
    if again.version != seen.version:
        why, hint = "it was replaced while it was read", "run it again"
        raise SourceError("has changed", where=public(address), why=why, hint=hint)
    return place


def require_room(folder: Path, nbytes: int) -> None:
    """Raises ResourceError where so much does not fit: better now than after an hour."""
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        why = f"{format_bytes(nbytes)} are to be fetched and {format_bytes(free)} are free"
        hint = "free some space, or set TMPDIR to a folder with more"
        raise ResourceError("the disk for temporary files is too full", where=str(folder.parent), why=why, hint=hint)


def fetch_beside(address: str, names: Iterable[str], path: Path, progress: Progress = silently) -> None:
    """Files that the fetched source in `path` refers to, where they exist; who reads it complains of the others."""
    for name in names:
        if _is_inside(name) and not (path.parent / name).exists():
            try:
                fetch(beside(address, name), path.parent / PurePosixPath(name).parent, progress)
            except SourceError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise


def names_like(address: str, stem: str) -> list[str]:
    """Names of files in the same folder that start so; none where the server does not list. Raises SourceError."""
    if scheme_of(address) in WEB:
        return []
    try:
        found = ObjectStore(beside(address, "")).names()
    except failures() as error:
        raise source_error(error, address) from error
    return [name for name in found if name.startswith(stem)]


def save(
    pieces: Iterable[bytes], path: Path, nbytes: int, address: str, further: Callable[[int], None] = lambda nbytes: None
) -> None:
    """The pieces as a file; one of another size than `nbytes` (-1: unknown) is not kept.

    Raises SourceError for what is wrong with the pieces, and OutputError for what is wrong with the file.
    """
    written = 0
    with files.new_file(path) as stream:
        for piece in _translated(pieces, address):
            stream.write(piece)
            written += len(piece)
            further(len(piece))
        if nbytes not in (-1, written):
            why = f"{written:,} of {nbytes:,} bytes came"
            raise SourceError("did not come whole", where=public(address), why=why, hint="run it again")


def _translated(pieces: Iterable[bytes], address: str) -> Iterator[bytes]:
    """What goes wrong with them must not be taken for trouble with the disk. Raises SourceError."""
    try:
        yield from pieces
    except failures() as error:
        raise source_error(error, address) from error


def _found(address: str) -> list[Stored]:
    """The one file, without a name, or those of the folder. Raises SourceError."""
    if scheme_of(address) in WEB:
        return [_web_file(address).file()]
    store = ObjectStore(address)
    if single := store.file():
        return [single]
    found = sorted(store.listing().values(), key=lambda stored: stored.name)
    if not found:
        raise FileNotFoundError(address)
    if len(found) > MOST_FILES:
        why = f"the folder holds {len(found):,} files, and a model at most {MOST_FILES:,}"
        raise SourceError("is not a model", where=public(address), why=why, hint="give the address of the model itself")
    for stored in found:
        if not _is_inside(stored.name):
            why = f"a file is called {stored.name!r}"[:200]
            raise SourceError("leads out of its folder", where=public(address), why=why, hint="is it to be trusted?")
    return found


def _content(address: str, stored: Stored) -> Iterable[bytes]:
    return _web_file(address).content() if scheme_of(address) in WEB else ObjectStore(address).content(stored)


def _web_file(address: str) -> WebFile:
    """Imported when it is needed: Python's HTTP client takes longer than what most commands do."""
    from exporter.storage.web import WebFile

    return WebFile(address)


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return bool(name) and "\\" not in name and "\0" not in name and not {"", ".", ".."} & set(parts)


def _version(found: list[Stored]) -> str:
    if not all(each.version for each in found):
        return ""
    text = "\n".join(f"{each.name} {each.nbytes} {each.version}" for each in found)
    return hashlib.sha256(text.encode()).hexdigest()
