"""Flags become jobs: what is asked for is checked, sources are found, and each job gets its fingerprint."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import __version__
from exporter.errors import ExportError
from exporter.options import ExportOptions as ExportOptions
from exporter.options import checked
from exporter.records import WEIGHT_CHOICES, Job, Origin
from exporter.sources import detection, digest
from exporter.sources.detection.kinds import APPLICATION, REMOTE
from exporter.sources.fitting import fitted
from exporter.storage.addresses import beside, check_output, file_name, is_address, local, place_in, public

if TYPE_CHECKING:
    from exporter.storage.fetching import Look

# To be increased when an unchanged job would write different files.
FINGERPRINT_SCHEMA = 8
LIBRARIES = ("tensorflow", "keras", "tf2onnx", "onnx")
# What a job is named and where it goes, what only limits it, and what the source digest says already.
OUTSIDE_FINGERPRINT = (
    "source",
    "weights",
    "output_path",
    "fingerprint",
    "trust_code",
    "max_memory_bytes",
    "origin",
    "is_alone",
    "unless_done",
)

Looks = Mapping[str, "Look | ExportError"]


@dataclass(frozen=True)
class Refusal:
    """A source that cannot become a job, and why."""

    source: str
    error: ExportError


@dataclass(frozen=True)
class Entry:
    """A model that is wanted. `name` is that of its folder, empty where the source gives it one."""

    source: str
    options: ExportOptions
    name: str = ""


def plan(sources: Iterable[str], options: ExportOptions) -> list[Job | Refusal]:
    """One job per source, all with the same options: `plan_entries`. Raises UsageError."""
    _template(options)
    return plan_entries([Entry(source, options) for source in sources])


def plan_entries(entries: Sequence[Entry]) -> list[Job | Refusal]:
    """One job per entry, in order; the same one given twice is one job, and a bad one does not stop the others.

    Raises UsageError for options that make no sense for any source.
    """
    templates = {options: _template(options) for options in {entry.options for entry in entries}}
    looks = _looks(list({entry.source: None for entry in entries if is_address(entry.source)}))
    planned: dict[object, Job | Refusal] = {}
    # Those that somebody has chosen are not to be had for others, even for those before them.
    names = {entry.name.casefold() for entry in entries}
    for entry in entries:
        try:
            key, make = _seen(entry, looks)
            if key not in planned:
                planned[key] = make(names, templates[entry.options])
        except ExportError as error:
            planned[entry] = Refusal(public(entry.source) if is_address(entry.source) else entry.source, error)
    return list(planned.values())


def _template(options: ExportOptions) -> Job:
    """The job without its source. Raises UsageError, also for an address that nothing can be written to."""
    if is_address(options.output):
        check_output(options.output)
    return checked(options)


def _seen(entry: Entry, looks: Looks) -> tuple[object, Callable[[set[str], Job], Job]]:
    """What makes the entry the same as another one, and how it becomes a job. Raises ExportError."""
    options = entry.options
    if is_address(entry.source):
        key: object = entry.source
        own, make = _name_of(entry.source), partial(_remote_job, entry.source, looks[entry.source])
    else:
        reference = detection.detect(local(entry.source), options.source_kind)
        key, own, make = _identity(reference), reference.name, partial(_job, reference)

    def job(names: set[str], template: Job) -> Job:
        return make(entry.name or _free_name(own, names), template, options)

    return (key, entry.name, options), job


def _name_of(address: str) -> str:
    """Of the model at an address: that of its file or, where that is only `model`, of the folder that it is in."""
    name = file_name(address)
    parent = file_name(beside(address, ""))
    return detection.safe_name(Path(parent if name == "model.json" and parent != "source" else name))


def _looks(addresses: Sequence[str]) -> Looks:
    """Those of sources elsewhere; what it takes is imported when there are any."""
    if not addresses:
        return {}
    from exporter.storage.fetching import look_at_all

    return look_at_all(addresses)


def _identity(reference: detection.SourceRef) -> object:
    """Equal for two spellings of the same source."""
    place = reference.source if reference.kind == APPLICATION else os.path.realpath(reference.source)
    return reference.kind, place


def _free_name(name: str, taken: set[str]) -> str:
    """`name`, or `name-2`, `name-3`…, whatever case the file system ignores; it is taken from now on."""
    candidate, count = name, 1
    while candidate.casefold() in taken:
        count += 1
        candidate = f"{name}-{count}"
    taken.add(candidate.casefold())
    return candidate


def _job(reference: detection.SourceRef, name: str, template: Job, options: ExportOptions) -> Job:
    job = fitted(template, reference, chosen_formats=options.formats is not None)
    job = dataclasses.replace(job, name=name, output_path=place_in(options.output, name))
    if digest.nbytes_to_read(job) <= digest.CHEAP_NBYTES:
        job = dataclasses.replace(job, source_digest=digest.source_digest(job))
    return dataclasses.replace(job, fingerprint=_fingerprint(job))


def _remote_job(address: str, seen: Look | ExportError, name: str, template: Job, options: ExportOptions) -> Job:
    """Without a look into the source, which is fetched where and when the job runs. Raises ExportError."""
    if isinstance(seen, ExportError):
        raise seen
    nbytes = seen.nbytes if seen.nbytes >= 0 else None
    origin = Origin(address, public(address), options.source_kind, nbytes, seen.version, options.formats is not None)
    output = place_in(options.output, name)
    job = dataclasses.replace(template, source=origin.name, kind=REMOTE, name=name, output_path=output, origin=origin)
    return dataclasses.replace(job, fingerprint=_fingerprint(job))


def _fingerprint(job: Job) -> str:
    """Equal where a second run would write the same files and reach the same verdict."""
    options = {key: value for key, value in dataclasses.asdict(job).items() if key not in OUTSIDE_FINGERPRINT}
    if job.origin:
        options["origin"] = job.origin.version
    versions = {name: digest.version(name) for name in LIBRARIES}
    weights = job.weights if job.weights in WEIGHT_CHOICES else "file"
    return digest.digest_of([FINGERPRINT_SCHEMA, __version__, versions, options, weights])
