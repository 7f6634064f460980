"""What may be written in a file of settings: the flags of the program under their own names, and their values."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from exporter.errors import UsageError
from exporter.formats import FORMATS
from exporter.options import ExportOptions, checked
from exporter.records import WEIGHT_CHOICES
from exporter.sources.detection import check_kind
from exporter.sources.detection.python_sources import argument_texts

Kind = Literal["text", "integer", "number", "flag", "texts", "table"]
KINDS: dict[Kind, str] = {
    "text": 'a text, such as "…"',
    "integer": "a whole number",
    "number": "a number",
    "flag": "true or false",
    "texts": 'a text or a list of texts, such as ["…", "…"]',
    "table": "a table, such as { width = 32 }",
}
# Annotations of `ExportOptions`, without `| None`.
ANNOTATIONS: dict[str, Kind] = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "flag",
    "tuple[str, ...]": "texts",
}
# Texts of the form NAME=VALUE are a table in a file.
TABLES: dict[str, Kind] = {"args": "table"}
FLAGS = {"formats": "to", "input_shapes": "input-shape"}
# Where the command line takes several in one word, separated by commas.
SEPARATED = ("formats", "inputs", "outputs")
# A number of bytes may be one.
SIZES = ("max_memory", "shard_size")


class WrongValueError(ValueError):
    """A value that cannot be; the text says what it has to be, `hint` what to write instead."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


@dataclass(frozen=True)
class Key:
    """`name` is what is written, `field` what the program calls it.

    `convert` takes the value and gives what the program works with; it raises UsageError for one that cannot be.
    `takes_numbers`: a text that may as well be a number, as sizes and times are. `place` turns a value that names a
    file, relative to the folder of the file it is written in, into a path.
    """

    name: str
    field: str
    kind: Kind
    convert: Callable[[Any], Any] = lambda value: value
    place: Callable[[Any, str], Any] = lambda value, folder: value
    takes_numbers: bool = False

    def read(self, value: Any, folder: str) -> Any:
        """The value of TOML as that of the program. Raises WrongValueError."""
        typed = self.place(self._typed(value), folder)
        try:
            return self.convert(typed)
        except UsageError as error:
            raise self._wrong(error, value) from error

    def _typed(self, value: Any) -> Any:
        if self.kind == "texts":
            return self._texts(value)
        if self.kind == "table":
            return self._table(value)
        if self.kind == "text":
            number = self.takes_numbers and type(value) in (int, float)
            return str(value) if number else self._checked(value, str)
        if self.kind == "number":
            return float(self._checked(value, int, float))
        return self._checked(value, int if self.kind == "integer" else bool)

    def _checked(self, value: Any, *types: type) -> Any:
        if type(value) in types and (not isinstance(value, str) or is_text(value)):
            return value
        text = f"{self.name} = {as_toml(value)} is not {KINDS[self.kind]}"
        if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?|true|false", value):
            raise WrongValueError(text, f"without quotes: {self.name} = {value}")
        raise WrongValueError(text)

    def _texts(self, value: Any) -> tuple[str, ...]:
        values = value if isinstance(value, list) else [value]
        if self.field == "input_shapes" and values and all(type(each) is int for each in values):
            return (",".join(map(str, values)),)
        texts = [self._checked(each, str) for each in values]
        if self.field not in SEPARATED:
            return tuple(texts)
        split = [part.strip() for text in texts for part in text.split(",")]
        return tuple(part.lower() if self.field == "formats" else part for part in split if part)

    def _table(self, value: Any) -> tuple[str, ...]:
        """As the texts that the flag takes."""
        if not isinstance(value, Mapping):
            raise WrongValueError(f"{self.name} = {as_toml(value)} is not {KINDS[self.kind]}")
        try:
            return argument_texts(value)
        except UsageError as error:
            raise self._wrong(error, value) from error

    def _wrong(self, error: UsageError, value: Any) -> WrongValueError:
        """The error of a flag, in the words of a file."""
        flag = f"--{self.name}"
        is_part = error.where.startswith(f"{flag} ") and error.where != f"{flag} {value}"
        subject = in_toml(error.where) if is_part else f"{self.name} = {as_toml(value)}"
        what = error.what.removeprefix(f"{flag} {value} ")
        subject += ":" if what.startswith("'") else ""
        return WrongValueError(
            f"{subject} {what}" + (f": {in_toml(error.why)}" if error.why else ""), in_toml(error.hint)
        )


def is_text(value: Any) -> bool:
    """Whether it is one that a system takes as a name."""
    return isinstance(value, str) and "\0" not in value


def as_toml(value: Any) -> str:
    """A value, short, as it would be written."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, Mapping):
        return "a table"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def in_toml(text: str) -> str:
    """`--opset 18` → `opset = 18`; in a longer text flags are quoted instead of dashed."""
    if match := re.fullmatch(r"--([a-z-]+) (\S+)", text):
        value = match[2]
        return f"{match[1]} = {value}" if re.fullmatch(r"-?\d+(\.\d+)?", value) else f'{match[1]} = "{value}"'
    return re.sub(r"(?<![\w-])--([a-z][a-z-]*)", r"`\1`", text)


def beside(path: str, folder: str) -> str:
    """A path that is written in a file of `folder`; a URL is one already."""
    if "://" in path:
        return path
    return os.path.join(folder, os.path.expanduser(path))


def _weights(choice: str, folder: str) -> str:
    return choice if choice.lower() in WEIGHT_CHOICES else beside(choice, folder)


def _custom_objects(places: tuple[str, ...], folder: str) -> tuple[str, ...]:
    """Files are beside; modules are found by Python."""
    return tuple(beside(place, folder) if place.endswith(".py") else place for place in places)


PLACES: dict[str, Callable[[Any, str], Any]] = {"weights": _weights, "custom_objects": _custom_objects}


@functools.cache
def _check_alone(field: str, value: Any) -> None:
    """Whether a value can be right for any model and beside any others. Raises UsageError."""
    if field == "source_kind":
        check_kind(value)
    elif field == "formats":
        checked(ExportOptions(formats=value))
    else:
        # With every format, because some options are only for some of them.
        checked(ExportOptions(**{"formats": _installed_formats(), field: value}))


@functools.cache
def _installed_formats() -> tuple[str, ...]:
    return tuple(name for name, each in FORMATS.items() if all(map(importlib.util.find_spec, each.imports)))


def _checking(field: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        _check_alone(field, value)
        return value

    return convert


def option_keys() -> dict[str, Key]:
    """The keys of `[defaults]` and of a model, by name; `output` belongs to the batch as a whole."""
    keys = {}
    for field in dataclasses.fields(ExportOptions):
        if field.name != "output":
            name = FLAGS.get(field.name, field.name.replace("_", "-"))
            kind = TABLES.get(field.name) or ANNOTATIONS[str(field.type).removesuffix(" | None")]
            place = PLACES.get(field.name, Key.place)
            keys[name] = Key(name, field.name, kind, _checking(field.name), place, field.name in SIZES)
    return keys
