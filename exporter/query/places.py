"""Which Parquet files make up a catalogue: finished exports below folders, files, globs, object stores, web servers."""

from __future__ import annotations

import functools
import glob
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from exporter.errors import ExportError, SourceError, UnsupportedError, UsageError
from exporter.files import MANIFEST
from exporter.schema import SCHEMA_VERSION, TABLES

VERSION_KEY = b"export_model.schema_version"
# Those whose clients are inside the wheels of pyarrow, with the names that it gives them.
OBJECT_STORES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "abfs", "abfs": "abfs", "abfss": "abfss", "file": "file"}
# Those that are no part of an export: a batch writes its own whole or not at all.
WITHOUT_RECEIPT = ("batch",)
WEB = ("http", "https")
WEB_SECONDS = 30.0


@dataclass(frozen=True)
class LocalFile:
    """A table of one export; `mtime_ns` and `nbytes` say whether it is still the file that was read before."""

    path: str
    mtime_ns: int
    nbytes: int


@dataclass
class Found:
    """The files of each table: those on this machine, and elsewhere as `pyarrow` tables or datasets."""

    local: dict[str, list[LocalFile]] = field(default_factory=lambda: {table: [] for table in TABLES})
    remote: dict[str, list[Any]] = field(default_factory=lambda: {table: [] for table in TABLES})

    def is_empty(self) -> bool:
        return not any(self.local.values()) and not any(self.remote.values())


def find(places: Iterable[str], tables: Iterable[str]) -> Found:
    """The files of the named tables.

    A folder counts with all finished exports below it: those that have a receipt, so that an export under way is never
    read. Raises UsageError for a place where there is nothing, SourceError for one that cannot be read and
    UnsupportedError for a kind of address without a client.
    """
    wanted = list(tables)
    found = Found()
    for place in dict.fromkeys(places):
        before = sum(map(len, [*found.local.values(), *found.remote.values()]))
        scheme = place.partition("://")[0] if "://" in place else ""
        if scheme in WEB:
            _add_web(place.rstrip("/"), wanted, found)
        elif scheme:
            _add_object_store(place, scheme, wanted, found)
        else:
            _add_local(place, wanted, found)
        if before == sum(map(len, [*found.local.values(), *found.remote.values()])):
            why = "no finished export with tables was found there"
            raise UsageError("nothing to query", where=place, why=why, hint="export-model MODEL --to onnx,parquet")
    # Places may overlap: a folder and a glob of what is in it.
    found.local = {table: list(dict.fromkeys(files)) for table, files in found.local.items()}
    return found


def plain(files: Iterable[LocalFile]) -> list[LocalFile]:
    """Those whose names are no patterns to DuckDB, which cannot be told to take a name as it is."""
    return [file for file in files if glob.escape(file.path) == file.path]


def _add_local(place: str, tables: list[str], found: Found) -> None:
    matches = [place] if os.path.exists(place) else sorted(glob.glob(place, recursive=True))
    if not matches:
        raise UsageError("does not exist", where=place, hint="--catalogue takes a folder, a file, a glob or an address")
    for match in matches:
        if os.path.isdir(match):
            for table, entry in _tables_below(match, tables):
                found.local[table].append(_local_file(entry.path, entry.stat()))
        elif (table := _table_of(match)) in tables:
            found.local[table].append(_local_file(match, os.stat(match)))


def _table_of(path: str) -> str:
    return os.path.basename(path).removesuffix(".parquet")


def _local_file(path: str, status: os.stat_result) -> LocalFile:
    return LocalFile(os.path.abspath(path), status.st_mtime_ns, status.st_size)


def _tables_below(folder: str, tables: list[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """One `scandir` for each folder, because there may be tens of thousands. Hidden ones are exports under way."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError:
        return  # An export ended, and took its staging folder with it, since the folder above was listed.
    except OSError as error:
        raise SourceError("cannot be read", where=folder, why=error.strerror or str(error)) from error
    named = {entry.name: entry for entry in entries}
    there = tables if MANIFEST in named else [table for table in tables if table in WITHOUT_RECEIPT]
    yield from ((table, named[name]) for table in there if (name := f"{table}.parquet") in named)
    for entry in entries:
        if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from _tables_below(entry.path, tables)


def _add_web(address: str, tables: list[str], found: Found) -> None:
    """Web servers do not list folders: the address is that of one export, or of one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    single = _table_of(address) if address.endswith(".parquet") else ""
    for table in tables:
        url = address if table == single else f"{address}/{table}.parquet"
        if not single or table == single:
            content = _download(url)
            if content is not None:
                found.remote[table].append(_checked(lambda data=content: pq.ParquetFile(pa.BufferReader(data)), url))


def _download(url: str) -> bytes | None:
    """The content of an http(s) address, None where there is none."""
    try:
        with urllib.request.urlopen(url, timeout=WEB_SECONDS) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise SourceError("cannot be read", where=url, why=f"the server says {error.code} {error.reason}") from error
    except OSError as error:
        raise SourceError("cannot be read", where=url, why=str(error)) from error


def _add_object_store(place: str, scheme: str, tables: list[str], found: Found) -> None:
    import pyarrow as pa
    from pyarrow import fs

    if scheme not in OBJECT_STORES:
        known = ", ".join(f"{name}://" for name in [*OBJECT_STORES, *WEB])
        raise UnsupportedError("no client for this kind of address", where=place, hint=f"known are {known}")
    try:
        store, path = fs.FileSystem.from_uri(OBJECT_STORES[scheme] + place[len(scheme) :])
        listing = store.get_file_info(fs.FileSelector(path, recursive=True))
    except (OSError, pa.ArrowException) as error:
        raise SourceError("cannot be listed", where=place, why=str(error).splitlines()[0]) from error
    finished = {os.path.dirname(info.path) for info in listing if os.path.basename(info.path) == MANIFEST}
    for info in sorted(listing, key=lambda info: info.path):
        table = _table_of(info.path)
        hidden = any(name.startswith(".") for name in info.path.removeprefix(path).split("/"))  # an export under way
        is_whole = os.path.dirname(info.path) in finished or table in WITHOUT_RECEIPT
        if table in tables and is_whole and not hidden:
            opened = functools.partial(_open_stored, store, info.path)
            found.remote[table].append(_checked(opened, info.path))


def _open_stored(store: Any, path: str) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(store.open_input_file(path))


def read_local(path: str) -> Any:
    """A table of this machine through pyarrow, for paths that DuckDB would take for globs."""
    import pyarrow.parquet as pq

    return _checked(lambda: pq.ParquetFile(path), path)


def _checked(opened: Any, where: str) -> Any:
    """The `pyarrow` table of a file of a known version."""
    import pyarrow as pa

    try:
        file = opened()
        check_version((file.schema_arrow.metadata or {}).get(VERSION_KEY, b"").decode(), where)
        return file.read()
    except (OSError, pa.ArrowException) as error:
        raise unreadable(where, str(error).splitlines()[0]) from error


def check_version(version: str, where: str) -> None:
    """Raises UnsupportedError for a table of a later schema than this version knows; none at all is an older one."""
    if not version or (version.isdecimal() and int(version) <= int(SCHEMA_VERSION)):
        return
    why = f"its schema is version {version}, and this export-model knows those up to {SCHEMA_VERSION}"
    raise UnsupportedError("was written by a newer export-model", where=where, why=why, hint="update export-model")


def unreadable(where: str, why: str) -> ExportError:
    return SourceError("cannot be read", where=where, why=why, hint="export the model again with --force")
