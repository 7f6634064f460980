"""Folds a model into a picture-sized tree: what repeats is drawn once and counted.

A level is cut where a single tensor holds the two sides together; the segments between the cuts get a token that
stands for classes, shapes, parameters and inner edges (names do not matter), and runs of repeated tokens fold. Tokens
are small integers given out in order of appearance, so that the result does not depend on Python's string hashing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise

from exporter.formats.levels import OFTEN, Hierarchy, Level
from exporter.formats.node_style import trait
from exporter.records import Layer, ModelGraph

# A tensor with more uses, or a longer edge, is a side input such as a mask: it does not hold a block together.
FAN_OUT = 8
LONGEST_EDGE = 60
# Repetitions with a longer period than this many segments are not looked for; it bounds the search to linear time.
LONGEST_PERIOD = 64
# Above this a segment without a cut is parted at its narrow places (cells that reach two cells back have no cuts).
LARGEST_SEGMENT = 24
LARGEST_BLOCK = 48
WIDEST_CUT = 4
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


class Folder:
    """Folds one model. With `loose`, layers that differ in their channels (the last axis) count as equal.

    With `fold` off nothing is folded or joined: every layer becomes a box of its own.
    """

    def __init__(self, graph: ModelGraph, *, loose: bool = False, fold: bool = True) -> None:
        self.hierarchy = Hierarchy(graph)
        self.loose, self.fold = loose, fold
        self.tokens: dict[Hashable, int] = {}

    def token(self, key: Hashable) -> int:
        return self.tokens.setdefault(key, len(self.tokens))

    def parts(self) -> tuple[Part, ...]:
        return self.level(None)[0]

    def level(self, parent: str | None) -> tuple[tuple[Part, ...], int]:
        """The parts of one level and the token of the whole."""
        level = self.hierarchy.level(parent, compact=self.fold)
        drawn = [self.part(layers) for layers in level.chains]
        if not self.fold:
            return tuple(part for part, _ in drawn), 0
        units = self.units(level, drawn)
        whole = self.token(tuple(unit.token for unit in units))
        return tuple(grouped(folded(units, self.token))), whole

    def part(self, layers: tuple[Layer, ...]) -> tuple[Part, int]:
        signatures = tuple(self.signature(layer) for layer in layers)
        if len(layers) == 1 and self.hierarchy.is_model(layers[0]):
            parts, inside = self.level(layers[0].namespace)
            return Block(parts, models=layers), self.token((signatures, inside))
        return Node(tuple((layer,) for layer in layers)), self.token(signatures)

    def signature(self, layer: Layer) -> Hashable:
        """What must agree in two layers that fold into one box."""
        shapes = tuple(spec.shape for spec in layer.outputs or ())
        if self.loose:
            return layer.class_name, tuple(shape and shape[:-1] for shape in shapes)
        return trait(layer), shapes, layer.params, layer.params_total, layer.calls

    def units(self, level: Level, drawn: Sequence[tuple[Part, int]]) -> list[Unit]:
        side = side_inputs(level)
        units: list[Unit] = []
        for start, stop in segments(level, side):
            pieces = [(start, stop)]
            if stop - start > LARGEST_SEGMENT:
                pieces = narrows(level, side, start, stop)
            found = [self.unit(level, side, drawn, piece) for piece in pieces]
            if len(found) > 1:
                inside = tuple(grouped(folded(found, self.token)))
                found = [Unit(self.token(tuple(unit.token for unit in found)), inside)]
            units.extend(found)
        return units

    def unit(self, level: Level, side: set[int], drawn: Sequence[tuple[Part, int]], piece: tuple[int, int]) -> Unit:
        """Some positions as a unit: the token says what is there, and where its inputs come from.

        From inside the piece an input is given by its place, from before it by the order in which such tensors are
        first used there (-1, -2, …), a side input as None.
        """
        before: dict[int, int] = {}
        rows = []
        for place in range(*piece):
            origins: list[int | None] = []
            for origin in level.before[place]:
                if origin in side:
                    origins.append(None)
                elif piece[0] <= origin < piece[1]:
                    origins.append(origin - piece[0])
                else:
                    origins.append(before.setdefault(origin, -1 - len(before)))
            rows.append((drawn[place][1], tuple(origins)))
        return Unit(self.token(tuple(rows)), tuple(drawn[place][0] for place in range(*piece)))


def side_inputs(level: Level) -> set[int]:
    """Positions whose output is a side input: used very often, far away, or a model input used in three places."""
    uses: dict[int, list[int]] = {}
    for place, origins in enumerate(level.before):
        for origin in set(origins):
            uses.setdefault(origin, []).append(place)
    return {
        origin
        for origin, places in uses.items()
        if len(places) > FAN_OUT
        or (len(places) > OFTEN and (not level.before[origin] or max(places) - origin > LONGEST_EDGE))
    }


def segments(level: Level, side: set[int]) -> list[tuple[int, int]]:
    """Ranges of positions that end where one tensor alone goes on. One sweep over the open edges."""
    reach = reaches(level, side)
    found, start, furthest = [], 0, -1
    for place, end in enumerate(reach):
        if furthest <= place:
            found.append((start, place + 1))
            start = place + 1
        furthest = max(furthest, end)
    return found


def reaches(level: Level, side: set[int]) -> list[int]:
    """The position of the last use of each position's output; its own where there is none after it."""
    reach = list(range(len(level.chains)))
    for place, origins in enumerate(level.before):
        for origin in origins:
            if origin not in side:
                reach[origin] = max(reach[origin], place)
    return reach


def narrows(level: Level, side: set[int], start: int, stop: int) -> list[tuple[int, int]]:
    """A segment without a cut, parted where few tensors go on: between cells that reach two cells back, say."""
    ends = reaches(level, side)[start:stop]
    change = [0] * (len(ends) + 1)
    for place, end in enumerate(ends):
        change[place] += 1
        change[min(end - start, len(ends))] -= 1
    open_tensors = list(accumulate(change))[: len(ends) - 1]
    cuts = [start, stop]
    for most in range(2, WIDEST_CUT + 1):
        cuts = [start, *(start + place + 1 for place, count in enumerate(open_tensors) if count <= most), stop]
        if max(later - earlier for earlier, later in pairwise(cuts)) <= LARGEST_BLOCK:
            break
    return list(pairwise(cuts))


def folded(units: list[Unit], token: Tokens, longest_period: int = LONGEST_PERIOD) -> list[Unit]:
    """The units with their repetitions folded, short periods first, so that repetitions nest."""
    for period in range(1, longest_period + 1):
        if 2 * period > len(units):
            break
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
    prefix = shared_name(first) if len(first) > 1 and not repeats(units[start]) else ""
    stop = start + 1
    if any(sign.isdigit() for sign in prefix):
        while stop < len(units) and not repeats(units[stop]) and shares(units[stop], prefix):
            stop += 1
    return stop


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
