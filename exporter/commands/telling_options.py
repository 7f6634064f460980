"""The flags that say what a batch tells, and where."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from exporter.commands.option_lists import add_options


def telling_options(*, expose_value: bool = True) -> Callable[[Any], Any]:
    """Adds them to a command, which gets them as the fields of `TellingOptions`, or not where they cannot come."""
    options = (
        click.option(
            "--log-format",
            metavar="text|json",
            default="text",
            show_default=True,
            expose_value=expose_value,
            help="json: on stderr a JSON object a line for each thing that happens, and nothing else.",
        ),
        click.option(
            "--metrics-file",
            metavar="FILE",
            expose_value=expose_value,
            help="Keep FILE up to date for Prometheus (the node exporter's textfile collector).",
        ),
        click.option(
            "--report/--no-report",
            default=True,
            expose_value=expose_value,
            help="At the end of a batch, batch.parquet, report.md and report.html in the output folder.",
        ),
    )

    return partial(add_options, options=options)
