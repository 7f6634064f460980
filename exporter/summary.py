"""What became of a job, as text in a few lines. All of it goes to stdout."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.console import say
from exporter.memory import format_bytes
from exporter.records import Outcome, Verification
from exporter.reports.failures import difference_line
from exporter.reports.failures import failure as failure

FINISHED = ("done", "mismatch")
UP_TO_DATE = "up to date (--force redoes it)"
RANDOM = "RANDOM WEIGHTS"
NOT_COMPARED = "the ONNX file has not been compared with its source"


def show(outcome: Outcome, *, verbose: bool) -> None:
    """An error has been reported before: a model that failed has no summary."""
    if outcome.status == "skipped":
        say(f"{outcome.name}: {UP_TO_DATE} in {outcome.output_path}", err=False)
    elif outcome.status in FINISHED:
        _show_model(outcome, verbose)
    _warn(outcome)


def verification_lines(verification: Verification | None) -> list[str]:
    """The verdict, then the differences; one that was skipped or not done says so and never reads as passed."""
    if verification is None:
        return [f"verification: NOT DONE, {NOT_COMPARED}"]
    if verification.status == "skipped":
        needed = verification.needed_bytes
        reason = f": {verification.reason}" if verification.reason else ""
        lacks_memory = any(word in reason.lower() for word in ("memory", "bad_alloc"))
        tells = needed and lacks_memory and format_bytes(needed) not in reason
        memory = f" (it needs {format_bytes(needed)})" if needed and tells else ""
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
        say_columns(
            [(each.name, f"{each.seconds:.1f} s", format_bytes(each.peak_rss_bytes)) for each in outcome.stages]
        )
    say(f"  {outcome.output_path}:", err=False)
    say_columns([(f"  {file.name}", format_bytes(file.nbytes)) for file in outcome.files])
    say(f"  weights: {outcome.weights or 'unknown'}", err=False)
    has_onnx = any(file.name == "model.onnx" for file in outcome.files)
    for line in verification_lines(outcome.verification) if has_onnx else ():
        say(f"  {line}", err=False)


def say_columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> None:
    """Left-aligned columns as wide as their longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(indent + "  ".join(cells).rstrip(), err=False)
