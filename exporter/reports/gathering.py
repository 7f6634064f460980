"""Entries of the report from what a batch knows: results, receipts of earlier runs, and sources that were refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from exporter.errors import ExportError, OutputError
from exporter.receipts import public_name
from exporter.records import Job, Outcome, Verification
from exporter.reports.entries import FAILED, NOT_RUN, SKIPPED, Entry
from exporter.reports.failures import failure
from exporter.storage import exports
from exporter.storage.addresses import file_name, is_address

Fields = dict[str, Any]
ONNX_FILE = "model.onnx"


def finished(job: Job, outcome: Outcome, **measured: Any) -> Entry:
    """A model that was tried; `measured` are attempts, started, waited_seconds and need_bytes."""
    error = failure(outcome)
    exported = {} if outcome.status == FAILED else _receipt(outcome.output_path or job.output_path)
    found = exported | {
        "status": outcome.status,
        "error": error and _public(error, job),
        "seconds": outcome.seconds,
        "peak_rss_bytes": outcome.peak_rss_bytes or None,
        "tree_peak_rss_bytes": outcome.tree_peak_rss_bytes or None,
        "notes": outcome.notes,
        "files": tuple((file.name, file.nbytes) for file in outcome.files),
    }
    if outcome.weights:
        found["weights"] = outcome.weights
    if outcome.verification is not None:
        found |= _verification(outcome.verification)
    return Entry(**(_known(job) | found | measured))


def up_to_date(job: Job, need_bytes: int | None = None) -> Entry:
    """A model that an earlier run exported, with the numbers of its receipt."""
    return Entry(**(_known(job) | _receipt(job.output_path) | {"status": SKIPPED, "need_bytes": need_bytes}))


def not_run(job: Job, need_bytes: int | None = None) -> Entry:
    return Entry(**(_known(job) | {"status": NOT_RUN, "need_bytes": need_bytes}))


def refused(source: str, error: ExportError) -> Entry:
    """A source that could not become a job."""
    name = file_name(source) if is_address(source) else os.path.basename(source.rstrip("/")) or source
    return Entry(name, name, None, FAILED, _without(error, {source: name}))


def _known(job: Job) -> Fields:
    """What is known before anything runs."""
    return {
        "model": job.name,
        "source": public_name(job),
        "kind": job.kind,
        "fingerprint": job.fingerprint,
        "folder": os.path.basename(job.output_path),
    }


def _receipt(place: str) -> Fields:
    """What the receipt of an export says; a model whose receipt cannot be read is one of which less is known."""
    manifest = None
    with suppress(OutputError):
        manifest = exports.known_manifest(place)
    if manifest is None:
        return {}
    memory, nodes, tool = (_mapping(manifest, key) for key in ("memory", "onnx_nodes", "tool"))
    plain = ("weights", "params", "weight_bytes", "layers", "seconds", "source_digest")
    return {key: manifest.get(key) for key in plain} | {
        "onnx_nodes": nodes.get("total"),
        "peak_rss_bytes": memory.get("peak_rss_bytes"),
        "files": tuple((file["name"], file["nbytes"]) for file in manifest["files"]),
        "notes": tuple(manifest.get("notes") or ()),
        "versions": _mapping(manifest, "versions"),
        "export_model_version": tool.get("version"),
        **_told(manifest),
    }


def _told(manifest: Mapping[str, Any]) -> Fields:
    """The verification, as the receipt has it; without a word about it an ONNX file has not been compared."""
    told = _mapping(manifest, "verification")
    has_onnx = any(file["name"] == ONNX_FILE for file in manifest["files"])
    return {
        "verification": told.get("status") or ("skipped" if has_onnx else "none"),
        "verification_reason": told.get("reason") or None,
        "max_abs_difference": max((output["max_abs"] for output in told.get("outputs") or ()), default=None),
    }


def _verification(found: Verification) -> Fields:
    worst = max((output.max_abs for output in found.outputs), default=None)
    return {"verification": found.status, "verification_reason": found.reason or None, "max_abs_difference": worst}


def _mapping(manifest: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = manifest.get(key)
    return value if isinstance(value, dict) else {}


def _public(error: ExportError, job: Job) -> ExportError:
    """The error without the folders of this machine that lead to the source and to the output."""
    folder = os.path.basename(job.output_path)
    places = {job.source: public_name(job), os.path.abspath(job.output_path): folder, job.output_path: folder}
    return _without(error, {os.path.abspath(job.source): public_name(job)} | places)


def _without(error: ExportError, places: Mapping[str, str]) -> ExportError:
    parts = error.what, error.where, error.why, error.hint
    for place in sorted((place for place in places if os.sep in place), key=len, reverse=True):
        parts = tuple(part.replace(place, places[place]) for part in parts)  # type: ignore[assignment]
    what, where, why, hint = parts
    return type(error)(what, where=where, why=why, hint=hint)
