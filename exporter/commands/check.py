"""`export-model check SOURCE FILE.onnx`: whether an ONNX file, whoever made it, computes what its source computes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from exporter import console, plan
from exporter.commands.reading_options import reading_options
from exporter.errors import MismatchError, SourceError, UnsupportedError, UsageError, from_record
from exporter.records import Job, Outcome
from exporter.session import Run
from exporter.sources import detection
from exporter.sources.detection.kinds import KINDS, ONNX_FILE, WITHOUT_ONNX
from exporter.storage.addresses import is_address, public
from exporter.summary import verification_lines

EPILOG = """
\b
Examples:
  export-model check resnet101 outputs/resnet101/model.onnx --weights random
  export-model check model.keras from_another_tool.onnx --input-shape 1,224,224,3
  export-model check saved_model/ model.onnx --rtol 1e-4

\b
Exit status: 0 they agree, 3 they disagree, 6 they could not be compared; others as for an export.
"""


@click.command(epilog=EPILOG)
@click.argument("source")
@click.argument("onnx_file", metavar="FILE.onnx")
@click.option("--batch-size", type=int, metavar="N", help="Of the inputs.  [default: what the file fixes, or 2]")
@click.option("--atol", type=float, default=Job.atol, show_default=True, help="Allowed absolute difference.")
@click.option(
    "--rtol",
    type=float,
    default=Job.rtol,
    show_default=True,
    help="Allowed difference, relative to the output's magnitude.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the inputs, and of random weights.")
@click.option("--max-memory", metavar="SIZE", help="Stop above it, such as 4GiB.  [default: no limit]")
@reading_options
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--debug", is_flag=True, help="Print tracebacks and what the worker printed.")
@click.pass_obj
def command(run: Run, source: str, onnx_file: str, *, quiet: bool, debug: bool, **flags: Any) -> int:
    """Run SOURCE in its own framework and FILE.onnx in ONNX Runtime on the same seeded input, and compare.

    The file may come from any converter. Inputs are matched by name, or by position where the names differ; sizes that
    the file fixes are taken for what the source leaves open. Nothing is written.
    """
    if is_address(onnx_file):
        raise UsageError(
            "is not on this machine", where=public(onnx_file), hint="copy it here; SOURCE may be an address"
        )
    if detection.detect(onnx_file).kind != ONNX_FILE:
        raise SourceError("is not an ONNX file", where=onnx_file, hint="export-model check SOURCE FILE.onnx")
    display = console.choose_display(quiet=quiet, verbose=False, debug=debug)
    with tempfile.TemporaryDirectory(prefix="export-model-check-", ignore_cleanup_errors=True) as place:
        job = _job(source, plan.ExportOptions(formats=("dot",), output=place, **flags))
        display.begin(job.name)
        try:
            outcome = run(replace(job, formats=(), against=os.path.abspath(onnx_file)), watch=display.take)
        finally:
            display.end()
    return _report(outcome, source, onnx_file, outcome.notes)


def _job(source: str, options: plan.ExportOptions) -> Job:
    (job,) = plan.plan([source], options)
    if isinstance(job, plan.Refusal):
        raise job.error
    if job.kind in WITHOUT_ONNX:
        why = f"it is {KINDS[job.kind]}, which cannot be run by itself"
        raise UsageError("is nothing to compare with", where=source, why=why, hint="give the model that it was made of")
    return job


def _report(outcome: Outcome, source: str, onnx_file: str, notes: Sequence[str]) -> int:
    """Raises MismatchError, UnsupportedError when nothing was compared, and what the worker met."""
    if outcome.error is not None:
        raise from_record({key: str(value) for key, value in outcome.error.items()})
    assert outcome.verification is not None
    for note in notes:
        console.say(f"note: {note}")
    for line in verification_lines(outcome.verification):
        console.say(line, err=False)
    verdict, where = outcome.verification, f"{source} and {onnx_file}"
    if verdict.status == "skipped":
        raise UnsupportedError("could not be compared", where=where, why=verdict.reason)
    if verdict.status == "mismatch":
        hint = "is it of the same model and weights? --atol and --rtol set what is allowed"
        raise MismatchError("disagree", where=where, why=verdict.reason, hint=hint)
    return 0
