"""A folder in an object store: the few things that are done with it, through fsspec.

Credentials, endpoints and regions are those that each client finds by itself (`docs/batches.md` names them).
"""

from __future__ import annotations

import errno
import functools
import importlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from exporter.errors import UsageError
from exporter.storage.addresses import EXTRAS, check_client, no_client, public, scheme_of
from exporter.storage.failures import failures

# A part of a large file: at least 5 MiB on S3, a multiple of 256 KiB on Google Cloud.
PART_BYTES = 16 * 2**20
# S3 takes 10,000 parts of a file.
MOST_PARTS = 9_000
# Parts that are on their way here at the same time.
PARALLEL = 4
# A receipt of an export with thousands of files is far below this.
LONGEST_TEXT_BYTES = 64 * 2**20
TALKATIVE = ("gcsfs", "s3fs", "adlfs", "azure", "aiobotocore", "botocore", "asyncio")
CONNECT_SECONDS, READ_SECONDS = 10, 60
# Of the client itself, for throttling and errors of the server; fsspec's own come on top for lost connections.
CLIENT_ATTEMPTS, CONNECTION_ATTEMPTS = 4, 3
# Stores where a large file appears when it is committed, not when its last byte is there.
HOLDING_BACK = ("s3", "s3a", "gs", "gcs", "memory")


@dataclass(frozen=True)
class Stored:
    """A file in a store. `version` changes with its content; empty where the store does not tell."""

    name: str
    nbytes: int
    version: str


class ObjectStore:
    """The folder at `address`; names are relative to it. Methods raise what `failures` lists, unless they say more."""

    def __init__(self, address: str) -> None:
        """Raises UsageError when the client is not installed, or cannot be made."""
        self.address = public(address)
        self.holds_back = scheme_of(address) in HOLDING_BACK
        self._fs = _filesystem(scheme_of(address))
        self._root = str(self._fs._strip_protocol(address.rstrip("/"))).rstrip("/")

    def file(self) -> Stored | None:
        """What is at the address itself, None for a folder."""
        entry = self._fs.info(self._root)
        return None if entry["type"] == "directory" else _stored("", entry)

    def listing(self) -> dict[str, Stored]:
        """All files below, by name; one request for a thousand of them."""
        try:
            found = self._fs.find(self._root, detail=True, refresh=True) if self._is_s3() else self._plain_listing()
        except FileNotFoundError:
            return {}
        named = ((str(path)[len(self._root) + 1 :], entry) for path, entry in found.items())
        return {name: _stored(name, entry) for name, entry in named if name and not name.endswith("/")}

    def names(self) -> list[str]:
        """Of files and folders that are directly inside."""
        paths = (str(path).rstrip("/") for path in self._fs.ls(self._root, detail=False, refresh=True))
        return [path.rpartition("/")[2] for path in paths]

    def read(self, name: str) -> bytes | None:
        """The content of a small file, None where there is none; one request."""
        try:
            return bytes(self._fs.cat_file(self._path(name), start=0, end=LONGEST_TEXT_BYTES))
        except FileNotFoundError:
            return None
        except OSError as error:
            # An empty file has no first byte, which S3 says is a mistake (InvalidRange).
            if error.errno != errno.EINVAL or "range" not in str(error):
                raise
            return b""

    def write(self, name: str, content: bytes) -> None:
        """A small file, in one request."""
        self._fs.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a small file unless there is one, which the store decides. Returns whether it was written."""
        try:
            self._fs.pipe_file(self._path(name), content, mode="create")
        except FileExistsError:
            return False
        return True

    def remove(self, names: Iterable[str]) -> None:
        """What is not there is no error."""
        for name in names:
            try:
                self._fs.rm_file(self._path(name))
            except FileNotFoundError:
                continue

    def draft(self, name: str, nbytes: int) -> Draft:
        part = max(PART_BYTES, math.ceil(nbytes / MOST_PARTS / 2**18) * 2**18)
        return Draft(self._fs.open(self._path(name), "wb", block_size=part, autocommit=False))

    def abort_uploads(self) -> None:
        """Have S3 forget the parts that a killed process was sending here; other stores do so by themselves."""
        if not self._is_s3():
            return
        bucket, prefix, _ = self._fs.split_path(f"{self._root}/")
        found = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
        for upload in found.get("Uploads", ()):
            self._fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    def content(self, stored: Stored) -> Iterator[bytes]:
        """The bytes of a file in order; the next parts are on their way while one is taken."""
        from concurrent.futures import Future, ThreadPoolExecutor

        path, step = self._path(stored.name), PART_BYTES
        starts = iter(range(0, stored.nbytes, step))
        with ThreadPoolExecutor(PARALLEL, "download") as pool:
            under_way: list[Future[bytes]] = []
            try:
                while True:
                    for start in starts:
                        end = min(start + step, stored.nbytes)
                        under_way.append(pool.submit(self._fs.cat_file, path, start=start, end=end))
                        if len(under_way) == PARALLEL:
                            break
                    if not under_way:
                        return
                    yield under_way.pop(0).result()
            finally:
                for part in under_way:
                    part.cancel()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _is_s3(self) -> bool:
        return "s3" in self._fs.protocol

    def _plain_listing(self) -> dict[str, Any]:
        self._fs.invalidate_cache()
        found: dict[str, Any] = self._fs.find(self._root, detail=True)
        return found


class Draft:
    """A large file on its way: its parts are in the store, and it is not, until `commit`."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, piece: bytes) -> None:
        self._file.write(piece)

    def close(self) -> None:
        """The last part goes."""
        self._file.close()

    def commit(self) -> None:
        if not getattr(self._file, "autocommit", False):
            self._file.commit()

    def discard(self) -> None:
        """The store forgets the parts; one that cannot be reached any more keeps them (and S3 bills them).

        Azure's client has no such method: what was never committed goes by itself after a week.
        """
        discard = getattr(self._file, "discard", None)
        try:
            if discard:
                discard()
        except failures():
            pass
        finally:
            if hasattr(self._file, "autocommit"):
                # Otherwise it would close itself when it is collected, which for Azure means to write what there is.
                self._file.closed = True


def _stored(name: str, entry: dict[str, Any]) -> Stored:
    version = next((str(entry[key]) for key in ("ETag", "etag", "md5Hash", "content_md5") if entry.get(key)), "")
    return Stored(name, int(entry["size"] or 0), version.strip('"'))


@functools.cache
def _filesystem(scheme: str) -> Any:
    """The client, once in a process: it keeps its connections. Safe in several threads."""
    check_client(scheme)
    try:
        fsspec = importlib.import_module("fsspec")
        filesystem = fsspec.filesystem(scheme, skip_instance_cache=True, **_settings(scheme))
    except ImportError as error:
        raise no_client(scheme, error.name or "fsspec") from error
    except ValueError as error:
        # Azure's client without the name of an account.
        hint = "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME"
        raise UsageError("cannot be used", where=f"{scheme}://", why="no credentials were found", hint=hint) from error
    if "s3" in filesystem.protocol:
        filesystem.retries = CONNECTION_ATTEMPTS
    _quieten()
    return filesystem


def _quieten() -> None:
    """What goes wrong is raised, too; their logs would come with tracebacks. Who has set a level keeps it."""
    import logging

    for name in TALKATIVE:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.CRITICAL)


def _settings(scheme: str) -> dict[str, Any]:
    """Listings are never taken from a memory of earlier ones: others write, too."""
    if EXTRAS[scheme] != "s3" or scheme == "memory":
        return {} if scheme == "memory" else {"use_listings_cache": False}
    config = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"total_max_attempts": CLIENT_ATTEMPTS, "mode": "standard"},
    }
    return {"use_listings_cache": False, "config_kwargs": config}
