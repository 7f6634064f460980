"""The folded model as numbered rows, from the outside in: what the page's graph opens step by step.

No block has more parts than one can look at: where nothing repeats, neighbours go into blocks of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from exporter.formats.blocks import Folder
from exporter.formats.node_style import shortened
from exporter.formats.repetition import Block, Node, Part, layers_of, shared_name
from exporter.formats.sketch import end_name, title
from exporter.records import Layer, ModelGraph

# What one opened block shows at most.
MOST_PARTS = 40
LONGEST_END = 32


@dataclass(frozen=True, slots=True)
class Item:
    """A box or a block. `parent` is the number of the block around it, -1 outermost. `times` counts the copies.

    `rows[r]` has all folded copies of the r-th layer of a box, or of the nested model that a block is (one row); it is
    empty for other blocks. Copies are in order, those of the innermost block next to each other. `title` is a block's.
    """

    number: int
    parent: int
    title: str
    times: int
    is_block: bool
    rows: tuple[tuple[Layer, ...], ...]


def outline(graph: ModelGraph) -> Iterator[Item]:
    """All items, each block before what is inside of it."""
    outermost = shared_name([layer.name for layer in graph.layers if layer.parent is None])
    stack = [(part, -1, outermost) for part in reversed(bounded(Folder(graph).parts()))]
    number = 0
    while stack:
        part, parent, outer = stack.pop()
        part, times = unwrapped(part)
        if isinstance(part, Node):
            yield Item(number, parent, "", times, False, part.rows)
        else:
            rows = (part.models,) if part.models else ()
            names = [layer.name for layer in layers_of(replace(part, models=()))]
            shared = shared_name(names)
            known = names if shared in ("", outer) else [shared]
            yield Item(number, parent, telling(replace(part, times=times, closed=True), known), times, True, rows)
            stack.extend((inner, number, shared) for inner in reversed(bounded(part.parts)))
        number += 1


def telling(block: Block, names: Sequence[str]) -> str:
    """The title of a block whose first copy has a name, or layers with these `names`: their ends, where several."""
    if block.models or (len(names) == 1 and block.times > 1):
        return title(block)
    last = end_name(block, -1) if block.times > 1 else names[-1]
    return " … ".join(dict.fromkeys(shortened(name, LONGEST_END) for name in (names[0], last)))


def unwrapped(part: Part) -> tuple[Part, int]:
    """What is in a block that has nothing else in it, and how often."""
    times = 1
    while isinstance(part, Block) and len(part.parts) == 1 and not part.models:
        times *= part.times
        part = part.parts[0]
    return part, times * (part.times if isinstance(part, Block) else 1)


def bounded(parts: Sequence[Part]) -> Sequence[Part]:
    """The parts, in blocks of neighbours if there are too many; as many at the top as there will be in each."""
    if len(parts) <= MOST_PARTS:
        return parts
    levels = math.ceil(math.log(len(parts), MOST_PARTS))
    size = math.ceil(len(parts) / math.ceil(len(parts) ** (1 / levels)))
    return [Block(tuple(parts[at : at + size])) for at in range(0, len(parts), size)]
