"""The options that say how a source is read: the same for every command that takes one."""

from __future__ import annotations

from collections.abc import Sequence

import click

from exporter.commands.option_lists import Command, add_options


def split_names(ctx: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> tuple[str, ...]:
    """`--inputs x:0,y:0` → (`x:0`, `y:0`)."""
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


OPTIONS = (
    click.option(
        "--weights",
        metavar="auto|imagenet|random|FILE",
        default="auto",
        show_default=True,
        help="auto: the file's own, or pretrained ones where they can be had and seeded random ones otherwise.",
    ),
    click.option(
        "--input-shape",
        "input_shapes",
        metavar="[NAME:]1,224,224,3",
        multiple=True,
        help="Shape of an input, ? for a dynamic dimension; repeat it for each input.",
    ),
    click.option(
        "--trust-code",
        is_flag=True,
        help="Run code that comes with a source (Lambda layers, factories). Only for models you trust.",
    ),
    click.option(
        "--source-kind", metavar="KIND", default="", help="What a source is, where its content is misleading."
    ),
    click.option(
        "--signature",
        default="",
        help="Of a SavedModel, or a method of a tf.Module.  [default: serving_default, __call__]",
    ),
    click.option("--tag", default="", help="Of a SavedModel: which of its graphs, such as serve."),
    click.option(
        "--inputs", metavar="NAMES", multiple=True, callback=split_names, help="Inputs of a graph, such as x:0,y:0."
    ),
    click.option("--outputs", metavar="NAMES", multiple=True, callback=split_names, help="Outputs of a graph."),
    click.option(
        "--custom-objects",
        metavar="MODULE|FILE.py",
        multiple=True,
        help="Where the model's own classes are; needs --trust-code. Repeatable.",
    ),
    click.option("--dequantize", is_flag=True, help="Convert quantised operations of a .tflite file to float32 ones."),
    click.option(
        "--arg",
        "--args",
        "args",
        metavar="NAME=VALUE",
        multiple=True,
        help="What a factory is called with: a number, true, null, a list or object of JSON, or a text. Repeatable.",
    ),
)


def reading_options(command: Command) -> Command:
    """Adds them to a command; their names are those of the fields of `ExportOptions`."""
    return add_options(command, OPTIONS)
