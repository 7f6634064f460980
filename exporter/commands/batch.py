"""`export-model batch SOURCE|FILE.toml...`: many models, several at a time."""

from __future__ import annotations

from typing import Any

import click

from exporter.batch_session import EXECUTORS, BatchSession, taken_of
from exporter.commands.dry_run import show_plan
from exporter.commands.export_options import export_options
from exporter.commands.request_options import request_options
from exporter.commands.requests import read_request
from exporter.commands.telling_options import telling_options
from exporter.errors import UsageError
from exporter.session import Run


def seconds(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """`90`, `90s`, `30m`, `2h` → seconds. Raises UsageError."""
    if text is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        hint = "--timeout 30m"
        raise UsageError("cannot be used", where=f"--timeout {text}", why="it is no time", hint=hint) from None


@click.command("batch")
@click.argument("sources", metavar="SOURCE|FILE.toml...", nargs=-1)
@request_options()
@export_options
@click.option(
    "-j", "--jobs", type=int, metavar="N", help="Models at a time.  [default: what processors and memory allow]"
)
@click.option("--max-memory", metavar="SIZE", help="Of all models together, such as 8GiB.  [default: what is free]")
@click.option("--timeout", metavar="TIME", callback=seconds, help="End a model that takes longer, such as 30m.")
@click.option("--retries", type=int, default=1, show_default=True, help="For what may pass: killed, out of memory.")
@click.option("--fail-fast/--continue", help="Start nothing more after the first failure.  [default: continue]")
@click.option("--force", is_flag=True, help="Export again what is up to date.")
@click.option(
    "--executor",
    type=click.Choice(EXECUTORS),
    default=EXECUTORS[0],
    show_default=True,
    help="Where: on this machine, or on a Ray cluster.",
)
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    help="With --executor ray; auto is the cluster of this machine.  [default: RAY_ADDRESS, or a new local one]",
)
@telling_options()
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print the time and memory of each stage.")
@click.option("--debug", is_flag=True, help="Print tracebacks and what the workers printed.")
@click.pass_context
def command(
    ctx: click.Context,
    sources: tuple[str, ...],
    files: tuple[str, ...],
    dry_run: bool,
    plan_format: str,
    **flags: Any,
) -> int:
    """Export many models, several at a time, in as much memory as there is.

    A FILE.toml says which models, and how: docs/batches.md. What is up to date is skipped, so that the same command
    finishes what was interrupted. Ctrl-C once lets finish what runs, twice stops at once.
    """
    run: Run = ctx.obj
    named = [source for source in sources if source.lower().endswith(".toml")]
    models = [source for source in sources if source not in named]
    if not (models or named or files):
        raise UsageError("no SOURCE is named", why="and no file of settings", hint=f"{ctx.command_path} --help")
    request = read_request(ctx, models, [*named, *files], flags, taken_of)
    policy, telling, place = taken_of(request.flags)
    if dry_run:
        return show_plan(request.entries, policy, plan_format)
    return BatchSession(run, policy, telling, place).export(request.entries)
