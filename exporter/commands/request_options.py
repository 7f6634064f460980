"""The options that say where else than on the command line is written what is wanted, and whether to do it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from exporter.commands.option_lists import add_options

PLAN_FORMATS = ("table", "json")


def request_options(*, expose_value: bool = True) -> Callable[[Any], Any]:
    """Adds them to a command, which gets `files`, `dry_run` and `plan_format`, or nothing where they cannot come."""
    options = (
        click.option(
            "--config",
            "files",
            metavar="FILE.toml",
            multiple=True,
            expose_value=expose_value,
            help="Which models, and how: docs/batches.md. Repeatable; flags have the last word.",
        ),
        click.option(
            "--dry-run",
            is_flag=True,
            expose_value=expose_value,
            help="Only say what would be done; nothing is written or started.",
        ),
        click.option(
            "--format",
            "plan_format",
            type=click.Choice(PLAN_FORMATS),
            default=PLAN_FORMATS[0],
            show_default=True,
            expose_value=expose_value,
            help="With --dry-run.",
        ),
    )

    return partial(add_options, options=options)
