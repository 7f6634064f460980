"""The blocks of a view as functions: each page once, however many copies of it there are."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from exporter.formats.view_model.flat import Flat
from exporter.formats.view_model.items import Item
from exporter.formats.view_model.stubs import Cut, cut_reads


@dataclass(frozen=True)
class Row:
    """One item of a page, and where it is a block: the function that shows it, and what that is given.

    `copies` are the items that stand there in the copies of the page, itself first.
    """

    item: Item
    cut: Cut
    function: Function | None
    inputs: tuple[str, ...]
    copies: list[Item] = field(default_factory=list)


@dataclass(frozen=True)
class Function:
    """A page that blocks of one structure share; tensors are called as in the first of them."""

    item: Item
    rows: list[Row]
    inputs: tuple[str, ...]
    copies: list[Item] = field(default_factory=list)


class Library:
    """All functions of a view, by their content, those that others use first."""

    def __init__(self, graph: Flat) -> None:
        self.graph = graph
        self.functions: dict[bytes, Function] = {}

    def rows(self, items: Sequence[Item], given: frozenset[str] = frozenset()) -> list[Row]:
        """The items of a page with the functions that they need; `given` are the tensors that are cut off outside."""
        cuts = cut_reads(self.graph, items, given)
        return [self._row(item, cut) for item, cut in zip(items, cuts, strict=True)]

    def _row(self, item: Item, cut: Cut) -> Row:
        if not item.children:
            return Row(item, cut, None, ())
        given = frozenset(cut.stubs)
        inputs = tuple(name for name in item.reads if name not in given)
        return Row(item, cut, self._function(item, given, inputs), inputs)

    def _function(self, item: Item, given: frozenset[str], inputs: tuple[str, ...]) -> Function:
        rows = self.rows(item.children, given)
        key = _key(item, rows, inputs)
        found = self.functions.setdefault(key, Function(item, rows, inputs))
        found.copies.append(item)
        for known, row in zip(found.rows, rows, strict=True):
            known.copies.append(row.item)
        return found


def _key(item: Item, rows: Sequence[Row], inputs: Sequence[str]) -> bytes:
    """Equal for two blocks that one function can show: the same but for the names of nodes, tensors and weights."""
    known: dict[str, Hashable] = {name: ("input", at) for at, name in enumerate(inputs)}
    content: list[Hashable] = [item.kind]
    for number, row in enumerate(rows):
        reads = tuple(row.cut.key(name, known.get(name)) for name in row.item.reads)
        shows = ("node", row.item.token) if row.function is None else ("block", id(row.function))
        content.append((shows, reads, len(row.item.makes)))
        known.update((name, (number, at)) for at, name in enumerate(row.item.makes))
    content.append(tuple(known[name] for name in item.makes))
    return hashlib.blake2b(repr(content).encode(), digest_size=16).digest()
