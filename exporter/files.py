"""Files that appear whole or not at all, the folder of an export, digests, and receipts (`manifest.json`)."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from exporter.errors import InUseError, OutputError
from exporter.records import WrittenFile

MANIFEST = "manifest.json"
STAGING_PREFIX = ".staging-"

REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space, or choose another folder with --output"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose another folder with --output"),
    errno.EACCES: ("permission denied", "choose a folder that you may write to with --output"),
    errno.EPERM: ("permission denied", "choose a folder that you may write to with --output"),
    errno.EROFS: ("the file system is read-only", "choose another folder with --output"),
    errno.ENOTDIR: ("a file is in the way", "choose another folder with --output"),
    errno.EEXIST: ("a file is in the way", "choose another folder with --output"),
    errno.EISDIR: ("a folder is in the way", "choose another folder with --output"),
    errno.EFBIG: ("the file would be larger than the file system or the process limit allows", "see `ulimit -f`"),
}


def output_error(error: OSError, path: Path | str) -> OutputError:
    """The sentence for a failed write; an unforeseen reason keeps the system's own words."""
    why, hint = REASONS.get(error.errno or 0, (error.strerror or str(error), "choose another folder with --output"))
    return OutputError("cannot be written", where=str(path), why=why, hint=hint)


@contextmanager
def named_with(flag: str) -> Iterator[None]:
    """What is written inside was named with another flag than --output, and errors say so."""
    try:
        yield
    except OutputError as error:
        error.hint = error.hint.replace("--output", flag)
        raise


def require_space(folder: Path | str, nbytes: int) -> None:
    """Raises OutputError when the folder's disk has no room for that much: better now than after an hour."""
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise OutputError(
            "the disk is too full",
            where=os.path.dirname(folder),
            why=f"{nbytes / 10**9:.3g} GB are needed and {free / 10**9:.3g} GB are free",
            hint="free some space, or choose another folder with --output",
        )


@contextmanager
def new_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A binary file that gets its name when the block ends well, and leaves nothing when it does not.

    The bytes go to a temporary name in the same folder, are synced to the disk, then renamed: the only way in which
    this package writes a file. Syncing waits for a busy disk; what will be written again in a second need not be
    `durable`. Raises OutputError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise output_error(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_lines(path: Path, lines: Iterable[str], *, durable: bool = True) -> None:
    """A text file from a stream of lines without line ends, in UTF-8."""
    with new_file(path, durable=durable) as stream:
        for line in lines:
            stream.write(line.encode() + b"\n")


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_lines(path, [json.dumps(data, indent=2, ensure_ascii=False)])


def sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(folder: Path, names: Iterable[str], digests: Mapping[str, str]) -> tuple[WrittenFile, ...]:
    """Size and SHA-256 of each file, in the given order; `digests` are those that were taken while writing."""
    paths = [folder / name for name in names]
    return tuple(WrittenFile(path.name, path.stat().st_size, digests.get(path.name) or sha256(path)) for path in paths)


class Export:
    """One model's folder while an export is under way.

    Artifacts are made in `staging`, a folder beside their place, and `commit` moves them in: the old receipt goes
    first and the new one comes last, so that at any moment the folder holds the old result, or nothing that looks
    finished, or the new one. An exclusive lock on the folder keeps a second export out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Export:
        try:
            self._descriptor = _locked(self.folder)
        except BlockingIOError as error:
            raise _in_use(self.folder) from error
        except OSError as error:
            raise output_error(error, self.folder) from error
        try:
            _clear(self.folder)
            self.staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=self.folder))
        except OSError as error:
            self._leave()
            raise output_error(error, self.folder) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        self._leave()

    def _leave(self) -> None:
        """Give the folder back; one in which nothing was ever finished goes."""
        with suppress(OSError):
            self.folder.rmdir()
        os.close(self._descriptor)

    def commit(self, names: Iterable[str], manifest: Mapping[str, Any]) -> None:
        """Move the named files out of staging, the receipt last; all files of the export before go.

        Files that others refer to are named first. They are the last to go and the first to come, so that at no moment
        a new file refers to an old one, or an old one to a new one. All bytes are on the disk before the first change,
        so that a full disk costs nothing that was there.
        """
        names = list(names)
        write_json(self.staging / MANIFEST, manifest)
        old = read_manifest(self.folder) or {"files": []}
        try:
            (self.folder / MANIFEST).unlink(missing_ok=True)
            os.fsync(self._descriptor)
            before = [record["name"] for record in old["files"]]
            for name in dict.fromkeys([*reversed(before), *reversed(names)]):
                self._put_away(name)
            for name in names:
                os.replace(self.staging / name, self.folder / name)
            os.fsync(self._descriptor)
            os.replace(self.staging / MANIFEST, self.folder / MANIFEST)
            os.fsync(self._descriptor)
        except OSError as error:
            raise output_error(error, self.folder) from error

    def _put_away(self, name: str) -> None:
        """Take an old file out of the way; it goes with the staging folder, because removing a large one takes time."""
        path = self.folder / name
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with suppress(FileNotFoundError):
            os.replace(path, self.staging / f"old-{name}")


def require_free(folder: Path) -> None:
    """Raises InUseError when an export is at work in the folder; one that is not there is free."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(folder) from error
        finally:
            os.close(descriptor)


def _in_use(folder: Path) -> InUseError:
    why, hint = "another export is writing there", "wait for it, or choose another folder with --output"
    return InUseError("is in use", where=str(folder), why=why, hint=hint)


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder's lock; the folder is made if need be. Raises OSError."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        # An export that ended in between has removed the empty folder, and this is the lock of the one that is gone.
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed export left in its folder, and the folder if it is empty then.

    Where another export is at work, or the folder cannot be changed, nothing happens: the next export clears it.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(folder)
            if not any(folder.iterdir()):
                folder.rmdir()
        finally:
            os.close(descriptor)


def _clear(folder: Path) -> None:
    """Staging folders and temporary files of exports that did not end; the caller holds the folder's lock."""
    for staging in folder.glob(STAGING_PREFIX + "*"):
        shutil.rmtree(staging)
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The receipt of a finished export; None where there is none that can be read."""
    try:
        return parse_manifest((folder / MANIFEST).read_bytes())
    except OSError:
        return None


def parse_manifest(content: bytes) -> dict[str, Any] | None:
    """A receipt from wherever it lies; None for what is no receipt."""
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), list):
        return None
    return manifest if all(map(_is_file_record, manifest["files"])) else None


def _is_file_record(record: Any) -> bool:
    """A receipt may come from elsewhere; its names must not lead out of its folder, because old files are removed."""
    if not isinstance(record, dict) or not isinstance(name := record.get("name"), str):
        return False
    return os.path.basename(name) == name not in ("", ".", "..") and isinstance(record.get("nbytes"), int)


def is_complete(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether every file that the receipt lists is there with its size."""
    paths = ((folder / record["name"], record["nbytes"]) for record in manifest["files"])
    return all(path.is_file() and path.stat().st_size == nbytes for path, nbytes in paths)


def remove_temporaries(path: Path) -> None:
    """What a killed process left of this file; the caller knows that nobody is writing it."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        temporary.unlink(missing_ok=True)


@contextmanager
def reserved(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """For writing files with these names that lie beside exports: nobody else is in such a block for this folder.

    The folder is made if need be, and what killed processes left of the files goes. Raises OutputError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise output_error(error, folder) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for name in names:
            remove_temporaries(folder / name)
        yield
    except OSError as error:
        raise output_error(error, folder) from error
    finally:
        os.close(descriptor)
