"""`report.md`: a batch on one page of Markdown, what went wrong first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from exporter.files import write_lines
from exporter.formats.dot_labels import clean
from exporter.formats.model_card import code, table
from exporter.formats.node_style import amount
from exporter.memory import format_bytes
from exporter.reports.entries import (
    FAILED,
    MISMATCH,
    NOT_RUN,
    TITLES,
    BatchReport,
    Entry,
    duration,
    totals_text,
    verdict,
)
from exporter.reports.totals import facts, note_text

FILE = "report.md"
HEADINGS = ("model", "status", "verification", "time", "memory", "parameters", "files")
# What begins something in Markdown, a mention, a reference to an issue, or an address.
MARKUP = re.compile(r"[\\`*{}\[\]<>#|~@&$^!]|(?<!\w)_|_(?!\w)|(?<=[A-Za-z]):(?=//)|(?<=www)\.")


def write(report: BatchReport, folder: Path) -> None:
    """Raises OutputError."""
    write_lines(folder / FILE, lines(report))


def lines(report: BatchReport) -> Iterator[str]:
    yield f"# Batch {code(report.name)}"
    yield ""
    yield f"{totals_text(report.counts())}."
    if note := note_text(report):
        yield from ("", f"**{note}**")
    yield ""
    yield from table(("", ""), [(name, prose(value)) for name, value in facts(report)])
    for status in (FAILED, MISMATCH):
        yield from _failures(status, report.of(status))
    if missing := report.of(NOT_RUN):
        names = ", ".join(code(entry.model) for entry in missing)
        yield from ("", f"## Not run ({len(missing):,})", "", names)
    yield from ("", "## All models", "")
    yield from table(HEADINGS, [_row(entry) for entry in in_order(report)], right=3)
    if any(entry.is_random for entry in report.entries):
        yield from ("", "*random*: the weights are random, because there were none; such a model is not trained.")


def in_order(report: BatchReport) -> Iterator[Entry]:
    """What went wrong first, otherwise as planned."""
    for status in TITLES:
        yield from report.of(status)


def _failures(status: str, entries: list[Entry]) -> Iterator[str]:
    if not entries:
        return
    yield from ("", f"## {TITLES[status].capitalize()} ({len(entries):,})", "")
    for entry in entries:
        tries = f" (tried {entry.attempts} times)" if entry.attempts > 1 else ""
        yield f"- {code(entry.model)}{tries}: {prose(entry.sentence)}"
        if entry.error is not None and entry.error.hint:
            yield f"  <br>Try: {prose(entry.error.hint)}"


def _row(entry: Entry) -> tuple[str, ...]:
    name = f"[{code(entry.model)}]({quote(entry.folder)}/)" if entry.files else code(entry.model)
    return (
        f"{name} *random*" if entry.is_random else name,
        TITLES[entry.status] if entry.error is None else f"**{TITLES[entry.status]}**",
        verdict(entry),
        duration(entry.seconds),
        "–" if entry.memory_bytes is None else format_bytes(entry.memory_bytes),
        "–" if entry.params is None else amount(entry.params),
        format_bytes(entry.output_bytes) if entry.files else "–",
    )


def prose(text: str) -> str:
    """A sentence in which nothing is Markdown."""
    return MARKUP.sub(lambda sign: f"&#{ord(sign[0])};", " ".join(clean(text).split()))
