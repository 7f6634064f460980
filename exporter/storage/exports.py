"""Finished exports, on this machine or in an object store: their receipts, and their files to be read."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from exporter import files
from exporter.errors import SourceError
from exporter.private_folder import private_folder
from exporter.storage.addresses import WEB, check_source, file_name, is_address, joined, local, scheme_of
from exporter.storage.failures import failures, output_error, source_error
from exporter.storage.fetching import fetch, require_room, save
from exporter.storage.objects import ObjectStore

Wanted = Callable[[str], bool]
# Receipts that were just read or written: what is told of a job needs no request of its own.
MOST_RECENT = 256
_recent: OrderedDict[str, dict[str, Any]] = OrderedDict()


def read_manifest(place: str) -> dict[str, Any] | None:
    """The receipt of the export in a folder or at an address, None where there is none. Raises OutputError."""
    if not is_address(place):
        return files.read_manifest(Path(place))
    try:
        content = ObjectStore(place).read(files.MANIFEST)
    except failures() as error:
        raise output_error(error, place) from error
    manifest = files.parse_manifest(content) if content else None
    if manifest:
        remember(place, manifest)
    return manifest


def known_manifest(place: str) -> dict[str, Any] | None:
    """As `read_manifest`, but without a request where this process has just seen it. Raises OutputError."""
    return _recent.get(place) or read_manifest(place)


def remember(address: str, manifest: dict[str, Any]) -> None:
    """Several threads may do so; the oldest are forgotten."""
    _recent[address] = manifest
    with suppress(KeyError):
        while len(_recent) > MOST_RECENT:
            _recent.popitem(last=False)


def is_complete(place: str, manifest: Mapping[str, Any]) -> bool:
    """Whether every file that the receipt lists is there with its size; one listing. Raises OutputError."""
    if not is_address(place):
        return files.is_complete(Path(place), manifest)
    try:
        there = ObjectStore(place).listing()
    except failures() as error:
        raise output_error(error, place) from error
    sizes = {name: stored.nbytes for name, stored in there.items()}
    return all(sizes.get(record["name"]) == record["nbytes"] for record in manifest["files"])


@contextmanager
def written_to(place: str) -> Iterator[Path]:
    """A folder of this machine for small files; those of an address are uploaded at the end. Raises OutputError."""
    if not is_address(place):
        yield Path(local(place))
        return
    with private_folder() as locked:
        folder = locked / "written"
        folder.mkdir()
        yield folder
        try:
            store = ObjectStore(place)
            for path in sorted(folder.iterdir()):
                store.write(path.name, path.read_bytes())
        except failures() as error:
            raise output_error(error, place) from error


@contextmanager
def at_hand(target: str, wanted: Wanted = lambda name: True) -> Iterator[str]:
    """A path for what lies at `target`: itself where it is none, or a source, else a copy of a finished export there.

    Of the export's files those come along of which `wanted` says so. An address that is no export stays an address.
    Raises SourceError.
    """
    if not is_address(target):
        yield local(target)
        return
    if (found := _finished(target)) is None:
        yield target
        return
    with private_folder() as place:
        folder = place / file_name(target)
        folder.mkdir()
        _copy(found, folder, wanted)
        yield str(folder)


@contextmanager
def brought(target: str, wanted: Wanted = lambda name: True) -> Iterator[str]:
    """As `at_hand`, and what is no export, such as a model file, comes along too. Raises SourceError."""
    with at_hand(target, wanted) as place:
        if not is_address(place):
            yield place
            return
        with private_folder() as folder:
            yield str(fetch(target, folder))


def _finished(target: str) -> tuple[ObjectStore, bytes, dict[str, Any]] | None:
    """The store, the receipt as it is, and what it says; None for what is no export, such as anything on the web."""
    check_source(target)
    if scheme_of(target) in WEB:
        return None
    try:
        store = ObjectStore(target)
        content = store.read(files.MANIFEST)
    except failures() as error:
        raise source_error(error, target) from error
    manifest = files.parse_manifest(content or b"")
    return (store, content, manifest) if content and manifest else None


def _copy(found: tuple[ObjectStore, bytes, dict[str, Any]], folder: Path, wanted: Wanted) -> None:
    store, content, manifest = found
    try:
        there = store.listing()
        records = [record for record in manifest["files"] if wanted(record["name"])]
        require_room(folder, sum(record["nbytes"] for record in records))
        for record in records:
            stored = there.get(record["name"])
            if stored is None or stored.nbytes != record["nbytes"]:
                why, hint = f"{record['name']} is missing or not whole", "export the model again"
                raise SourceError("is not complete", where=store.address, why=why, hint=hint)
            save(store.content(stored), folder / record["name"], stored.nbytes, joined(store.address, record["name"]))
        again = store.read(files.MANIFEST)
    except failures() as error:
        raise source_error(error, store.address) from error
    if again != content:
        raise SourceError(
            "has changed", where=store.address, why="it was replaced while it was read", hint="run it again"
        )
    with files.new_file(folder / files.MANIFEST) as stream:
        stream.write(content)


def tables(name: str) -> bool:
    """Whether a file is one of the catalogue."""
    return os.path.splitext(name)[1] == ".parquet"
