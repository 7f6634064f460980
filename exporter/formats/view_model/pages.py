"""Pages: what one sees at once, the children of one block. Each is short enough to be drawn and overlooked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from exporter.formats.view_model.folding import BLOCK, RUN, folded
from exporter.formats.view_model.items import Item, Maker

# Fewer nodes than this are shown where they are instead of in a block of their own.
SMALLEST_BLOCK = 4
# A page of at most so many items is left as it is; one of more is folded, where something repeats.
SHORT_PAGE = 40
MOST_ITEMS = 100
# Copies of a block that are shown side by side; more of them are shown in groups.
MOST_COPIES = 48
COPIES, PART = "copies", "part"


def page(maker: Maker, items: list[Item]) -> list[Item]:
    """The items, folded until they fit."""
    if len(items) > SHORT_PAGE:
        items = list(chain.from_iterable(_opened(maker, item) for item in folded(maker, items)))
    return _parted(maker, items)


def _opened(maker: Maker, item: Item) -> Sequence[Item]:
    """What is shown of an item: the copies of a run, and small blocks without their frame."""
    if item.kind == RUN:
        return _copies(maker, item)
    if item.kind == BLOCK:
        inside = [inner for child in item.children for inner in _opened(maker, child)]
        if item.size < SMALLEST_BLOCK or len(inside) < SMALLEST_BLOCK:
            return inside
        return [maker.block(_parted(maker, inside), BLOCK)]
    return [item]


def _copies(maker: Maker, run: Item) -> list[Item]:
    """The copies side by side, or in groups of about as many as there are groups."""
    shown = [list(_opened(maker, copy)) for copy in run.children]
    width = len(shown[0])
    while len(shown) * width > MOST_COPIES and len(shown) > 3:
        size = _group_size(len(shown), width)
        joined = [list(chain.from_iterable(shown[at : at + size])) for at in range(0, len(shown), size)]
        shown = [[maker.block(inside, COPIES)] if len(inside) >= SMALLEST_BLOCK else inside for inside in joined]
        width = 1
    return list(chain.from_iterable(shown))


def _group_size(count: int, width: int) -> int:
    """Copies for each group: near the square root, and if it can be so that no group is smaller than the others."""
    most = max(2, MOST_COPIES // width)
    root = min(most, max(2, math.isqrt(count)))
    near = range(max(2, root // 2), min(most, root * 2) + 1)
    return min(near, key=lambda size: (-count % size, abs(size - root)), default=root)


def _parted(maker: Maker, items: Sequence[Item]) -> list[Item]:
    """A page that is still too long in stretches, cut where few tensors go on."""
    if len(items) <= MOST_ITEMS:
        return list(items)
    count = min(SHORT_PAGE, -(-len(items) // SHORT_PAGE))
    cuts = _cuts(_open_tensors(items), count)
    parts = [items[low:high] for low, high in zip([0, *cuts], [*cuts, len(items)], strict=True)]
    return [maker.block(_parted(maker, part), PART) if len(part) > 1 else part[0] for part in parts if part]


def _cuts(width: Sequence[int], count: int) -> list[int]:
    """Where to cut into so many stretches of about equal length, at the narrowest place near each mark."""
    step = len(width) / count
    reach = max(1, int(step / 4))
    marks = [round(step * number) for number in range(1, count)]
    return [
        min(range(mark - reach, mark + reach + 1), key=lambda at: (width[at - 1], abs(at - mark))) for mark in marks
    ]


def _open_tensors(items: Sequence[Item]) -> list[int]:
    """How many tensors go on behind each item."""
    home = {name: place for place, item in enumerate(items) for name in item.makes}
    last = dict.fromkeys(home, -1)
    for place, item in enumerate(items):
        last.update((name, place) for name in item.reads if name in last)
    change = [0] * (len(items) + 1)
    for name, place in home.items():
        change[place] += 1
        change[max(last[name], place)] -= 1
    found, total = [], 0
    for difference in change[: len(items)]:
        total += difference
        found.append(total)
    return found
