"""`report.html`: a batch on one page for any browser, in one file that loads nothing.

The page's own policy lets one script run, known by its hash: it sorts and filters the table, which is complete and in
a useful order without it. Everything that comes out of a model or a file goes through `text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from exporter import __version__
from exporter.files import new_file
from exporter.formats.report.facts import text
from exporter.formats.report.page import filled, source_hash, style
from exporter.memory import format_bytes
from exporter.reports.entries import FAILED, MISMATCH, NOT_RUN, TITLES, BatchReport, Entry, duration, totals_text
from exporter.reports.model_rows import table
from exporter.reports.totals import facts, moment, note_text

FILE = "report.html"
# Of a longer list the rest is folded away: what follows it must be within reach.
OPEN_ITEMS = 20


def write(report: BatchReport, folder: Path) -> None:
    """Raises OutputError."""
    with new_file(folder / FILE) as stream:
        for piece in page(report):
            stream.write(piece.encode())


def page(report: BatchReport) -> Iterator[str]:
    """The text of the page, piece by piece."""
    return filled(asset("batch.html"), SLOTS, report)


def asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_bytes().decode("utf-8")


def policy(report: BatchReport) -> Iterator[str]:
    """Nothing is loaded from anywhere. Styles may be inline, because bars have their lengths there."""
    allowed = f"script-src {source_hash(asset('batch.js'))}; style-src 'unsafe-inline'"
    content = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    yield f'<meta http-equiv="Content-Security-Policy" content="{content}">'


def title(report: BatchReport) -> Iterator[str]:
    yield text(f"Batch {report.name}")


def subtitle(report: BatchReport) -> Iterator[str]:
    yield text(f"{totals_text(report.counts())}; started {moment(report.started)}, took {duration(report.seconds)}")


def note(report: BatchReport) -> Iterator[str]:
    if sentence := note_text(report):
        yield f'<p class="alert" role="note">{text(sentence)}</p>'


def tiles(report: BatchReport) -> Iterator[str]:
    """Each status that there is, and what the run took."""
    found = report.counts()
    pairs = [("Models", f"{len(report.entries):,}", totals_text({}) if not report.entries else "in the plan")]
    pairs += [(TITLES[status].capitalize(), f"{found[status]:,}", WHAT[status]) for status in TITLES if found[status]]
    pairs += [("Wall time", duration(report.seconds), ""), ("Memory", *_memory(report))]
    for name, value, more in pairs:
        yield f"<div><dt>{text(name)}</dt><dd>{text(value)}<small>{text(more)}</small></dd></div>"


WHAT = {
    FAILED: "nothing was written, or what was there stays",
    MISMATCH: "exported, and differs from its source",
    NOT_RUN: "not exported",
    "done": "exported in this run",
    "skipped": "exported by an earlier run",
}


def _memory(report: BatchReport) -> tuple[str, str]:
    allowed = f", of the {format_bytes(report.max_memory_bytes)} allowed" if report.max_memory_bytes else ""
    return format_bytes(report.memory_bytes) if report.memory_bytes else "unknown", f"of all processes at once{allowed}"


def shares(report: BatchReport) -> Iterator[str]:
    found = {status: count for status, count in report.counts().items() if count}
    parts = "".join(
        f'<span class="{css(status)}" style="flex:{count}" title="{count:,} {TITLES[status]}"></span>'
        for status, count in found.items()
    )
    yield f'<div class="shares" role="img" aria-label="{text(totals_text(found))}">{parts}</div>'


def css(status: str) -> str:
    return status.replace(" ", "-")


def fact_list(report: BatchReport) -> Iterator[str]:
    for name, value in facts(report):
        yield f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>"


def failures(report: BatchReport) -> Iterator[str]:
    """What one opens the page for, as sentences."""
    for status in (FAILED, MISMATCH):
        if entries := report.of(status):
            heading = f"{TITLES[status].capitalize()} ({len(entries):,})"
            yield f'<section aria-labelledby="{status}"><h2 id="{status}">{heading}</h2>'
            yield f"{_folding('problems', list(map(_problem, entries)))}</section>"
    if missing := report.of(NOT_RUN):
        names = [f"<li>{text(entry.model)}</li>" for entry in missing]
        yield f'<section aria-labelledby="not-run"><h2 id="not-run">Not run ({len(missing):,})</h2>'
        yield f"{_folding('names', names)}</section>"


def _folding(kind: str, items: Sequence[str]) -> str:
    """A list whose first items are in sight, and the rest on demand."""
    shown, rest = (f'<ul class="{kind}">{"".join(part)}</ul>' for part in (items[:OPEN_ITEMS], items[OPEN_ITEMS:]))
    if len(items) <= OPEN_ITEMS:
        return shown
    return f"{shown}<details><summary>{len(items) - OPEN_ITEMS:,} more</summary>{rest}</details>"


def _problem(entry: Entry) -> str:
    tries = f"tried {entry.attempts} times, " if entry.attempts > 1 else ""
    hint = entry.error.hint if entry.error else ""
    attempt = f'<p class="try">Try: {text(hint)}</p>' if hint else ""
    code = f"<small>{tries}exit status {entry.status_code}</small>"
    return (
        f'<li class="{css(entry.status)}"><h3>{text(entry.model)}</h3><p>{text(entry.sentence)}</p>{attempt}{code}</li>'
    )


def provenance(report: BatchReport) -> Iterator[str]:
    yield text(f"export-model {__version__}. The same as a table: batch.parquet. For pull requests: report.md.")


SLOTS: dict[str, Callable[[BatchReport], Iterator[str]]] = {
    "policy": policy,
    "title": title,
    "style": lambda report: iter([style(asset("batch.css"))]),
    "subtitle": subtitle,
    "note": note,
    "tiles": tiles,
    "shares": shares,
    "facts": fact_list,
    "failures": failures,
    "table": table,
    "provenance": provenance,
    "script": lambda report: iter([f"<script>{asset('batch.js')}</script>"]),
}
