"""`export-model summary SOURCE`: what a model consists of, folded so that it fits on the screen."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

import click

from exporter import console, plan
from exporter.commands.columns import Layout
from exporter.commands.exported import exported
from exporter.commands.reading_options import reading_options
from exporter.formats.block_tree import block_tree, summed
from exporter.formats.node_style import TRAIT_SETTINGS, amount
from exporter.formats.outline import fitted
from exporter.memory import format_bytes
from exporter.session import Run
from exporter.stored.model import StoredModel, read_model

# Of a pipe or a file, which have no size.
PAGE_WIDTH, PAGE_LINES = 100, 50
NARROWEST = 30
# Of the screen beside the outline and the totals: the head, the headings, a rule, the hint, the next prompt.
OTHER_LINES = 5
MORE = "more inside: --all, or --depth N"
EPILOG = """
\b
Examples:
  export-model summary outputs/resnet101
  export-model summary model.keras --depth 1
  export-model summary resnet101 --all | less
"""


@click.command(epilog=EPILOG)
@click.argument("source")
@click.option(
    "--width",
    type=click.IntRange(min=NARROWEST),
    metavar="N",
    help="Columns of text.  [default: those of the terminal]",
)
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="Levels of blocks.  [default: as many as fit]")
@click.option("--all", "everything", is_flag=True, help="All that is inside of blocks, however long it gets.")
@reading_options
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--debug", is_flag=True, help="Print tracebacks and what the worker printed.")
@click.pass_obj
def command(
    run: Run,
    source: str,
    *,
    width: int | None,
    depth: int | None,
    everything: bool,
    quiet: bool,
    debug: bool,
    **reading: Any,
) -> int:
    """Show what SOURCE consists of: blocks, layers, parameters and operations.

    SOURCE is the folder of an export, or a source as `export-model` takes it, which is then exported into a temporary
    folder. What repeats is shown once, with ×N, and the numbers beside it are those of all N copies together. Blocks
    are opened as far as the screen goes; a … behind a name says that there is more inside.
    """
    options = plan.ExportOptions(formats=("parquet",), verify=False, **reading)
    display = console.choose_display(quiet=quiet, verbose=False, debug=debug)
    with exported(run, source, options, display, needs="layers.parquet") as folder:
        model = read_model(folder, settings=TRAIT_SETTINGS, weights=False)
    screen = shutil.get_terminal_size((PAGE_WIDTH, PAGE_LINES))
    _show(model, width or max(screen.columns, NARROWEST), None if everything else screen.lines, depth)
    return 0


def _show(model: StoredModel, width: int, screen_lines: int | None, depth: int | None) -> None:
    entries, about = block_tree(model.graph, model.costs), model.about
    totals = [line for text in _totals(model) for line in textwrap.wrap(text, width, subsequent_indent="  ")]
    room = None if screen_lines is None else max(screen_lines - len(totals) - OTHER_LINES, 1)
    lines = fitted(entries, room, depth)
    layout = Layout(lines, summed(entries), width)
    head = f"{about['model']}: {len(model.graph.layers):,} layers from {about['source']}, weights: {about['weights']}"
    console.say_parts([(textwrap.shorten(head, width, placeholder="…"), {"bold": True})], err=False)
    console.say_parts(layout.heading(), err=False)
    for line in lines:
        console.say_parts(layout.row(line), err=False)
    console.say("─" * min(width, sum(layout.widths) + 2 * len(layout.widths) - 2), err=False, dim=True)
    for line_of_totals in totals:
        console.say(line_of_totals, err=False)
    if any(line.closed or line.left_out for line in lines):
        console.say(MORE, err=False, dim=True)


def _totals(model: StoredModel) -> Iterator[str]:
    about, costs = model.about, model.costs
    params, trainable = about["params"], about["params_trainable"]
    dtypes = ", ".join(entry["dtype"] for entry in about["weights_by_dtype"])
    size = f"{format_bytes(about['weight_bytes'])} {dtypes}".rstrip()
    yield f"{params:,} parameters ({trainable:,} trainable, {params - trainable:,} not), {size}"
    if costs.macs is not None and costs.flops is not None:
        unknown = f", without {costs.layers_without_cost:,} layers" if costs.layers_without_cost else ""
        yield f"{amount(costs.macs)} MACs, {amount(costs.flops)} FLOPs{unknown}, {_stated(model)}"
    if costs.peak_activation_bytes is not None:
        yield f"{format_bytes(costs.peak_activation_bytes)} of activations at the peak"


def _stated(model: StoredModel) -> str:
    """For which sizes of dynamic dimensions the costs are."""
    shapes = [spec.shape for layer in model.graph.layers if layer.depth == 0 for spec in layer.outputs or ()]
    other = any(size is None for shape in shapes for size in (shape or ())[1:])
    return f"batch of {model.costs.batch_size}" + (f", ? is {model.costs.dimension}" if other else "")
