"""Runs of equal units fold into blocks; and the names by which blocks go.

What a unit is, and when two are equal, is decided in `blocks`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import eq

from exporter.records import Layer

# Repetitions with a longer period than this many units are not looked for; it bounds the search to linear time.
LONGEST_PERIOD = 64
# More boxes than this are no block that one sees as a whole.
LARGEST_BLOCK = 48
# Layers without a name of their own (`add_7`) may be in a named block.
MOST_NAMES = 0.6
SEPARATORS = re.compile(r"[_\-./: ]")


@dataclass(frozen=True, slots=True)
class Node:
    """One box. `rows[r]` holds all folded copies of the r-th layer of its chain; the first copy is drawn."""

    rows: tuple[tuple[Layer, ...], ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Parts that belong together. `times` counts the copies folded into it.

    `models` is the nested model (in all folded copies) whose inside this is, or empty. A `closed` block is drawn as
    one box.
    """

    parts: tuple[Part, ...]
    times: int = 1
    models: tuple[Layer, ...] = ()
    closed: bool = False


Part = Node | Block
Tokens = Callable[[Hashable], int]


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of a level between two cuts; equal tokens mean equal structure."""

    token: int
    parts: tuple[Part, ...]


def folded(units: list[Unit], token: Tokens) -> list[Unit]:
    """The units with their repetitions folded, short periods first, so that repetitions nest."""
    for period in range(1, LONGEST_PERIOD + 1):
        if 2 * period > len(units):
            break
        tokens = [unit.token for unit in units]
        if any(map(eq, tokens, islice(tokens, period, None))):
            units = list(fold_period(units, token, period))
    return units


def fold_period(units: Sequence[Unit], token: Tokens, period: int) -> Iterator[Unit]:
    """One linear scan for stretches in which every unit equals the one `period` places on."""
    place = 0
    while place < len(units):
        matches = matching(units, place, period)
        if matches < period:
            yield from units[place : place + matches + 1]
            place += matches + 1
            continue
        times, slack = divmod(matches + period, period)
        offset = best_start(units, place, period, slack)
        yield from units[place : place + offset]
        place += offset
        yield repeated(units[place : place + times * period], token, times)
        place += times * period


def matching(units: Sequence[Unit], start: int, period: int) -> int:
    """How many units from `start` on equal the one `period` places later."""
    stop = start
    while stop + period < len(units) and units[stop].token == units[stop + period].token:
        stop += 1
    return stop - start


def best_start(units: Sequence[Unit], place: int, period: int, slack: int) -> int:
    """Where in the first `slack` units a repetition begins: names decide between rotations of the same structure."""
    return max(range(slack + 1), key=lambda shift: coherence(units[place + shift : place + shift + period]))


def repeated(units: Sequence[Unit], token: Tokens, times: int) -> Unit:
    """Copies of the same structure as one unit."""
    period = len(units) // times
    columns = [merged([unit.parts for unit in units[place::period]]) for place in range(period)]
    key = ("repeated", times, *(unit.token for unit in units[:period]))
    return Unit(token(key), (Block(tuple(chain.from_iterable(columns)), times),))


def merged(copies: Sequence[Sequence[Part]]) -> tuple[Part, ...]:
    """The parts of the first copy with the layers of all copies in their rows."""
    return tuple(merged_part(column) for column in zip(*copies, strict=True))


def merged_part(copies: Sequence[Part]) -> Part:
    first = copies[0]
    if isinstance(first, Node):
        rows = zip(*(copy.rows for copy in copies if isinstance(copy, Node)), strict=True)
        return Node(tuple(tuple(chain.from_iterable(row)) for row in rows))
    blocks = [copy for copy in copies if isinstance(copy, Block)]
    models = tuple(chain.from_iterable(block.models for block in blocks))
    return Block(merged([block.parts for block in blocks]), first.times, models)


def grouped(units: Sequence[Unit]) -> Iterator[Part]:
    """The parts of all units; those of a segment with an inside (a residual block, say) as a block of their own.

    Neighbours whose names begin with the same numbered words, such as `block2a`, become a block too.
    """
    place = 0
    while place < len(units):
        stop = namesakes(units, place)
        parts = tuple(parts_of(units[place:stop]))
        if 2 < len(parts) <= LARGEST_BLOCK and not any(repeats(unit) for unit in units[place:stop]):
            yield Block(parts)
        else:
            yield from parts
        place = stop


def namesakes(units: Sequence[Unit], start: int) -> int:
    """Where the units end whose names begin like those of the first; right after it if that has no numbered name."""
    first = [layer.name for part in units[start].parts for layer in layers_of(part)]
    prefix = numbered(shared_name(first)) if len(first) > 1 and not repeats(units[start]) else ""
    stop = start + 1
    if prefix:
        while stop < len(units) and not repeats(units[stop]) and shares(units[stop], prefix):
            stop += 1
    return stop


def numbered(name: str) -> str:
    """A name up to its last word with a digit: `block2a` of `block2a_expand`; empty if there is none."""
    ends = [match.end() for match in re.finditer(r"[^_\-./: ]*\d[^_\-./: ]*", name)]
    return name[: ends[-1]] if ends else ""


def repeats(unit: Unit) -> bool:
    return any(isinstance(part, Block) and not part.models for part in unit.parts)


def shares(unit: Unit, prefix: str) -> bool:
    names = (layer.name for part in unit.parts for layer in layers_of(part))
    return any(name.startswith(prefix) and SEPARATORS.match(name, len(prefix)) for name in names)


def parts_of(units: Sequence[Unit]) -> Iterator[Part]:
    return chain.from_iterable(unit.parts for unit in units)


def layers_of(part: Part, copy: int = 0) -> Iterator[Layer]:
    """The layers of one copy in a part: 0 is the first and -1 the last; nested models before their inside."""
    if isinstance(part, Node):
        yield from (row[copy] for row in part.rows)
        return
    if part.models:
        yield part.models[copy]
    for inner in part.parts:
        yield from layers_of(inner, copy)


def coherence(units: Sequence[Unit]) -> tuple[int, int]:
    """How long a name the layers of a stretch share, and how many do; decides where a repetition seems to begin."""
    names = [layer.name for part in parts_of(units) for layer in layers_of(part)]
    shared = shared_name(names)
    return len(shared), sum(name.startswith(shared) for name in names)


def shared_name(names: Sequence[str]) -> str:
    """The whole words that most names begin with: `block2` of `block2_conv`, `block2_out` and `add_7`.

    Empty if there are none; a single name is its own beginning.
    """
    if len(names) == 1:
        return names[0]
    counts = Counter(name[: end.start()] for name in names for end in SEPARATORS.finditer(name))
    often = [prefix for prefix, count in counts.items() if prefix and count >= MOST_NAMES * len(names)]
    return max(often, key=len, default="")
