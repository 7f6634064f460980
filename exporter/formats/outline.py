"""As much of a model's outline as fits into so many lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exporter.formats.block_tree import Entry, summed

# A block that does not fit as a whole is opened all the same where so many lines are left; its middle is left out.
FEWEST_LINES = 6


@dataclass(frozen=True, slots=True)
class Line:
    """An entry with its branch of the tree before it; or `left_out`, how many entries are not shown here."""

    branch: str
    entry: Entry
    left_out: int = 0
    closed: bool = False


def fitted(entries: Sequence[Entry], room: int | None, depth: int | None) -> list[Line]:
    """At most `room` lines, of at most `depth` levels; all of them where it is None.

    Blocks are opened level by level, those with the most parameters first, as long as their lines fit.
    """
    left = None if room is None else room - len(entries)
    opened: dict[int, int | None] = {}
    level, reached = [entry for entry in entries if entry.entries], 1
    while level and (depth is None or reached < depth):
        inner: list[Entry] = []
        for entry in sorted(level, key=lambda each: -each.sums.params):
            if left is None or len(entry.entries) <= left:
                opened[id(entry)] = None
                left = None if left is None else left - len(entry.entries)
                inner += entry.entries
            elif left >= FEWEST_LINES:
                opened[id(entry)], left = left, 0
        level, reached = [entry for entry in inner if entry.entries], reached + 1
    return list(_lines(entries, opened, "", room))


def _lines(entries: Sequence[Entry], opened: dict[int, int | None], branch: str, room: int | None) -> Iterator[Line]:
    shown = _cut(entries, room)
    for number, (entry, left_out) in enumerate(shown, 1):
        # The model itself has no trunk: its parts start at the margin.
        stem = "" if branch == "" else branch[:-3] + ("└─ " if number == len(shown) else "├─ ")
        is_open = id(entry) in opened
        yield Line(stem, entry, left_out, bool(entry.entries) and not is_open)
        if is_open and not left_out:
            trunk = "" if branch == "" else branch[:-3] + ("   " if number == len(shown) else "│  ")
            yield from _lines(entry.entries, opened, f"{trunk}   ", opened[id(entry)])


def _cut(entries: Sequence[Entry], room: int | None) -> list[tuple[Entry, int]]:
    """The entries, or the first and the last of them and between them one with the sums of the rest."""
    if room is None or len(entries) <= room:
        return [(entry, 0) for entry in entries]
    first, last = max(room - 1, 1) - (room - 1) // 2, max(room - 1, 0) // 2
    middle = entries[first : len(entries) - last]
    gap = Entry("", "gap", "", "", "", 1, summed(middle))
    return [
        *((entry, 0) for entry in entries[:first]),
        (gap, len(middle)),
        *((e, 0) for e in entries[len(entries) - last :]),
    ]
