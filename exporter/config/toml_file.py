"""A TOML file with the line of each key.

`tomllib` says what a file means but not where; of the libraries that keep places, tree-sitter and its TOML grammar are
kept by many, parse 10,000 models in 0.3 s, and keep even what comes after an error. tomlkit has no positions
(python-poetry/tomlkit issue 55).
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.config.mistakes import Mistakes, Place

if TYPE_CHECKING:
    from tree_sitter import Node

# Far above what people write; a device or a model given by mistake is not read to its end.
LIMIT_BYTES = 16 * 2**20
# `models[3].to[1]` has four parts; what is nested deeper is a mistake in any case.
DEPTH = 6
AT_LINE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)")

# Keys and the numbers of elements that lead to a value.
Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class TomlFile:
    """`path` is as the user named it, or, for an included file, relative to the same folder."""

    path: str
    data: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[Keys, int] = field(default_factory=dict)

    def place(self, *keys: str | int) -> Place:
        """Of a key, or of the nearest table around it that is written down."""
        for length in range(len(keys), 0, -1):
            if found := self.lines.get(keys[:length]):
                return Place(self.path, found)
        return Place(self.path)


def read(path: str, mistakes: Mistakes, asked: Place | None = None) -> TomlFile:
    """The file; where it cannot be read or is not TOML that is a mistake, and it is empty.

    `asked` is where a file says that it is wanted.
    """
    text = _text(path, mistakes, asked or Place(path))
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        mistakes.add(_place_of(error, path, text), f"is not TOML: {AT_LINE.sub('', str(error))}")
        return TomlFile(path)
    except RecursionError:
        mistakes.add(Place(path), "is nested too deeply")
        return TomlFile(path)
    return TomlFile(path, data, _lines(text.encode()))


def _text(path: str, mistakes: Mistakes, asked: Place) -> str:
    """Empty where it cannot be had."""
    try:
        file = Path(path)
        if file.is_file() and file.stat().st_size > LIMIT_BYTES:
            mistakes.add(asked, f"{path} is larger than {LIMIT_BYTES // 2**20} MiB", "is it a model?")
            return ""
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        mistakes.add(Place(path, line), "is not text in UTF-8, as TOML has to be")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        mistakes.add(asked, f"{path} cannot be read: {reason}", _near(path, asked))
    return ""


def _near(path: str, asked: Place) -> str:
    """The file that was perhaps meant; not the one that asks."""
    folder = Path(path).parent
    names = [entry.name for entry in folder.glob("*.toml") if entry != Path(asked.path)]
    near = difflib.get_close_matches(Path(path).name, sorted(names), n=1)
    return f"did you mean {folder / near[0]}?" if near else ""


def _place_of(error: tomllib.TOMLDecodeError, path: str, text: str) -> Place:
    """`tomllib` says `at end of document` where the file ends too soon."""
    match = AT_LINE.search(str(error))
    return Place(path, int(match[1]) if match and match[1] else text.rstrip().count("\n") + 1)


def _lines(text: bytes) -> dict[Keys, int]:
    """The line of each key, table and element, from the tree of the text."""
    import tree_sitter
    import tree_sitter_toml

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
    lines: dict[Keys, int] = {}
    last: dict[Keys, int] = {}
    for node in parser.parse(text).root_node.named_children:
        if node.type == "pair":
            _take_pair(node, (), lines)
        elif node.type in ("table", "table_array_element"):
            header, *pairs = (child for child in node.named_children if child.type != "comment")
            keys = _table_keys(list(_parts(header)), node.type == "table_array_element", last)
            lines.setdefault(keys, node.start_point.row + 1)
            for pair in pairs:
                _take_pair(pair, keys, lines)
    return lines


def _table_keys(parts: list[str], is_element: bool, last: dict[Keys, int]) -> Keys:
    """`[[models]]` → (`models`, 0), then 1, 2…; `[models.x]` after it → (`models`, 0, `x`)."""
    keys: Keys = ()
    for number, part in enumerate(parts):
        keys = (*keys, part)
        if is_element and number == len(parts) - 1:
            last[keys] = last.get(keys, -1) + 1
        if keys in last:
            keys = (*keys, last[keys])
    return keys


def _take_pair(pair: Node, before: Keys, lines: dict[Keys, int]) -> None:
    """`key = value`; what the grammar does not understand is no pair, and has the line of what is around it."""
    children = [child for child in pair.named_children if child.type != "comment"]
    if pair.type != "pair" or len(children) != 2:
        return
    keys = before
    for part in _parts(children[0]):
        keys = (*keys, part)
        lines.setdefault(keys, pair.start_point.row + 1)
    _take_value(children[1], keys, lines)


def _take_value(value: Node, keys: Keys, lines: dict[Keys, int]) -> None:
    if len(keys) > DEPTH:
        return
    if value.type == "inline_table":
        for pair in value.named_children:
            _take_pair(pair, keys, lines)
    elif value.type == "array":
        elements = (child for child in value.named_children if child.type != "comment")
        for number, element in enumerate(elements):
            lines[(*keys, number)] = element.start_point.row + 1
            _take_value(element, (*keys, number), lines)


def _parts(key: Node) -> Iterator[str]:
    """`a."b c".d` → `a`, `b c`, `d`; the tree of a dotted key leans to the left."""
    found = []
    while key.type == "dotted_key" and len(key.named_children) == 2:
        key, part = key.named_children
        found.append(part)
    for node in [key, *reversed(found)]:
        text = (node.text or b"").decode("utf-8", "replace")
        yield text if node.type == "bare_key" else next(iter(tomllib.loads(f"{text} = 0")), text)
