"""`export-model diff A B`: what is different between two models."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from exporter import console, files, plan
from exporter.commands.reading_options import reading_options
from exporter.diff import differences, tables, text
from exporter.errors import UsageError
from exporter.session import Run, export_aside
from exporter.storage.exports import at_hand

FORMATS = ("table", "json", "markdown")
COLOURS = {"+ ": "green", "- ": "red", "~ ": "yellow"}
EPILOG = """
\b
Examples:
  export-model diff outputs/resnet50 outputs/resnet101
  export-model diff before.keras after.keras --svg difference.svg
  export-model diff before.keras after.keras --exit-code --quiet && echo unchanged

\b
Exit status:
  0    compared; with --exit-code: the models are equal
  1    with --exit-code: they differ, or weights could not be compared
  2…   an error, as `export-model --help` lists them
"""


@click.command(epilog=EPILOG)
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Every layer that differs, with all that differs in it.")
@click.option("--svg", "picture", metavar="FILE", help="Also draw the difference.")
@click.option("--layout-seconds", type=float, default=60.0, show_default=True, help="Time limit of the picture.")
@click.option("--exit-code", is_flag=True, help="Exit with status 1 unless the models are known to be equal.")
@reading_options
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("--debug", is_flag=True, help="Print tracebacks and what the worker printed.")
@click.pass_obj
def command(
    run: Run,
    before: str,
    after: str,
    *,
    style: str,
    everything: bool,
    picture: str | None,
    layout_seconds: float,
    exit_code: bool,
    quiet: bool,
    debug: bool,
    **reading: Any,
) -> int:
    """Compare two models: layers, settings, shapes, dtypes, connections, weights, costs.

    A and B are folders of exports, or sources as `export-model` takes them, which are exported into a temporary folder
    first. Layers are matched by the names that somebody gave them, then by structure, so that a layer that only has
    another number (dense_1, dense_7) is the same. Weights are compared by the SHA-256 that --stats writes, and element
    by element through the ONNX files; where neither is possible the answer is "unknown".
    """
    display = console.choose_display(quiet=quiet, verbose=False, debug=debug)
    # Without formats: ONNX, too, where the kind of source has it.
    options = plan.ExportOptions(stats=True, verify=False, **reading)
    if picture and not Path(picture).absolute().parent.is_dir():
        raise UsageError("cannot be written", where=f"--svg {picture}", why="its folder does not exist", hint="mkdir")
    with _folders((before, after), options, partial(export_aside, run, display, options)) as folders:
        difference = differences.compare(*folders, (before, after))
        if not quiet:
            _show(difference, style, everything)
        if picture:
            _draw(difference, Path(picture), layout_seconds)
    return int(exit_code and not difference.is_equal)


@contextmanager
def _folders(
    targets: tuple[str, str], options: plan.ExportOptions, export: Callable[[str, Path], Path]
) -> Iterator[tuple[Path, Path]]:
    """The exports to compare; those of sources are made now and removed afterwards. Raises ExportError."""
    with (
        at_hand(targets[0], _is_compared) as before,
        at_hand(targets[1], _is_compared) as after,
        _exports((before, after), options, export) as folders,
    ):
        yield folders


def _is_compared(name: str) -> bool:
    """Of an export's files: the catalogue, and the ONNX files where weights are compared element by element."""
    return name.endswith((".parquet", ".onnx", ".onnx.data"))


@contextmanager
def _exports(
    targets: tuple[str, str], options: plan.ExportOptions, export: Callable[[str, Path], Path]
) -> Iterator[tuple[Path, Path]]:
    # A second model that cannot be read should not cost the export of the first.
    sources = [target for target in targets if not tables.is_export(Path(target))]
    for refusal in plan.plan(sources, options):
        if isinstance(refusal, plan.Refusal):
            raise refusal.error
    with tempfile.TemporaryDirectory(prefix="export-model-diff-", ignore_cleanup_errors=True) as place:
        first, second = (
            Path(target) if tables.is_export(Path(target)) else export(target, Path(place, side))
            for target, side in zip(targets, ("A", "B"), strict=True)
        )
        yield first, second


def _show(difference: differences.Difference, style: str, everything: bool) -> None:
    if style == "json":
        console.say(json.dumps(text.record(difference), indent=2, ensure_ascii=False), err=False)
        return
    lines = {"table": text.table, "markdown": text.markdown}[style](difference, everything=everything)
    for line in lines:
        colour = COLOURS.get(line[:2], "") if style == "table" else ""
        console.say(line, err=False, **({"fg": colour} if colour else {}))


def _draw(difference: differences.Difference, path: Path, seconds: float) -> None:
    from exporter.diff import picture as diff_picture

    with files.named_with("--svg"), files.new_file(path) as stream:
        stream.write(diff_picture.draw(difference, seconds=seconds))
