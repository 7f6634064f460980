"""`export-model inspect TARGET`: what `model.summary()` prints, and more, of a model of any size; or its weights."""

from __future__ import annotations

from typing import Any

import click

from exporter import console, plan
from exporter.commands.exported import exported
from exporter.commands.inspection import Look, lines
from exporter.commands.reading_options import reading_options
from exporter.commands.row_choice import DEFAULT_TOP, SORTS, Choice
from exporter.errors import UsageError
from exporter.session import Run

FORMATS = ("table", "tree", "json", "csv")
EPILOG = """
\b
Examples:
  export-model inspect outputs/resnet101
  export-model inspect model.keras --sort params
  export-model inspect model.keras --format tree --depth 2
  export-model inspect model.keras --all --format csv > layers.csv
  export-model inspect model.keras --stats
"""


@click.command(epilog=EPILOG)
@click.argument("target")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option(
    "--depth", type=click.IntRange(min=1), metavar="N", help="Levels of blocks or of models in models.  [default: all]"
)
@click.option("--sort", type=click.Choice(SORTS), help="Largest first; name and index upwards.  [default: as built]")
@click.option(
    "--top", type=click.IntRange(min=1), metavar="N", help=f"So many rows.  [default: {DEFAULT_TOP} with --sort]"
)
@click.option("--all", "everything", is_flag=True, help="Every layer, or every weight, with nothing folded.")
@click.option("--stats", is_flag=True, help="Weights, with histograms, and what is suspicious in them.")
@reading_options
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--debug", is_flag=True, help="Print tracebacks and what the worker printed.")
@click.pass_obj
def command(
    run: Run,
    target: str,
    *,
    style: str,
    depth: int | None,
    sort: str | None,
    top: int | None,
    everything: bool,
    stats: bool,
    quiet: bool,
    debug: bool,
    **reading: Any,
) -> int:
    """Show the layers of TARGET or, with --stats, its weights.

    TARGET is the folder of an export, or a source as `export-model` takes it, which is then exported into a temporary
    folder. A table that fits on the screen has all layers; of a longer one what repeats is one line with ×N, whose
    numbers are those of all N copies together. On a terminal more than a screen goes through the pager.
    """
    look = Look(style, stats, everything, look_choice(style, sort, top, depth, everything, stats))
    options = plan.ExportOptions(formats=("parquet",), stats=stats, verify=False, **reading)
    display = console.choose_display(quiet=quiet or style in ("json", "csv"), verbose=False, debug=debug)
    with exported(run, target, options, display, needs=f"{look.table}.parquet") as folder:
        console.page(lines(folder, look))
    return 0


def look_choice(
    style: str, sort: str | None, top: int | None, depth: int | None, everything: bool, stats: bool
) -> Choice:
    """Raises UsageError for what contradicts itself."""
    if style == "tree" and (sort or top or stats):
        why = "a tree has all layers, in the model's own order"
        raise UsageError("cannot be used with --sort, --top and --stats", where="--format tree", why=why)
    if everything and top:
        raise UsageError("cannot be used with --all", where="--top", why="it leaves rows out", hint="leave one out")
    if style == "table" and stats and not everything:
        sort = sort or "bytes"
    elif top and not sort:
        sort = "bytes" if stats else "params"
    return Choice(sort, None if everything else top or (DEFAULT_TOP if sort else None), depth)
