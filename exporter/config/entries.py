"""Tables become the models that are wanted, each with its options; the command line has the last word."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.config.keys import in_toml, option_keys
from exporter.config.mistakes import Mistakes, Place
from exporter.config.model_sources import Exclusion, expand
from exporter.config.tables import Model, Options, Said, Tables
from exporter.errors import UsageError
from exporter.options import ExportOptions, checked
from exporter.plan import Entry
from exporter.sources.detection import NAME_CHARACTERS

# What a folder is called on any system; the same characters that names of files keep.
SAFE_NAME = re.compile(r"[\w-][\w.-]*")


class EntryMaker:
    """`flags` are fields of `ExportOptions` that the command line gives, and `output` from the settings."""

    def __init__(self, flags: Mapping[str, Any], mistakes: Mistakes) -> None:
        self.flags, self.mistakes = dict(flags), mistakes
        self.names: dict[str, Place] = {}
        self._check = functools.cache(checked)
        self._fields = {key.name: key.field for key in option_keys().values()}

    def make(self, tables: Tables) -> Iterator[Entry]:
        for model in tables.models:
            options = self._options(tables.defaults, model)
            exclusions = [model.exclusion, *tables.exclusions]
            sources = expand(model.sources, model.folder, self.mistakes)
            found = [each for each in sources if _is_kept(each, exclusions)]
            model.exclusion.check(self.mistakes)
            name = self._name(model.name, len(found)) if model.name else ""
            yield from (Entry(source, options, name) for source in found)
        for exclusion in tables.exclusions:
            exclusion.check(self.mistakes)

    def from_command_line(self, sources: Sequence[str], tables: Sequence[Tables]) -> Iterator[Entry]:
        """They get the defaults of all files."""
        defaults = Options()
        for each in tables:
            defaults.take(each.defaults)
        options = ExportOptions(**self._merged(defaults, Options()))
        yield from (Entry(source, options) for source in sources)

    def _options(self, defaults: Options, model: Model) -> ExportOptions:
        options = ExportOptions(**self._merged(defaults, model.options))
        if defaults.complete and model.options.complete:
            try:
                self._check(options)
            except UsageError as error:
                if self._field_of(error) in self.flags:
                    # It was on the command line, and stands in none of the files.
                    raise
                what = f"{in_toml(error.where)} {error.what}: {in_toml(error.why)}"
                self.mistakes.add(self._place_of(error, defaults, model), what, in_toml(error.hint))
        return options

    def _merged(self, defaults: Options, own: Options) -> dict[str, Any]:
        said = defaults.said | own.said
        return {field: each.value for field, each in said.items()} | self.flags

    def _place_of(self, error: UsageError, defaults: Options, model: Model) -> Place:
        """Where the option is said that does not go with the others."""
        field = self._field_of(error)
        found = model.options.said.get(field) or defaults.said.get(field)
        return found.place if found else model.place

    def _field_of(self, error: UsageError) -> str:
        return self._fields.get(error.where.partition(" ")[0].removeprefix("--"), "")

    def _name(self, said: Said, count: int) -> str:
        """A name is for one model, and no two have the same, whatever case the file system ignores."""
        name, place = said.value, said.place
        if count > 1:
            self.mistakes.add(place, f"one name, {name}, for {count} models", "leave it out: each source gives its own")
        elif not SAFE_NAME.fullmatch(name) or len(name) > NAME_CHARACTERS:
            safe = re.sub(r"[^\w.-]+", "_", name).strip("._-")[:NAME_CHARACTERS]
            what = f'name = "{name}" is not the name of a folder'
            self.mistakes.add(place, what, f'such as name = "{safe}"' if safe else "letters, digits, _ - and .")
        elif before := self.names.get(name.casefold()):
            self.mistakes.add(place, f'name = "{name}" is taken', f"by {before}")
        self.names.setdefault(name.casefold(), place)
        return str(name)


def _is_kept(source: str, exclusions: Sequence[Exclusion]) -> bool:
    """Each is asked, because it notes what it has seen."""
    verdicts = [exclusion.keeps(source) for exclusion in exclusions]
    return all(verdicts)
