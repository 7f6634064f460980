"""A job gets its source: what the kind of source allows, and what its options have to be then."""

from __future__ import annotations

import dataclasses

from exporter.errors import UsageError
from exporter.records import Job
from exporter.sources.detection import SourceRef
from exporter.sources.detection.kinds import APPLICATION, FACTORY, KINDS, OWN_WEIGHTS, WITHOUT_ONNX
from exporter.sources.detection.python_sources import check_trust


def fitted(job: Job, reference: SourceRef, *, chosen_formats: bool) -> Job:
    """The job with this source; formats that nobody has chosen are left out where the kind has them not.

    Raises UsageError for options that make no sense for it, and TrustError.
    """
    kind, source = reference.kind, reference.source
    if job.weights == "imagenet" and kind != APPLICATION:
        why = "only the models of keras.applications have weights to download"
        hint = "--weights auto uses the file's own"
        raise UsageError("cannot take --weights imagenet", where=source, why=why, hint=hint)
    if job.reading.arguments and kind != FACTORY:
        why, hint = f"it is {KINDS[kind]}, and only a function is called with arguments", "leave --arg out"
        raise UsageError("cannot take --arg", where=source, why=why, hint=hint)
    check_trust(kind, source, job.reading.custom_objects, trusted=job.trust_code)
    formats = job.formats
    if kind in OWN_WEIGHTS and job.weights != "auto":
        why, hint = f"it is {KINDS[kind]}, whose weights are its own", "leave --weights out"
        raise UsageError(f"cannot take --weights {job.weights}", where=source, why=why, hint=hint)
    if kind in WITHOUT_ONNX and "onnx" in formats:
        if chosen_formats:
            hint = "leave onnx out of --to: the others describe it"
            raise UsageError("cannot be converted to ONNX", where=source, why=WITHOUT_ONNX[kind], hint=hint)
        formats = tuple(name for name in formats if name != "onnx")
    reading = dataclasses.replace(job.reading, seen=reference.seen)
    return dataclasses.replace(job, source=source, kind=kind, formats=formats, reading=reading)
