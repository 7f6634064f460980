"""What became of the jobs, as text: one model in a few lines, several as a table. All of it goes to stdout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exporter.console import say
from exporter.memory import format_bytes
from exporter.records import Outcome, Verification
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
from exporter.reports.failures import difference_line
from exporter.reports.failures import failure as failure
from exporter.reports.totals import memory_text

FINISHED = ("done", "mismatch")
UP_TO_DATE = "up to date (--force redoes it)"
RANDOM = "RANDOM WEIGHTS"
NOT_COMPARED = "the ONNX file has not been compared with its source"
BATCH_HEADINGS = ("model", "status", "weights", "time", "peak memory", "verification", "files")
# More than a screen or two is what the report is for.
MOST_ROWS = 50
HEADINGS = ("model", "status", "weights", "time", "peak memory", "verification", "folder")


def show(outcomes: Sequence[Outcome], *, verbose: bool) -> None:
    """Errors have been reported before: a single model that failed has no summary."""
    if len(outcomes) > 1:
        _show_table(outcomes)
    elif outcomes and outcomes[0].status == "skipped":
        say(f"{outcomes[0].name}: {UP_TO_DATE} in {outcomes[0].output_path}", err=False)
    elif outcomes and outcomes[0].status in FINISHED:
        _show_model(outcomes[0], verbose)
    for outcome in outcomes:
        _warn(outcome)


def show_batch(report: BatchReport, written: Sequence[Path], *, verbose: bool) -> None:
    """What is well as a table, then what went wrong as sentences, because the end is what stays on the screen."""
    good = report.of(DONE, SKIPPED)
    if good and (verbose or len(good) <= MOST_ROWS):
        say("", err=False)
        _say_columns([BATCH_HEADINGS, *map(_batch_row, good)], indent="")
    if random := sum(entry.is_random for entry in report.entries):
        which = "a model has" if random == 1 else f"{random:,} models have"
        say(f"{which} {RANDOM}: the structure is right, nothing is trained", err=False, fg="yellow", bold=True)
    if bad := report.of(FAILED, MISMATCH):
        _show_failures(bad)
    for path in written[-1:]:
        say(f"report: {path}", err=False)
    memory = f", memory {memory_text(report)}" if report.memory_bytes else ""
    say(f"{totals_text(report.counts())} in {duration(report.seconds)}{memory}", err=False, bold=True)


def _show_failures(entries: Sequence[Entry]) -> None:
    say("", err=False)
    for entry in entries[:MOST_ROWS]:
        tries = f" (tried {entry.attempts} times)" if entry.attempts > 1 else ""
        say(f"{entry.model}: {TITLES[entry.status]}{tries}: {entry.sentence}", err=False, fg="red")
        if entry.error and entry.error.hint:
            say(f"  try: {entry.error.hint}", err=False)
    if len(entries) > MOST_ROWS:
        say(f"and {len(entries) - MOST_ROWS:,} more", err=False)


def _batch_row(entry: Entry) -> tuple[str, ...]:
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


def verification_lines(verification: Verification | None) -> list[str]:
    """The verdict, then the differences; one that was skipped or not done says so and never reads as passed."""
    if verification is None:
        return [f"verification: NOT DONE, {NOT_COMPARED}"]
    if verification.status == "skipped":
        needed = verification.needed_bytes
        reason = f": {verification.reason}" if verification.reason else ""
        memory = f" (it needs {format_bytes(needed)})" if needed and format_bytes(needed) not in reason else ""
        return [f"verification: SKIPPED, {NOT_COMPARED}{reason}{memory}"]
    verdict = "passed" if verification.status == "passed" else "MISMATCH"
    but = f", but {verification.reason}" if verification.status == "passed" and verification.reason else ""
    return [f"verification: {verdict}{but}", *(f"  {difference_line(each)}" for each in verification.outputs)]


def _is_random(outcome: Outcome) -> bool:
    return outcome.weights.startswith("random")


def _warn(outcome: Outcome) -> None:
    """What must not be overlooked. The worker's own note about random weights also says why."""
    said = any(RANDOM in note for note in outcome.notes)
    if _is_random(outcome) and outcome.status != "failed" and not said:
        seed = outcome.weights.removeprefix("random").strip(" ()")
        text = f"{outcome.name}: {RANDOM} ({seed or 'seeded'}): the structure is right, the model is not trained"
        say(text, err=False, fg="yellow", bold=True)
    for note in outcome.notes:
        loud = {"fg": "yellow", "bold": True} if RANDOM in note else {}
        say(f"{outcome.name}: note: {note}", err=False, **loud)


def _show_model(outcome: Outcome, verbose: bool) -> None:
    memory = format_bytes(outcome.tree_peak_rss_bytes or outcome.peak_rss_bytes)
    say(f"{outcome.name}: {outcome.status} in {outcome.seconds:.1f} s, peak memory {memory}", err=False)
    if verbose:
        _say_columns(
            [(each.name, f"{each.seconds:.1f} s", format_bytes(each.peak_rss_bytes)) for each in outcome.stages]
        )
    say(f"  {outcome.output_path}:", err=False)
    _say_columns([(f"  {file.name}", format_bytes(file.nbytes)) for file in outcome.files])
    say(f"  weights: {outcome.weights or 'unknown'}", err=False)
    has_onnx = any(file.name == "model.onnx" for file in outcome.files)
    for line in verification_lines(outcome.verification) if has_onnx else ():
        say(f"  {line}", err=False)


def _show_table(outcomes: Sequence[Outcome]) -> None:
    say("", err=False)
    _say_columns([HEADINGS, *map(_row, outcomes)], indent="")


def _row(outcome: Outcome) -> tuple[str, ...]:
    if outcome.status == "skipped":
        return outcome.name, UP_TO_DATE, outcome.weights or "-", "-", "-", "-", outcome.output_path
    return (
        outcome.name,
        outcome.status,
        outcome.weights or "-",
        f"{outcome.seconds:.1f} s" if outcome.seconds else "-",
        format_bytes(outcome.tree_peak_rss_bytes) if outcome.tree_peak_rss_bytes else "-",
        _verdict(outcome),
        outcome.output_path or "-",
    )


def _verdict(outcome: Outcome) -> str:
    if outcome.status == "failed":
        return "-"
    return outcome.verification.status if outcome.verification else "not done"


def _say_columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> None:
    """Left-aligned columns as wide as their longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(indent + "  ".join(cells).rstrip(), err=False)
