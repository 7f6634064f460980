"""What one call of the program asks for: sources, flags and files of settings together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from exporter import config
from exporter.config.keys import Key, Kind, beside
from exporter.config.tables import COMMAND_LINE
from exporter.errors import UsageError
from exporter.options import ExportOptions
from exporter.plan import Entry

# Those of a batch whose values are names of files or folders.
PATHS = ("output", "metrics_file")
# In a batch they are of all models together.
OF_THE_BATCH = ("output", "max_memory")
OPTION_FIELDS = frozenset(field.name for field in dataclasses.fields(ExportOptions))
PER_MODEL = OPTION_FIELDS - {"max_memory"}


@dataclasses.dataclass(frozen=True)
class Request:
    """The models that are wanted, and the flags that are about all of them: given, from files, or by default."""

    entries: Sequence[Entry]
    flags: dict[str, Any]


def read_request(
    ctx: click.Context,
    sources: Sequence[str],
    files: Sequence[str],
    flags: Mapping[str, Any],
    check: Callable[[dict[str, Any]], object],
) -> Request:
    """The flags of a batch, with the files' settings where the command line says nothing. Raises UsageError.

    `check` raises UsageError for flags that cannot be.
    """
    check(dict(flags))
    given = {name for name in flags if ctx.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)}
    settings: Mapping[str, Any] = {}
    if files:
        overriding = {name: flags[name] for name in PER_MODEL & given}
        found = config.load(files, flags=overriding, settings=setting_keys(ctx, flags, check), sources=sources)
        entries, settings = list(found.entries), found.settings
    else:
        options = ExportOptions(**{name: flags[name] for name in PER_MODEL})
        entries = [Entry(source, options) for source in sources]
    merged = {**flags, **{name: value for name, value in settings.items() if name not in given}}
    limited = [_limited(entry, merged.get("max_memory")) for entry in entries]
    return Request(limited, {name: value for name, value in merged.items() if name not in PER_MODEL})


def _limited(entry: Entry, max_memory: str | None) -> Entry:
    """No model may take more than all together may."""
    if max_memory is None or entry.options.max_memory is not None:
        return entry
    return dataclasses.replace(entry, options=dataclasses.replace(entry.options, max_memory=max_memory))


def setting_keys(
    ctx: click.Context, flags: Mapping[str, Any], check: Callable[[dict[str, Any]], object]
) -> dict[str, Key]:
    """What may be written in `[settings]`: the flags of the command that are not about single models."""
    keys = {}
    for option in ctx.command.params:
        name = max(option.opts, key=len).removeprefix("--")
        field = str(option.name)
        is_setting = field not in OPTION_FIELDS or field in OF_THE_BATCH
        if isinstance(option, click.Option) and is_setting and name not in COMMAND_LINE:
            place = beside if field in PATHS else Key.place
            keys[name] = Key(name, field, _kind(option), _converting(ctx, option, flags, check), place, True)
    return keys


def _kind(option: click.Option) -> Kind:
    if option.is_flag:
        return "flag"
    if option.multiple:
        return "texts"
    number: Kind = "number" if isinstance(option.type, type(click.FLOAT)) else "text"
    return "integer" if isinstance(option.type, type(click.INT)) else number


def _converting(
    ctx: click.Context, option: click.Option, flags: Mapping[str, Any], check: Callable[[dict[str, Any]], object]
) -> Callable[[Any], Any]:
    """The option judges the value as if it had been on the command line, then `check` among the other flags."""

    def convert(value: Any) -> Any:
        try:
            converted = option.process_value(ctx, value)
        except click.BadParameter as error:
            raise UsageError("cannot be used", why=error.message.rstrip(".")) from error
        check({**flags, str(option.name): converted})
        return converted

    return convert
