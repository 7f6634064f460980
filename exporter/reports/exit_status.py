"""What a batch as a whole comes to."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.batch.tasks import NOT_RUN, BatchResult
from exporter.errors import gravest_status
from exporter.records import Outcome
from exporter.reports.failures import failure

INTERRUPTED = 130


def exit_status(refused: Sequence[Outcome], batch: BatchResult) -> int:
    """That of the gravest failure, of what was planned and what was refused; 130 after an interruption."""
    if batch.interrupted:
        return INTERRUPTED
    outcomes = [*refused, *(result.outcome for result in batch.results)]
    return gravest_status(failure(outcome) for outcome in outcomes if outcome.status != NOT_RUN)
