"""Which edges of a page are cut off and shown as a stub with the producer's name.

Fan-out kills layout, size does not: what draws a page slowly is one tensor that goes to many places, or far.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from exporter.formats.blocks import FAN_OUT, LONGEST_EDGE
from exporter.formats.view_model.flat import Flat
from exporter.formats.view_model.items import Item


@dataclass(frozen=True)
class Cut:
    """For each read of an item that is cut off, which of the tensor's stubs on this page it gets.

    A stub serves a few neighbours; the next ones get another.
    """

    stubs: Mapping[str, int] = field(default_factory=dict)

    def key(self, name: str, origin: Hashable) -> Hashable:
        return ("stub", name, self.stubs[name]) if name in self.stubs else origin


def cut_reads(graph: Flat, items: Sequence[Item], given: frozenset[str]) -> list[Cut]:
    """One cut for each item of a page. `given` are the tensors that were cut off at a page around this one."""
    home = {name: place for place, item in enumerate(items) for name in item.makes}
    uses: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        for name in item.reads:
            uses[name].append(place)
    wide = {
        name
        for name, places in uses.items()
        if len(places) > FAN_OUT or places[-1] - home.get(name, places[0]) > LONGEST_EDGE
    }
    numbering = _Numbering()
    return [
        Cut({name: numbering.stub(name, place) for name in _cut(graph, item, wide, given, home)})
        for place, item in enumerate(items)
    ]


def _cut(graph: Flat, item: Item, wide: set[str], given: frozenset[str], home: Mapping[str, int]) -> list[str]:
    """The reads of one item that are cut off. An item that would be left without any edge keeps the nearest one."""
    hidden = frozenset() if item.children else graph.hidden[item.start]
    kept = [name for name in item.reads if name not in given and (name not in wide or name in hidden)]
    if not kept:
        near = [name for name in item.reads if name not in given]
        kept = [max(near, key=lambda name: home.get(name, -1))] if near else []
    return [name for name in item.reads if name not in kept and name not in hidden]


class _Numbering:
    """A tensor's stubs on one page: each for at most `FAN_OUT` uses that are near to each other."""

    def __init__(self) -> None:
        self.current: dict[str, tuple[int, int, int]] = {}

    def stub(self, name: str, place: int) -> int:
        number, start, uses = self.current.get(name, (0, place, 0))
        if uses == FAN_OUT or place - start > LONGEST_EDGE // 4:
            number, start, uses = number + 1, place, 0
        self.current[name] = (number, start, uses + 1)
        return number
