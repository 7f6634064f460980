"""A job's source opened in this process: by its framework, or from its file alone where that is all that is needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING

from exporter import memory
from exporter.errors import ExportError, SourceError, TrustError, UnsupportedError
from exporter.formats import HOLLOW, needed
from exporter.heartbeat import STUCK_SECONDS, heartbeat, patience
from exporter.readers import LENIENT, READERS, Unexplained, unloaded_note
from exporter.readers.described import DescribedModel
from exporter.records import Job
from exporter.reporting import Reporter
from exporter.sources.detection.kinds import HDF5, WITHOUT_ONNX
from exporter.sources.digest import nbytes
from exporter.startup import lean_imports
from exporter.verification.understudy import IS_POSSIBLE, Understudy

if TYPE_CHECKING:
    from exporter.sources.opened import Opened


class Opening:
    """`import_rss_bytes` is what this process took before the source; `understudies` wait for the verification.

    `spool_path` is a folder for temporary files. `may_fork`: copies of this process are as good as new ones.
    """

    def __init__(self, job: Job, spool_path: str, reporter: Reporter, *, may_fork: bool) -> None:
        self.job, self.spool_path, self.reporter = job, spool_path, reporter
        self.may_fork = may_fork and IS_POSSIBLE
        self.import_rss_bytes = 0
        self.understudies: dict[str, Understudy] = {}

    def close(self) -> None:
        """Who may still be at work must not write into a folder that is being removed."""
        for understudy in self.understudies.values():
            understudy.end()

    def read_or_open(self) -> DescribedModel | Opened:
        """What the file says of itself, what the framework makes of it, or what its file says where that is nothing.

        Raises ExportError.
        """
        if found := self._read():
            return found
        try:
            return self.open()
        except (SourceError, TrustError, UnsupportedError) as error:
            if found := self._read(unloaded=error):
                return found
            raise

    def open(self) -> Opened:
        """Raises SourceError, TrustError or UnsupportedError."""
        with self.reporter.stage("import"), lean_imports():
            from exporter.sources.opened import open_model

            self.import_rss_bytes = memory.peak_rss_bytes()
        if self.may_fork and (self.job.against or ("onnx" in self.job.formats and self.job.verify)):
            from exporter.sources import reference  # noqa: F401 (the understudy shall find it imported)
            from exporter.verification import children, roles

            self.understudies = {role: Understudy(roles.main) for role in children.UNDERSTUDIED}
        with self.reporter.stage("build"), self._patience():
            opened = open_model(self.job, self.spool_path)
        self.reporter.note(*opened.notes)
        return opened

    def _read(self, unloaded: ExportError | None = None) -> DescribedModel | None:
        """What the file says of itself, where that is all that is asked for and it says enough.

        `unloaded` is why its framework cannot load it; then what the file says is all there is.
        """
        if self.job.kind not in READERS or self.job.weights != "auto" or "onnx" in self.job.formats:
            return None
        if HOLLOW in needed(self.job.formats) and self.job.kind not in WITHOUT_ONNX and not unloaded:
            return None
        if unloaded and self.job.kind not in LENIENT:
            return None
        # No framework's threads are at work here, whose processor time would count too.
        seconds = STUCK_SECONDS if unloaded else patience(nbytes(self.job))
        with self.reporter.stage("read"), self._patience(seconds), suppress(Unexplained):
            read: Callable[..., DescribedModel] = importlib.import_module(READERS[self.job.kind]).read
            self.import_rss_bytes = memory.peak_rss_bytes()
            lenient = {"lenient": True} if unloaded else {}
            found = read(self.job, self.spool_path, **lenient)
            self.reporter.note(*found.notes, *([unloaded_note(unloaded)] if unloaded else ()))
            return found
        return None

    def _patience(self, seconds: float = STUCK_SECONDS) -> AbstractContextManager[None]:
        """What is read by libhdf5, which may not come back, and by nothing that is slow for good reasons."""
        return heartbeat(seconds) if self.job.kind in HDF5 else nullcontext()
