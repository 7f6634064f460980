"""What a node of a Ray cluster does for a job: the same as this machine would do, told over the network."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporter import __version__, wire
from exporter.batch import shared_folder
from exporter.errors import ExportError, UnsupportedError
from exporter.records import Job, Outcome
from exporter.sources.detection.kinds import APPLICATION, FACTORY

# How often a node tells how much memory a job has, and how far a stage is: it is for the eye only.
TELL_SECONDS = 1.0
FREQUENT = (wire.MemoryEvent, wire.ProgressEvent)

Execute = Callable[..., Outcome]


@dataclasses.dataclass(frozen=True)
class Letter:
    """From a node to the batch: `event` is None when the job has begun."""

    number: int
    event: wire.Event | None = None


@dataclasses.dataclass(frozen=True)
class Done:
    """What the Ray task gives back. `letters` were sent since the job began, and may still be on their way."""

    outcome: Outcome
    letters: int = 0


class Mailbox:
    """A Ray actor beside the batch, to which nodes write and of which the batch asks what is new."""

    def __init__(self) -> None:
        self._letters: list[Letter] = []
        self._written = asyncio.Event()

    async def ready(self) -> None:
        """Answers when there is somebody to answer."""

    async def put(self, letter: Letter) -> None:
        self._letters.append(letter)
        self._written.set()

    async def take(self) -> list[Letter]:
        """All that has come, as soon as there is something."""
        await self._written.wait()
        letters, self._letters = self._letters, []
        self._written.clear()
        return letters


def carry_out(number: int, job: Job, execute: Execute, mark: str | None, version: str, mailbox: Any) -> Done:
    """The Ray task. A KeyboardInterrupt is how Ray cancels it: it ends the worker, clears up, and goes on to Ray."""
    letters = itertools.count()

    def tell(event: wire.Event | None) -> None:
        next(letters)
        mailbox.put.remote(Letter(number, event))

    try:
        _require_version(version)
        if mark is not None:
            shared_folder.require_seen(Path(mark), platform.node())
    except ExportError as error:
        return Done(Outcome(job.name, "failed", job.output_path, error=error.as_record()))
    # Everything that the child starts with comes from this process; Ray's limit for a task of one CPU is not wanted.
    os.environ.pop("OMP_NUM_THREADS", None)
    outcome = execute(job, begin=lambda: tell(None), watch=Seldom(tell))
    return Done(outcome, next(letters))


class Seldom:
    """Passes events on, of the frequent ones only one a second of each kind."""

    def __init__(self, tell: Callable[[wire.Event], None]) -> None:
        self._tell = tell
        self._told: dict[type, float] = {}

    def __call__(self, event: wire.Event) -> None:
        now = time.monotonic()
        if isinstance(event, FREQUENT):
            if now - self._told.get(type(event), -TELL_SECONDS) < TELL_SECONDS:
                return
            self._told[type(event)] = now
        self._tell(event)


def independent(job: Job) -> Job:
    """The job with paths that mean the same in every current folder."""
    reading = dataclasses.replace(job.reading, custom_objects=tuple(map(_code, job.reading.custom_objects)))
    source = job.source if job.kind == APPLICATION else _code(job.source) if job.kind == FACTORY else _path(job.source)
    weights = _path(job.weights) if os.path.exists(job.weights) else job.weights
    return dataclasses.replace(job, source=source, output_path=_path(job.output_path), weights=weights, reading=reading)


def _path(place: str) -> str:
    return place if "://" in place else os.path.abspath(place)


def _code(place: str) -> str:
    """`file.py`, `file.py:function`, or modules, which are looked for on the node."""
    file, colon, function = place.rpartition(":")
    if colon and file.endswith(".py"):
        return f"{os.path.abspath(file)}:{function}"
    return os.path.abspath(place) if place.endswith(".py") else place


def _require_version(version: str) -> None:
    """Raises UnsupportedError."""
    if version != __version__:
        raise UnsupportedError(
            f"node {platform.node()} has another version of export-model",
            why=f"it has {__version__}, and the batch was started by {version}",
            hint=f"pip install export-model=={version} on every node",
        )
