"""`--dry-run`: what a batch would do, as a table or as JSON. Nothing is written, no worker is started."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from exporter import console, memory, plan, resuming
from exporter.batch.needs import need_bytes
from exporter.batch.tasks import Policy
from exporter.errors import gravest_status
from exporter.memory import format_bytes
from exporter.records import Job

TO_DO, UP_TO_DATE, REFUSED = "to do", "up to date", "refused"
HEADINGS = ("model", "kind", "source", "formats", "status", "memory", "folder")
GAP = "  "
Row = dict[str, Any]


def show_plan(entries: Sequence[plan.Entry], policy: Policy, form: str) -> int:
    """The exit status: the gravest of what cannot be exported, 0 when all can. Raises UsageError."""
    planned = plan.plan_entries(entries)
    rows = [_row(each, force=policy.force) for each in planned]
    if form == "json":
        console.page([(line, {})] for line in _json_lines(rows))
    else:
        console.page([(line, {})] for line in [*_table_lines(rows), "", *_total_lines(rows, policy)])
    refused = [each.error for each in planned if isinstance(each, plan.Refusal)]
    for error in refused:
        console.report(error)
    return gravest_status(refused)


def _row(planned: Job | plan.Refusal, *, force: bool) -> Row:
    if isinstance(planned, plan.Refusal):
        return {"source": planned.source, "status": REFUSED, "error": planned.error.as_record()}
    is_done = not force and resuming.is_done(planned)
    return {
        "model": planned.name,
        "kind": planned.kind,
        "source": planned.source,
        "formats": list(planned.formats),
        "status": UP_TO_DATE if is_done else TO_DO,
        "need_bytes": None if is_done else need_bytes(planned),
        "folder": planned.output_path,
    }


def _json_lines(rows: Sequence[Row]) -> Iterable[str]:
    yield f'{{"totals": {json.dumps(_totals(rows))}, "models": ['
    for number, row in enumerate(rows, 1):
        yield f"  {json.dumps(row, ensure_ascii=False)}{',' if number < len(rows) else ''}"
    yield "]}"


def _totals(rows: Sequence[Row]) -> dict[str, int]:
    counts = Counter(row["status"] for row in rows)
    return {
        "models": len(rows),
        **{status.replace(" ", "_"): counts[status] for status in (TO_DO, UP_TO_DATE, REFUSED)},
    }


def _table_lines(rows: Sequence[Row]) -> Iterable[str]:
    cells = [HEADINGS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    needed = row.get("need_bytes")
    return (
        row.get("model", "-"),
        row.get("kind", "-"),
        row["source"],
        ",".join(row.get("formats", ())) or "-",
        row["status"],
        format_bytes(needed) if needed else "-",
        row.get("folder", "-"),
    )


def _total_lines(rows: Sequence[Row], policy: Policy) -> Iterable[str]:
    totals = _totals(rows)
    yield (
        f"{totals['models']} models: {totals['to_do']} to do, {totals['up_to_date']} up to date, "
        f"{totals['refused']} refused"
    )
    needs = [row["need_bytes"] for row in rows if row.get("need_bytes")]
    if needs:
        limit = policy.max_memory_bytes or memory.available_bytes()
        kind = "allowed" if policy.max_memory_bytes else "free"
        yield f"memory: at most {format_bytes(max(needs))} for one model (estimated), {format_bytes(limit)} are {kind}"
