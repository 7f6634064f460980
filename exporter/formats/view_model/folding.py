"""Finds what repeats on a page: neighbours of equal structure become runs, and what belongs together a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from exporter.formats.blocks import LARGEST_SEGMENT, narrows, segments, side_inputs
from exporter.formats.levels import Level
from exporter.formats.repetition import LONGEST_PERIOD, SEPARATORS, numbered, shared_name
from exporter.formats.view_model.items import Item, Maker

# A block of more items than this is not seen as a whole.
LARGEST_BLOCK = 48
BLOCK, RUN = "block", "run"


def folded(maker: Maker, items: Sequence[Item]) -> list[Item]:
    """The same stretch with its repetitions as items of the kind `run`, whose children are the copies."""
    level = _level(items)
    side = side_inputs(level)
    units: list[Item] = []
    for start, stop in segments(level, side):
        if stop - start <= LARGEST_SEGMENT:
            units.append(_unit(maker, items[start:stop]))
        else:
            pieces = [_unit(maker, items[low:high]) for low, high in narrows(level, side, start, stop)]
            units.append(_unit(maker, _runs(maker, pieces)))
    return list(_namesakes(maker, _runs(maker, units)))


def _level(items: Sequence[Item]) -> Level:
    """The items as the folding of pictures knows them: from where each gets its inputs."""
    home: dict[str, int] = {}
    before = []
    for place, item in enumerate(items):
        before.append(tuple(home[name] for name in item.reads if name in home))
        home.update(dict.fromkeys(item.makes, place))
    return Level([()] * len(items), before)


def _unit(maker: Maker, items: Sequence[Item]) -> Item:
    return items[0] if len(items) == 1 else maker.block(items, BLOCK)


def _runs(maker: Maker, units: list[Item]) -> list[Item]:
    """Short periods first, so that repetitions nest; linear in the number of units."""
    tokens = _tokens(units)
    for period in range(1, LONGEST_PERIOD + 1):
        if len(units) < 2 * period:
            break
        streaks = _streaks(tokens[:-period] == tokens[period:])
        if streaks.max() >= period:
            units = list(_runs_of(maker, units, streaks.tolist(), period))
            tokens = _tokens(units)
    return units


def _tokens(units: Sequence[Item]) -> np.ndarray:
    return np.array([unit.token for unit in units])


def _streaks(equal: np.ndarray) -> np.ndarray:
    """How many in a row are true from each place on."""
    ends = np.append(np.flatnonzero(~equal), len(equal))
    places = np.arange(len(equal) + 1)
    return ends[np.searchsorted(ends, places).clip(max=len(ends) - 1)] - places


def _runs_of(maker: Maker, units: list[Item], streaks: Sequence[int], period: int) -> Iterator[Item]:
    """`streaks[i]` units from `i` on equal those that are a period later."""
    place = 0
    while place < len(units):
        times, slack = divmod(streaks[place] if place < len(streaks) else 0, period)
        if not times:
            yield units[place]
            place += 1
            continue
        shift = _best_start(units, place, period, slack)
        yield from units[place : place + shift]
        place += shift
        copies = [units[at : at + period] for at in range(place, place + (times + 1) * period, period)]
        yield maker.block([_copy(maker, copy) for copy in copies], RUN)
        place += (times + 1) * period


def _copy(maker: Maker, units: Sequence[Item]) -> Item:
    """One copy of what repeats; blocks that only hold a segment together dissolve in it, unless it gets too large."""
    inside = list(chain.from_iterable(unit.children if unit.kind == BLOCK else (unit,) for unit in units))
    return _unit(maker, inside if len(inside) <= LARGEST_BLOCK else units)


def _best_start(units: Sequence[Item], place: int, period: int, slack: int) -> int:
    """Where in the first `slack` units a repetition begins: names decide between rotations, then the larger unit."""

    def fit(shift: int) -> tuple[int, int, int]:
        copy = units[place + shift : place + shift + period]
        names = [name for unit in copy for name in _ends(unit)]
        shared = shared_name(names)
        return len(shared), sum(name.startswith(shared) for name in names), copy[0].size

    return max(range(slack + 1), key=fit)


def _ends(unit: Item) -> tuple[str, str]:
    return unit.first, unit.last


def _namesakes(maker: Maker, units: Sequence[Item]) -> Iterator[Item]:
    """Neighbours that do not repeat and whose names begin with the same numbered words become one block."""
    place = 0
    while place < len(units):
        stop = place + 1
        prefix = "" if units[place].kind == RUN else numbered(shared_name(_ends(units[place])))
        while prefix and (following := _next_namesake(units, stop, prefix)):
            stop = following
        yield units[place] if stop == place + 1 else _copy(maker, units[place:stop])
        place = stop


def _next_namesake(units: Sequence[Item], place: int, prefix: str) -> int:
    """Behind the next unit with that prefix; 0 if there is none. An `activation_7` between them does not part them."""
    for at in range(place, min(place + 2, len(units))):
        if units[at].kind == RUN:
            break
        if _shares(units[at], prefix):
            return at + 1
    return 0


def _shares(unit: Item, prefix: str) -> bool:
    return all(name.startswith(prefix) and SEPARATORS.match(name, len(prefix)) for name in _ends(unit))
