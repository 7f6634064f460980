"""The flags that say what a batch tells, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

OPTIONS = (
    click.option(
        "--log-format",
        metavar="text|json",
        default="text",
        show_default=True,
        help="json: on stderr a JSON object a line for each thing that happens, and nothing else.",
    ),
    click.option(
        "--metrics-file",
        metavar="FILE",
        help="Keep FILE up to date for Prometheus (the node exporter's textfile collector).",
    ),
    click.option(
        "--report/--no-report",
        default=True,
        show_default=True,
        help="At the end, batch.parquet, report.md and report.html in the output folder.",
    ),
)


def telling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command
