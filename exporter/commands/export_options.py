"""The options that say what an export writes and how: the same for one model and for a batch."""

from __future__ import annotations

from collections.abc import Sequence

import click

from exporter.commands.option_lists import Command, add_options
from exporter.commands.reading_options import reading_options
from exporter.defaults import (
    ATOL,
    COLOURINGS,
    DIRECTIONS,
    DTYPES,
    EXTERNAL_DATA_CHOICES,
    LAYOUT_SECONDS,
    OPSET,
    RTOL,
    SUPPORTED_OPSETS,
    THEME_NAMES,
)
from exporter.formats import FORMATS


def split_formats(ctx: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> tuple[str, ...] | None:
    """`--to onnx,dot --to svg` → (`onnx`, `dot`, `svg`); None without `--to`."""
    if not texts:
        return None
    return tuple(name.strip().lower() for text in texts for name in text.split(",") if name.strip())


BEFORE = (
    click.option(
        "--to",
        "formats",
        metavar="FORMATS",
        multiple=True,
        callback=split_formats,
        help=f"What to write, separated by commas: {', '.join(FORMATS)}.  [default: onnx,parquet]",
    ),
    click.option(
        "-o",
        "--output",
        metavar="FOLDER",
        default="outputs",
        show_default=True,
        help="Each model gets a folder of its own inside this one, or inside of s3://bucket/prefix (also gs://, az://).",
    ),
)
AFTER = (
    click.option(
        "--seed", type=int, default=0, show_default=True, help="For random weights and for the verification's input."
    ),
    click.option(
        "--opset",
        type=int,
        default=OPSET,
        show_default=True,
        help=f"ONNX opset, {SUPPORTED_OPSETS[0]} to {SUPPORTED_OPSETS[-1]}.",
    ),
    click.option(
        "--dtype",
        metavar="|".join(DTYPES),
        default=DTYPES[0],
        show_default=True,
        help="Of floating weights and of the arithmetic; keep leaves them as they are in the source.",
    ),
    click.option("--batch-size", type=int, metavar="N", help="Fix the batch size.  [default: dynamic]"),
    click.option(
        "--verify/--no-verify",
        default=True,
        show_default=True,
        help="Run the source and the ONNX file on the same input and compare.",
    ),
    click.option("--atol", type=float, default=ATOL, show_default=True, help="Allowed absolute difference."),
    click.option(
        "--rtol",
        type=float,
        default=RTOL,
        show_default=True,
        help="Allowed difference, relative to the output's magnitude.",
    ),
    click.option(
        "--external-data",
        metavar="|".join(EXTERNAL_DATA_CHOICES),
        default=EXTERNAL_DATA_CHOICES[0],
        show_default=True,
        help="Weights in files beside model.onnx; auto: where there are more than 32 MiB of them.",
    ),
    click.option("--shard-size", metavar="SIZE", help="Split the data file, such as 2GB.  [default: one file]"),
    click.option(
        "--layout-seconds",
        type=float,
        default=LAYOUT_SECONDS,
        show_default=True,
        help="Time limit of a picture's layout; a simpler picture takes its place.",
    ),
    click.option("--stats", is_flag=True, help="Also take statistics of every weight, for the formats that show them."),
    click.option("--depth", type=int, metavar="N", help="In pictures: draw the inside of blocks N levels deep."),
    click.option(
        "--expand",
        metavar="NAME|all",
        multiple=True,
        help="In pictures: draw the inside of this block too, or every layer. Repeatable; NAME may hold * and ?.",
    ),
    click.option(
        "--max-nodes", type=int, metavar="N", help="In pictures: at most N boxes.  [default: what fits a page]"
    ),
    click.option(
        "--direction",
        metavar="|".join(DIRECTIONS),
        default=DIRECTIONS[0],
        show_default=True,
        help="Where pictures flow.",
    ),
    click.option(
        "--theme",
        metavar="|".join(THEME_NAMES),
        default=THEME_NAMES[0],
        show_default=True,
        help="Colours of pictures; print needs no colour printer.",
    ),
    click.option(
        "--color-by",
        metavar="|".join(COLOURINGS),
        default=COLOURINGS[0],
        show_default=True,
        help="What the fill of a layer says in pictures.",
    ),
)


def export_options(command: Command) -> Command:
    """Adds them to a command, those that say how a source is read between them; all are fields of `ExportOptions`."""
    return add_options(command, (*BEFORE, reading_options, *AFTER))
