"""`batch.parquet`: a row for each model of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exporter import __version__
from exporter.formats.layer_table import write_table
from exporter.reports.entries import BatchReport, Entry
from exporter.schema import BATCH

FILE = "batch.parquet"
# Columns that an entry has under the same name.
PLAIN = (
    *("model", "source", "kind", "status", "status_code", "attempts", "seconds", "waited_seconds", "peak_rss_bytes"),
    *("tree_peak_rss_bytes", "need_bytes", "verification", "verification_reason", "max_abs_difference", "weights"),
    *("params", "weight_bytes", "layers", "onnx_nodes", "output_bytes", "fingerprint", "source_digest"),
)


def write(report: BatchReport, folder: Path) -> None:
    """Raises OutputError."""
    write_table(folder / FILE, BATCH, map(row, report.entries))


def row(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in PLAIN} | dict(_others(entry))


def _others(entry: Entry) -> Iterator[tuple[str, Any]]:
    error, versions = entry.error, entry.versions or {}
    yield "error_type", type(error).__name__ if error else None
    for part in ("what", "where", "why", "hint"):
        yield f"error_{part}", getattr(error, part, None) or None
    yield "started", None if entry.started is None else datetime.fromtimestamp(entry.started, UTC)
    yield "files", [{"name": name, "nbytes": nbytes} for name, nbytes in entry.files]
    yield "notes", list(entry.notes)
    yield "export_model_version", entry.export_model_version or __version__
    converters = ("tf2onnx", "onnx") if entry.onnx_nodes is not None else ()
    for library in ("tensorflow", "keras", *converters):
        yield f"{library}_version", versions.get(library)
