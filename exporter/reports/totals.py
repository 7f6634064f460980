"""The numbers of a whole batch, as pairs of a name and a text, for both pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from exporter.memory import format_bytes
from exporter.reports.entries import (
    DONE,
    EXPORTED,
    FAILED,
    MISMATCH,
    NOT_RUN,
    SKIPPED,
    TITLES,
    BatchReport,
    Entry,
    duration,
)

VERDICTS = {"passed": "passed", "mismatch": "mismatch", "skipped": "not checked", "none": "without ONNX file"}


def facts(report: BatchReport) -> Iterator[tuple[str, str]]:
    """What a reader of the report asks about the run."""
    exported = report.of(*EXPORTED)
    yield "started", moment(report.started)
    yield "wall time", duration(report.seconds)
    yield "time of the exports", duration(export_seconds(report))
    yield "models at once", "–" if report.jobs is None else f"at most {report.jobs}"
    yield "memory of all processes", memory_text(report)
    yield "retries", str(report.retries)
    yield "verification", verdicts(exported)
    yield "parameters", f"{sum(entry.params or 0 for entry in exported):,}"
    yield "files", f"{sum(len(entry.files) for entry in exported):,}, {format_bytes(output_bytes(exported))}"


def export_seconds(report: BatchReport) -> float:
    """Of this run; what was up to date took its time in an earlier one."""
    return sum(entry.seconds or 0.0 for entry in report.of(DONE, MISMATCH, FAILED))


def output_bytes(entries: Iterable[Entry]) -> int:
    return sum(entry.output_bytes for entry in entries)


def memory_text(report: BatchReport) -> str:
    """`at most 3.2 GB of the 16 GB allowed`."""
    used = f"at most {format_bytes(report.memory_bytes)}" if report.memory_bytes else "unknown"
    return f"{used} of the {format_bytes(report.max_memory_bytes)} allowed" if report.max_memory_bytes else used


def verdicts(entries: Iterable[Entry]) -> str:
    found = Counter(entry.verification or "none" for entry in entries)
    return ", ".join(f"{found[key]:,} {text}" for key, text in VERDICTS.items() if found[key]) or "none"


def moment(seconds: float) -> str:
    """Unix time to the minute, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def note_text(report: BatchReport) -> str:
    """What stands above all else: how complete the report is."""
    if report.of(NOT_RUN):
        why = "was interrupted" if report.interrupted else "ended before all models were run"
        unfinished = f"what is marked “{TITLES[NOT_RUN]}” has not been exported"
        return f"The batch {why}: {unfinished}. The same command does the rest."
    only_old = report.entries and len(report.of(SKIPPED)) == len(report.entries)
    return "Everything was up to date: the numbers are those of earlier runs." if only_old else ""
