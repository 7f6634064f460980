"""What became of a batch, on stdout."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from exporter.console import say
from exporter.memory import format_bytes
from exporter.reports.entries import (
    DONE,
    FAILED,
    MISMATCH,
    SKIPPED,
    TITLES,
    BatchReport,
    Entry,
    duration,
    totals_text,
    verdict,
)
from exporter.reports.totals import memory_text
from exporter.summary import RANDOM, say_columns

HEADINGS = ("model", "status", "weights", "time", "peak memory", "verification", "files")
# What narrow terminals do without.
LEAST_FIRST = ("weights", "files", "peak memory", "time")
# More than a screen or two is what the report is for.
MOST_ROWS = 50


def show(report: BatchReport, written: Sequence[str], *, place: str, verbose: bool) -> None:
    """What is well as a table, then what went wrong as sentences, because the end is what stays on the screen.

    `place` is where the models' folders are, which the path of a report says too.
    """
    good = report.of(DONE, SKIPPED)
    if good and (verbose or len(good) <= MOST_ROWS):
        say("", err=False)
        say_columns(_fitted([HEADINGS, *map(_row, good)]), indent="")
    if random := sum(entry.is_random for entry in report.entries):
        which = "a model has" if random == 1 else f"{random:,} models have"
        say(f"{which} {RANDOM}: the structure is right, nothing is trained", err=False, fg="yellow", bold=True)
    if bad := report.of(FAILED, MISMATCH):
        _show_failures(bad)
    for path in written[-1:]:
        say(f"report: {path}", err=False)
    if good and not written:
        say(f"exports: {place}", err=False)
    memory = f", memory {memory_text(report)}" if report.memory_bytes else ""
    say(f"{totals_text(report.counts())} in {duration(report.seconds)}{memory}", err=False, bold=True)


def _fitted(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Without what matters least, as long as lines are longer than the terminal; files and pipes get all columns."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    columns = [list(column) for column in zip(*rows, strict=True)]
    for heading in LEAST_FIRST:
        if sum(max(map(len, column)) + 2 for column in columns) - 2 <= width:
            break
        columns = [column for column in columns if column[0] != heading]
    return [list(row) for row in zip(*columns, strict=True)]


def _show_failures(entries: Sequence[Entry]) -> None:
    say("", err=False)
    for entry in entries[:MOST_ROWS]:
        tries = f" (tried {entry.attempts} times)" if entry.attempts > 1 else ""
        say(f"{entry.model}: {TITLES[entry.status]}{tries}: {entry.sentence}", err=False, fg="red")
        if entry.error and entry.error.hint:
            say(f"  try: {entry.error.hint}", err=False)
    if len(entries) > MOST_ROWS:
        say(f"and {len(entries) - MOST_ROWS:,} more", err=False)


def _row(entry: Entry) -> tuple[str, ...]:
    """Times of an earlier run would read as those of this one."""
    is_old = entry.status == SKIPPED
    memory = None if is_old else entry.memory_bytes
    return (
        entry.model,
        TITLES[entry.status],
        entry.weights or "-",
        "-" if is_old else duration(entry.seconds),
        "-" if memory is None else format_bytes(memory),
        "-" if is_old else verdict(entry),
        format_bytes(entry.output_bytes),
    )
