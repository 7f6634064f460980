"""Flags become jobs: what is asked for is checked, sources are found, and each job gets its fingerprint."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter import __version__, files
from exporter.errors import ExportError, SourceError, UsageError
from exporter.options import SUPPORTED_OPSETS as SUPPORTED_OPSETS
from exporter.options import ExportOptions as ExportOptions
from exporter.options import checked
from exporter.records import WEIGHT_CHOICES, Job, Outcome
from exporter.sources import detection, digest
from exporter.sources.detection.kinds import APPLICATION, KINDS, WITHOUT_ONNX
from exporter.sources.detection.python_sources import check_trust

# To be increased when an unchanged job would write different files.
FINGERPRINT_SCHEMA = 6
LIBRARIES = ("tensorflow", "keras", "tf2onnx", "onnx")
# What a job is named and where it goes, what only limits it, and what the source digest says already.
OUTSIDE_FINGERPRINT = ("source", "weights", "output_path", "fingerprint", "trust_code", "max_memory_bytes")


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
    checked(options)
    return plan_entries([Entry(source, options) for source in sources])


def plan_entries(entries: Sequence[Entry]) -> list[Job | Refusal]:
    """One job per entry, in order; the same one given twice is one job, and a bad one does not stop the others.

    Raises UsageError for options that make no sense for any source.
    """
    templates = {options: checked(options) for options in {entry.options for entry in entries}}
    planned: dict[object, Job | Refusal] = {}
    # Those that somebody has chosen are not to be had for others, even for those before them.
    names = {entry.name.casefold() for entry in entries}
    for entry in entries:
        try:
            reference = detection.detect(entry.source, entry.options.source_kind)
            key = (_identity(reference), entry.name, entry.options)
            if key not in planned:
                name = entry.name or _free_name(reference.name, names)
                planned[key] = _job(reference, name, templates[entry.options], entry.options)
        except ExportError as error:
            planned[entry] = Refusal(entry.source, error)
    return list(planned.values())


def is_done(job: Job) -> bool:
    """Whether the folder holds the complete result of exactly this job; one that disagrees with its source is not."""
    manifest = _receipt(job)
    if manifest is None or job.source_digest:
        return manifest is not None
    try:
        return manifest.get("source_digest") == digest.source_digest(job)
    except SourceError:
        # The export, which needs the source too, says what is wrong with it.
        return False


def must_read(job: Job) -> bool:
    """Whether `is_done` has to read a large source to know."""
    return not job.source_digest and _receipt(job) is not None


def _receipt(job: Job) -> dict[str, Any] | None:
    """That of a complete result of this job, as far as can be said without reading the source."""
    manifest = files.read_manifest(Path(job.output_path))
    if manifest is None or manifest.get("fingerprint") != job.fingerprint:
        return None
    if _verification_status(manifest) == "mismatch" or not files.is_complete(Path(job.output_path), manifest):
        return None
    return None if _may_be_verified_now(job, manifest) else manifest


def _may_be_verified_now(job: Job, manifest: Mapping[str, Any]) -> bool:
    """Whether it was not, and the reason may have been another limit of memory: batches are resumed with other ones."""
    if not job.verify or _verification_status(manifest) != "skipped":
        return False
    arguments = manifest.get("arguments")
    before = arguments.get("max_memory_bytes") if isinstance(arguments, dict) else None
    return bool(before != job.max_memory_bytes)


def skipped(job: Job) -> Outcome:
    """The outcome of a job that `is_done`, with what its receipt says about the weights."""
    manifest = files.read_manifest(Path(job.output_path)) or {}
    weights = str(manifest.get("weights") or "")
    return Outcome(job.name, "skipped", job.output_path, weights)


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
    is_application = reference.kind == APPLICATION
    if template.weights == "imagenet" and not is_application:
        why = "only the models of keras.applications have weights to download"
        raise UsageError(
            "cannot take --weights imagenet", where=reference.source, why=why, hint="--weights auto uses the file's own"
        )
    check_trust(reference.kind, reference.source, template.reading.custom_objects, trusted=template.trust_code)
    formats = template.formats
    if reference.kind in WITHOUT_ONNX and template.weights != "auto":
        why, hint = f"it is {KINDS[reference.kind]}, whose values are its own", "leave --weights out"
        raise UsageError(f"cannot take --weights {template.weights}", where=reference.source, why=why, hint=hint)
    if reference.kind in WITHOUT_ONNX and "onnx" in formats:
        if options.formats is not None:
            hint = "leave onnx out of --to: the others describe it"
            why = WITHOUT_ONNX[reference.kind]
            raise UsageError("cannot be converted to ONNX", where=reference.source, why=why, hint=hint)
        formats = tuple(name for name in formats if name != "onnx")
    job = dataclasses.replace(
        template,
        source=reference.source,
        kind=reference.kind,
        name=name,
        output_path=os.path.join(options.output, name),
        formats=formats,
        reading=dataclasses.replace(template.reading, seen=reference.seen),
    )
    if digest.nbytes_to_read(job) <= digest.CHEAP_NBYTES:
        job = dataclasses.replace(job, source_digest=digest.source_digest(job))
    return dataclasses.replace(job, fingerprint=_fingerprint(job))


def _fingerprint(job: Job) -> str:
    """Equal where a second run would write the same files and reach the same verdict."""
    options = {key: value for key, value in dataclasses.asdict(job).items() if key not in OUTSIDE_FINGERPRINT}
    versions = {name: digest.version(name) for name in LIBRARIES}
    weights = job.weights if job.weights in WEIGHT_CHOICES else "file"
    return digest.digest_of([FINGERPRINT_SCHEMA, __version__, versions, options, weights])


def _verification_status(manifest: Mapping[str, Any]) -> str:
    verification = manifest.get("verification")
    return str(verification.get("status")) if isinstance(verification, dict) else ""
