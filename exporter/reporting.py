"""What the worker tells its parent while it works."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from exporter import memory, wire
from exporter.records import Stage

# Progress is told at most this often.
PROGRESS_SECONDS = 0.1


class Reporter:
    """Tells the parent about stages, progress and notes, and remembers the stages and notes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told = 0.0
        self.stages: list[Stage] = []
        self.notes: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One step of the job; it counts as done also when it raises, so that the time of a failure is known."""
        self._tell(wire.StageEvent(name, "start"))
        started = time.monotonic()
        try:
            yield
        finally:
            stage = Stage(name, time.monotonic() - started, memory.peak_rss_bytes())
            self.stages.append(stage)
            self._tell(wire.StageEvent(name, "end", stage.seconds, stage.peak_rss_bytes))

    def progress(self, done_bytes: int, total_bytes: int) -> None:
        if done_bytes == total_bytes or time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = time.monotonic()
            self._tell(wire.ProgressEvent("weights", done_bytes, total_bytes))

    def note(self, *texts: str) -> None:
        for text in texts:
            self.notes.append(text)
            self._tell(wire.NoteEvent(text))

    def _tell(self, event: wire.StageEvent | wire.ProgressEvent | wire.NoteEvent) -> None:
        self._stream.write(wire.event_to_json(event) + "\n")
        self._stream.flush()
