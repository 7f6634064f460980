"""A finished export goes from this machine into an object store, so that it is there whole or not at all.

The parts of large files go first: nothing is visible of them yet. Then the old receipt goes, the files appear, those
of the export before that are not replaced go, sizes are compared, and the receipt comes last. At any moment the folder
holds the old result, or nothing that looks finished, or the new one. A break while parts are sent leaves the old
result as it was. (Azure's client shows a file when its last byte is there, so that the old receipt goes first of all.)
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

from exporter import files
from exporter.errors import OutputError
from exporter.storage.addresses import joined
from exporter.storage.failures import failures, output_error
from exporter.storage.lease import Lease
from exporter.storage.objects import Draft, ObjectStore

# Up to here a file goes in one request, when it is due; larger ones go in parts.
SMALL_BYTES = 8 * 2**20
PIECE_BYTES = 2**20
# A part takes that long on a connection of 30 kB/s.
STALL_SECONDS = 600.0
LOOK_SECONDS = 0.25

Progress = Callable[[int, int], None]


def publish(folder: Path, store: ObjectStore, lease: Lease, progress: Progress) -> dict[str, Any]:
    """Upload the finished export in `folder`; returns its receipt.

    `progress` gets the bytes done and in all, and may raise.

    Raises OutputError, and InUseError when another export has taken the place over.
    """
    manifest = files.read_manifest(folder)
    if manifest is None:
        raise OutputError(
            "cannot be written", where=store.address, why="the export has no receipt", hint="run it again"
        )
    Publication(folder, manifest["files"], store, lease, progress).run()
    return manifest


class Publication:
    """One export under way to its store."""

    def __init__(
        self, folder: Path, records: list[dict[str, Any]], store: ObjectStore, lease: Lease, progress: Progress
    ) -> None:
        self.folder, self.records, self.store, self.lease, self.progress = folder, records, store, lease, progress
        self.total = sum(record["nbytes"] for record in self.records)
        self.sent = 0
        self.drafts: dict[str, Draft] = {}

    def run(self) -> None:
        try:
            before = self._before()
            if not self.store.holds_back:
                self._retire(before)
            for record in self.records:
                if record["nbytes"] > SMALL_BYTES:
                    self._send(record)
            if self.store.holds_back:
                self._retire(before)
            for record in self.records:
                self._appear(record)
            self.store.remove(set(before) - {record["name"] for record in self.records})
            self._compare()
            self.lease.require()
            self.store.write(files.MANIFEST, (self.folder / files.MANIFEST).read_bytes())
            self.lease.forget()
        except failures() as error:
            raise output_error(error, self.store.address) from error
        finally:
            for draft in self.drafts.values():
                draft.discard()

    def _before(self) -> tuple[str, ...]:
        """The files of the export that is there, and of one whose replacement did not come to its end."""
        old = files.parse_manifest(self.store.read(files.MANIFEST) or b"") or {"files": []}
        return tuple(dict.fromkeys([*self.lease.left, *(record["name"] for record in old["files"])]))

    def _retire(self, before: tuple[str, ...]) -> None:
        """From here on the folder does not look finished. Raises InUseError."""
        self.lease.require()
        if before:
            self.lease.remember(before)
            self.store.remove([files.MANIFEST])

    def _send(self, record: dict[str, Any]) -> None:
        draft = self.drafts[record["name"]] = self.store.draft(record["name"], record["nbytes"])
        for piece in self._pieces(record):
            self._patiently(partial(draft.write, piece))
        self._patiently(draft.close)

    def _appear(self, record: dict[str, Any]) -> None:
        if draft := self.drafts.get(record["name"]):
            draft.commit()
            del self.drafts[record["name"]]
        else:
            self._patiently(partial(self.store.write, record["name"], b"".join(self._pieces(record))))

    def _patiently(self, send: Callable[[], None]) -> None:
        """Do it in another thread: clients wait for ever for a server that takes nothing more.

        Raises what `send` and the progress raise, and TimeoutError.
        """
        sent: Future[None] = Future()

        def carry_out() -> None:
            try:
                send()
                sent.set_result(None)
            except Exception as error:  # noqa: BLE001 (handed to the thread that waits for it)
                sent.set_exception(error)

        threading.Thread(target=carry_out, name="upload", daemon=True).start()
        until = time.monotonic() + STALL_SECONDS
        while not wait([sent], LOOK_SECONDS).done:
            if time.monotonic() > until:
                raise TimeoutError(f"the store took nothing for {STALL_SECONDS:g} s")
            self.progress(self.sent, self.total)
        sent.result()

    def _pieces(self, record: dict[str, Any]) -> Iterator[bytes]:
        """The bytes of a file, which have to be those that the receipt is about. Raises OutputError."""
        digest = hashlib.sha256()
        with open(self.folder / record["name"], "rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                digest.update(piece)
                yield piece
                self.sent += len(piece)
                self.progress(self.sent, self.total)
        if digest.hexdigest() != record["sha256"]:
            where, why = joined(self.store.address, record["name"]), "the file on the disk is not the one that was made"
            raise OutputError("cannot be written", where=where, why=why, hint="check the disk of the temporary files")

    def _compare(self) -> None:
        """What the store has, against what the receipt says. Raises OutputError."""
        there = self.store.listing()
        for record in self.records:
            found = there.get(record["name"])
            if found is None or found.nbytes != record["nbytes"]:
                size = "nothing" if found is None else f"{found.nbytes:,} bytes"
                why = f"{size} of {record['nbytes']:,} bytes arrived"
                where = joined(self.store.address, record["name"])
                raise OutputError("was not stored whole", where=where, why=why, hint="run it again")
