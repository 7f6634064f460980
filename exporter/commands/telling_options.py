"""The flags that say what a batch tells, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def telling_options(*, expose_value: bool = True) -> Callable[[Command], Command]:
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

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add
