"""A file of settings with those that it includes, the included ones first."""

from __future__ import annotations

import os
from collections.abc import Sequence

from exporter.config import shipped
from exporter.config.keys import as_toml, beside, is_text
from exporter.config.mistakes import Mistakes, Place
from exporter.config.toml_file import TomlFile, read

INCLUDE = "include"
# Files that include files that include files…: nobody writes that by hand.
DEPTH = 32


def read_all(path: str, mistakes: Mistakes) -> list[TomlFile]:
    """All files that `path` leads to, each once, in the order in which they count: the last one has the last word."""
    found: dict[str, TomlFile] = {}
    _add(shipped.find(path), (), None, found, mistakes)
    return list(found.values())


def _add(path: str, above: Sequence[str], asked: Place | None, found: dict[str, TomlFile], mistakes: Mistakes) -> None:
    real = os.path.realpath(path)
    if real in found:
        return
    file = read(path, mistakes, asked)
    trail = [*above, path]
    for number, name in enumerate(_names(file, mistakes)):
        inner, place = beside(name, os.path.dirname(path)), file.place(INCLUDE, number)
        reals = [os.path.realpath(each) for each in trail]
        if os.path.realpath(inner) in reals:
            circle = [*trail[reals.index(os.path.realpath(inner)) :], inner]
            mistakes.add(place, f"includes go in a circle: {' → '.join(circle)}", "leave this one out")
        elif len(trail) >= DEPTH:
            mistakes.add(place, f"files include each other more than {DEPTH} deep")
        else:
            _add(inner, trail, place, found, mistakes)
    found[real] = file


def _names(file: TomlFile, mistakes: Mistakes) -> list[str]:
    value = file.data.get(INCLUDE, [])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(map(is_text, names)):
        wrong = f"include = {as_toml(value)} is not a list of files"
        mistakes.add(file.place(INCLUDE), wrong, 'such as include = ["other.toml"]')
        return []
    return names
