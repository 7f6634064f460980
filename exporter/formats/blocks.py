"""Folds a model into a picture-sized tree: what repeats is drawn once and counted.

A level is cut where a single tensor holds the two sides together; the segments between the cuts get a token that
stands for classes, shapes, parameters and inner edges (names do not matter), and runs of repeated tokens fold. Tokens
are small integers given out in order of appearance, so that the result does not depend on Python's string hashing.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import accumulate, pairwise

from exporter.formats.levels import OFTEN, Hierarchy, Level
from exporter.formats.node_style import kind, trait
from exporter.formats.repetition import LARGEST_BLOCK, Block, Node, Part, Unit, folded, grouped
from exporter.records import Layer, ModelGraph

# A tensor with more uses, or a longer edge, is a side input such as a mask: it does not hold a block together.
FAN_OUT = 8
LONGEST_EDGE = 60
# Above this a segment without a cut is parted at its narrow places (cells that reach two cells back have no cuts).
LARGEST_SEGMENT = 24
WIDEST_CUT = 4
# An output with more uses than this, spread over more than a segment, is a side input.
SPREAD = 3


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
        """What must agree in two layers that fold into one box. The inputs of the model never do."""
        if layer.parent is None and kind(layer) == "input":
            return layer.namespace
        shapes = tuple(spec.shape for spec in layer.outputs or ())
        if self.loose:
            return trait(layer), tuple(shape and shape[:-1] for shape in shapes), layer.calls
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
        first used there (-1, -2, …), a side input as None, or as itself if it is a model's input: two masks differ.
        """
        before: dict[int, int] = {}
        rows = []
        for place in range(*piece):
            origins: list[Hashable] = []
            for origin in level.before[place]:
                if origin in side:
                    origins.append(None if level.before[origin] else ("input", origin))
                elif piece[0] <= origin < piece[1]:
                    origins.append(origin - piece[0])
                else:
                    origins.append(before.setdefault(origin, -1 - len(before)))
            rows.append((drawn[place][1], tuple(origins)))
        return Unit(self.token(tuple(rows)), tuple(drawn[place][0] for place in range(*piece)))


def side_inputs(level: Level) -> set[int]:
    """Positions whose output is a side input: used very often, far away, or a model input used in three places.

    An encoder's result that each layer of a decoder reads is used less often, but all over a long stretch.
    """
    uses: dict[int, list[int]] = {}
    for place, origins in enumerate(level.before):
        for origin in set(origins):
            uses.setdefault(origin, []).append(place)
    return {
        origin
        for origin, places in uses.items()
        if len(places) > FAN_OUT
        or (len(places) > OFTEN and (not level.before[origin] or max(places) - origin > LONGEST_EDGE))
        or (len(places) > SPREAD and max(places) - min(places) > LARGEST_SEGMENT)
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
