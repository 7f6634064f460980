"""Files of settings (TOML): which models are exported, and how. docs/batches.md describes them.

All mistakes of all files are found before anything is started, and come in one report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.config.entries import EntryMaker
from exporter.config.includes import read_all
from exporter.config.keys import Key
from exporter.config.mistakes import Mistakes
from exporter.config.tables import Options, TableReader
from exporter.errors import UsageError
from exporter.plan import Entry

OUTPUT = "output"


@dataclass(frozen=True)
class Config:
    """`settings` are those of the batch as a whole that the files give, by their names in the program."""

    entries: tuple[Entry, ...]
    settings: Mapping[str, Any]


def load(
    paths: Sequence[str],
    *,
    flags: Mapping[str, Any] | None = None,
    settings: Mapping[str, Key] | None = None,
    sources: Sequence[str] = (),
) -> Config:
    """The models of the files, then `sources`, which get the defaults of all files.

    `flags` are fields of `ExportOptions` that the command line gives: they have the last word. `settings` are the keys
    of `[settings]`. Raises UsageError with all mistakes.
    """
    mistakes = Mistakes()
    reader = TableReader(settings or {}, mistakes)
    tables = [reader.read(read_all(path, mistakes)) for path in paths]
    batch = Options()
    for each in tables:
        batch.take(each.settings)
    chosen = {field: said.value for field, said in batch.said.items()}
    output = {OUTPUT: chosen[OUTPUT]} if OUTPUT in chosen else {}
    maker = EntryMaker(output | dict(flags or {}), mistakes)
    entries = [entry for each in tables for entry in maker.make(each)]
    entries += maker.from_command_line(sources, tables)
    mistakes.check()
    if not entries:
        why, hint = "there is no [[models]] with a source, or all are excluded", '[[models]], then source = "resnet101"'
        raise UsageError("no model is named", where=", ".join(paths), why=why, hint=hint)
    return Config(tuple(entries), chosen)
