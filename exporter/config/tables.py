"""The tables of files of settings as the values that the program works with, each with the place where it is said."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exporter.config.includes import INCLUDE
from exporter.config.keys import Key, WrongValueError, as_toml, is_text, option_keys
from exporter.config.mistakes import Mistakes, Place, did_you_mean
from exporter.config.model_sources import Exclusion
from exporter.config.toml_file import Keys, TomlFile

SETTINGS, DEFAULTS, MODELS, EXCLUDE = "settings", "defaults", "models", "exclude"
TOP = (INCLUDE, EXCLUDE, SETTINGS, DEFAULTS, MODELS)
SOURCE, NAME = "source", "name"
# Flags that are about one run, not about what is wanted.
COMMAND_LINE = (
    "force",
    "quiet",
    "verbose",
    "debug",
    "dry-run",
    "view",
    "no-browser",
    "port",
    "config",
    "help",
    "version",
    "format",
)


@dataclass(frozen=True)
class Said:
    value: Any
    place: Place


@dataclass
class Options:
    """By field. `complete` is False where something could not be understood and is missing."""

    said: dict[str, Said] = field(default_factory=dict)
    complete: bool = True

    def take(self, other: Options) -> None:
        """What the other one says has the last word."""
        self.said |= other.said
        self.complete = self.complete and other.complete


@dataclass(frozen=True)
class Model:
    """One of `[[models]]`: `folder` is that of its file."""

    place: Place
    folder: str
    sources: Sequence[tuple[str, Place]]
    options: Options
    name: Said | None
    exclusion: Exclusion


@dataclass
class Tables:
    """What a file and those that it includes say together."""

    settings: Options = field(default_factory=Options)
    defaults: Options = field(default_factory=Options)
    models: list[Model] = field(default_factory=list)
    exclusions: list[Exclusion] = field(default_factory=list)


class TableReader:
    """`settings` are the keys of `[settings]` by name."""

    def __init__(self, settings: Mapping[str, Key], mistakes: Mistakes) -> None:
        self.settings, self.options, self.mistakes = settings, option_keys(), mistakes

    def read(self, files: Iterable[TomlFile]) -> Tables:
        tables = Tables()
        for file in files:
            self._check_names(file, (), file.data, TOP)
            tables.settings.take(self._table(file, SETTINGS, self.settings))
            tables.defaults.take(self._table(file, DEFAULTS, self.options))
            tables.exclusions.append(
                Exclusion(self._texts(file, (EXCLUDE,), file.data.get(EXCLUDE, [])), _folder(file))
            )
            tables.models += self._models(file)
        return tables

    def _table(self, file: TomlFile, name: str, known: Mapping[str, Key]) -> Options:
        table = file.data.get(name, {})
        if not isinstance(table, Mapping):
            self.mistakes.add(file.place(name), f"{name} is not a table", f"write [{name}]")
            return Options(complete=False)
        self._check_names(file, (name,), table, known)
        return self._options(file, (name,), table, known)

    def _models(self, file: TomlFile) -> list[Model]:
        models = file.data.get(MODELS, [])
        if not isinstance(models, list) or not all(isinstance(model, Mapping) for model in models):
            self.mistakes.add(file.place(MODELS), "models is not a list of tables", "write [[models]] before each one")
            return []
        return [self._model(file, (MODELS, number), model) for number, model in enumerate(models)]

    def _model(self, file: TomlFile, keys: Keys, table: Mapping[str, Any]) -> Model:
        self._check_names(file, keys, table, [SOURCE, NAME, EXCLUDE, *self.options])
        if SOURCE not in table:
            self.mistakes.add(file.place(*keys), "a model without a source", 'such as source = "resnet101"')
        name = table.get(NAME)
        if name is not None and not isinstance(name, str):
            self.mistakes.add(file.place(*keys, NAME), f"name = {as_toml(name)} is not a text")
            name = None
        return Model(
            file.place(*keys),
            _folder(file),
            self._texts(file, (*keys, SOURCE), table.get(SOURCE, [])),
            self._options(file, keys, table, self.options),
            None if name is None else Said(name, file.place(*keys, NAME)),
            Exclusion(self._texts(file, (*keys, EXCLUDE), table.get(EXCLUDE, [])), _folder(file)),
        )

    def _options(self, file: TomlFile, keys: Keys, table: Mapping[str, Any], known: Mapping[str, Key]) -> Options:
        found = Options()
        for name, value in table.items():
            if name not in known:
                continue
            place = file.place(*keys, name)
            try:
                found.said[known[name].field] = Said(known[name].read(value, _folder(file)), place)
            except WrongValueError as error:
                self.mistakes.add(place, str(error), error.hint)
                found.complete = False
        return found

    def _texts(self, file: TomlFile, keys: Keys, value: Any) -> list[tuple[str, Place]]:
        """A text, or a list of texts, each with its place."""
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and all(is_text(text) and text.strip() for text in texts):
            return [(text, file.place(*keys, number)) for number, text in enumerate(texts)]
        what = f"{keys[-1]} = {as_toml(value)} is not a text or a list of texts"
        self.mistakes.add(file.place(*keys), what)
        return []

    def _check_names(self, file: TomlFile, keys: Keys, table: Iterable[str], known: Iterable[str]) -> None:
        names = list(known)
        for name in table:
            if name not in names:
                self.mistakes.add(file.place(*keys, name), self._unknown(name, keys), self._meant(name, names))

    def _unknown(self, name: str, keys: Keys) -> str:
        where = "at the top" if not keys else "in [[models]]" if keys[0] == MODELS else f"in [{keys[0]}]"
        return f"there is no {name} {where}"

    def _meant(self, name: str, known: Sequence[str]) -> str:
        if name.startswith("no-") and name.removeprefix("no-") in known:
            return f"write {name.removeprefix('no-')} = false"
        if name in COMMAND_LINE:
            return "it is for the command line only"
        for homes, keys in (
            ("[settings]", self.settings),
            ("[defaults] or a model", self.options),
            ("a model", [SOURCE, NAME]),
        ):
            if name in keys:
                return f"it belongs into {homes}"
        others = [*self.settings, *self.options, SOURCE, NAME]
        return did_you_mean(name, known, others)


def _folder(file: TomlFile) -> str:
    return os.path.dirname(file.path)
