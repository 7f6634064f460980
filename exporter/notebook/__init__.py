"""`exporter.export(model)` and `exporter.inspect(model)`: the command line's work for a program or a notebook."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from exporter import plan, resuming
from exporter.commands.inspect import look_choice
from exporter.commands.inspection import Look, lines
from exporter.errors import UsageError
from exporter.notebook.cell_display import choose_display
from exporter.notebook.handover import Handed, handed_over
from exporter.notebook.result import Exported, Inspection
from exporter.records import Outcome
from exporter.session import Run, run_in_child
from exporter.sources.detection.python_sources import argument_texts
from exporter.summary import failure

OPTIONS = frozenset(field.name for field in fields(plan.ExportOptions)) - {"formats", "output"}
# Options of which there may be several; one of them may stand alone.
LISTS = ("input_shapes", "expand", "inputs", "outputs", "custom_objects", "args")


def export(
    model: Any,
    to: Sequence[str] | str = ("onnx", "parquet"),
    output: str | os.PathLike[str] = "outputs",
    *,
    name: str | None = None,
    force: bool = False,
    quiet: bool = False,
    run: Run = run_in_child,
    **options: Any,
) -> Exported:
    """Export a Keras model of this process, or anything that `export-model` takes, in a process of its own.

    `to` and `options` are the flags of `export-model export`, `--input-shape` as `input_shapes`; `output` is the
    folder in which the model gets one of its own, called `name`. An export that is up to date is not repeated unless
    by `force`. Raises ExportError; a MismatchError comes when all files are written.
    """
    asked = _asked(options, tuple(to.split(",")) if isinstance(to, str) else tuple(to), os.fspath(output))
    with handed_over(model, asked, name) as handed:
        return Exported(_outcome(handed, run, force=force, quiet=quiet))


def inspect(
    model: Any,
    *,
    sort: str | None = None,
    top: int | None = None,
    depth: int | None = None,
    everything: bool = False,
    stats: bool = False,
    quiet: bool = True,
    run: Run = run_in_child,
    **options: Any,
) -> Inspection:
    """What `export-model inspect` prints of a live model, a source or the folder of an export.

    `everything` is `--all`. A live model is described by this process and not copied; with `stats` its weights are,
    to the system's temporary folder. Raises ExportError.
    """
    choice = look_choice("table", sort, top, depth, everything, stats)
    look = Look("table", stats, everything, choice)
    if isinstance(model, str | os.PathLike) and Path(model, f"{look.table}.parquet").exists():
        return Inspection(_found(Path(model)), lines(Path(model), look), None)
    place = tempfile.TemporaryDirectory(prefix="export-model-aside-", ignore_cleanup_errors=True)
    asked = replace(_asked(options, ("parquet",), place.name), stats=stats, verify=False)
    with handed_over(model, asked, None) as handed:
        outcome = _outcome(handed, run, force=True, quiet=quiet)
    return Inspection(outcome, lines(Path(outcome.output_path), look), place)


def _found(folder: Path) -> Outcome:
    return Outcome(folder.name, "skipped", str(folder))


def _asked(options: Mapping[str, Any], formats: tuple[str, ...], output: str) -> plan.ExportOptions:
    """Raises UsageError for an option that there is not."""
    for key in options:
        if key not in OPTIONS:
            near = difflib.get_close_matches(key, OPTIONS, n=1)
            why = f"there are {', '.join(sorted(OPTIONS))}"
            raise UsageError("is an unknown option", where=key, why=why, hint=near[0] if near else "")
    listed: dict[str, Any] = {
        key: (value,) if key in LISTS and isinstance(value, str) else value for key, value in options.items()
    }
    if isinstance(arguments := listed.get("args"), Mapping):
        listed["args"] = argument_texts(arguments)
    return plan.ExportOptions(formats=tuple(name.strip() for name in formats), output=output, **listed)


def _outcome(handed: Handed, run: Run, *, force: bool, quiet: bool) -> Outcome:
    """Raises ExportError."""
    (job,) = plan.plan([handed.source], handed.options)
    if isinstance(job, plan.Refusal):
        raise job.error
    if handed.name:
        job = replace(job, name=handed.name, output_path=os.path.join(handed.options.output, handed.name))
    if not force and resuming.is_done(job):
        return resuming.skipped(job)
    display = choose_display(quiet=quiet)
    display.begin(job.name)
    try:
        outcome = run(replace(job, is_alone=True), watch=display.take)
    finally:
        display.end()
    if (error := failure(outcome)) is not None:
        raise error
    return outcome
