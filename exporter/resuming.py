"""Whether the result of a job is there already, from an earlier run or from somebody else's beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.errors import SourceError
from exporter.records import Job, Outcome
from exporter.sources import digest


def is_done(job: Job) -> bool:
    """Whether the folder holds the complete result of exactly this job; one that disagrees with its source is not."""
    manifest = _receipt(job)
    if manifest is None or job.source_digest:
        return manifest is not None
    if job.origin:
        # Its version is part of the fingerprint; where there is none nobody knows without fetching it.
        return bool(job.origin.version)
    try:
        return manifest.get("source_digest") == digest.source_digest(job)
    except SourceError:
        # The export, which needs the source too, says what is wrong with it.
        return False


def must_read(job: Job) -> bool:
    """Whether `is_done` has to read a large source to know."""
    return not job.source_digest and not job.origin and _receipt(job) is not None


def _receipt(job: Job) -> dict[str, Any] | None:
    """That of a complete result of this job, as far as can be said without reading the source."""
    from exporter.storage import exports

    manifest = exports.read_manifest(job.output_path)
    if manifest is None or manifest.get("fingerprint") != job.fingerprint:
        return None
    if _verification_status(manifest) == "mismatch" or not exports.is_complete(job.output_path, manifest):
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
    from exporter.storage.exports import known_manifest

    manifest = known_manifest(job.output_path) or {}
    weights = str(manifest.get("weights") or "")
    return Outcome(job.name, "skipped", job.output_path, weights)


def _verification_status(manifest: Mapping[str, Any]) -> str:
    verification = manifest.get("verification")
    return str(verification.get("status")) if isinstance(verification, dict) else ""
