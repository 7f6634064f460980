"""The error that an outcome means; a disagreement between a source and its ONNX file is one too."""

from __future__ import annotations

from exporter.errors import ExportError, MismatchError, from_record
from exporter.records import Outcome, OutputDifference


def failure(outcome: Outcome) -> ExportError | None:
    """The error that an outcome means, None for `done` and `skipped`."""
    if outcome.error is not None:
        return from_record(dict(outcome.error))
    if outcome.status == "mismatch":
        return MismatchError(
            "the ONNX file and its source disagree",
            where=outcome.name,
            why="; ".join(difference_line(each) for each in _outputs(outcome) if not each.max_abs <= each.limit)
            or (outcome.verification.reason if outcome.verification else ""),
            hint="compare the numbers above with what the model is for; --atol and --rtol set what is allowed",
        )
    return None


def difference_line(difference: OutputDifference) -> str:
    shape = "×".join(map(str, difference.shape))
    return f"{difference.output} ({shape}) differs by at most {difference.max_abs:.2g}, allowed {difference.limit:.2g}"


def _outputs(outcome: Outcome) -> tuple[OutputDifference, ...]:
    return outcome.verification.outputs if outcome.verification else ()
