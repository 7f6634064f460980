"""Which blocks of a folded tree are drawn open, with their inside, and which as single boxes.

A picture has room for so many boxes. Level by level, blocks are opened as long as there is room: first one of each
kind, so that a reader sees it once, then all others or none of them. What is opened by name comes before all that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from exporter.formats.repetition import Block, Node, Part, layers_of
from exporter.formats.sketch import block_name, rows_of, title

# A block whose classes agree with those of an open one to this degree (common to all) tells nothing new.
ALIKE = 0.7
# Into so many groups at most the neighbours in a long row of parts are put.
STAGES = 24
# A nested model is opened in stages where at least so many of them fit.
FEWEST_STAGES = 6


def opened(
    parts: Sequence[Part],
    most: int | None,
    *,
    depth: int | None = None,
    names: Collection[str] = (),
    most_named: int | None = None,
) -> tuple[Part, ...]:
    """The tree with all blocks closed but those that are to be open, in at most `most` boxes (None: any number).

    `depth` is how many levels of blocks may be open. `names` are of blocks that are opened first, as long as there are
    at most `most_named` boxes.
    """
    if most is not None and len(parts) > most:
        return staged(parts, most)
    chooser = Chooser(most_named or most, len(parts))
    chooser.by_name(parts, names)
    chooser.most = most
    chooser.by_level(parts, depth)
    return tuple(chooser.finished(part) for part in parts)


def staged(parts: Sequence[Part], most: int) -> tuple[Part, ...]:
    """Neighbours in closed groups of the same size."""
    size = -(-len(parts) // min(STAGES, most))
    groups = [tuple(parts[at : at + size]) for at in range(0, len(parts), size)]
    return tuple(closed(group[0]) if len(group) == 1 else Block(group, closed=True) for group in groups)


def closed(part: Part) -> Part:
    return replace(part, closed=True) if isinstance(part, Block) and is_closable(part) else part


def is_closable(part: Part) -> bool:
    """Whether a part can be drawn as a box or with its inside: a layer that repeats is a box anyway."""
    return isinstance(part, Block) and (len(part.parts) > 1 or not isinstance(part.parts[0], Node))


class Chooser:
    """Opens blocks while there is room. Blocks go by their identity: equal ones are at several places."""

    def __init__(self, most: int | None, drawn: int) -> None:
        self.most, self.drawn = most, drawn
        self.open: set[int] = set()
        self.stages: dict[int, tuple[Part, ...]] = {}
        self.shown: list[Counter[str]] = []

    def room(self) -> float:
        return float("inf") if self.most is None else self.most - self.drawn

    def try_open(self, block: Block) -> bool:
        """Opens a block if its parts fit; a nested model with too many of them in stages."""
        if id(block) in self.open:
            return True
        parts = block.parts
        if len(parts) - 1 > self.room() and block.models and self.room() >= FEWEST_STAGES:
            parts = self.stages[id(block)] = staged(parts, int(self.room()))
        if len(parts) - 1 > self.room():
            return False
        self.open.add(id(block))
        self.drawn += len(parts) - 1
        self.shown.append(classes(block))
        return True

    def by_name(self, parts: Sequence[Part], names: Collection[str]) -> None:
        """Named blocks and those around them."""
        for part in parts if names else ():
            if isinstance(part, Block) and is_closable(part) and has_named(part, names) and self.try_open(part):
                self.by_name(part.parts, names)

    def by_level(self, parts: Sequence[Part], depth: int | None) -> None:
        level, nesting = list(parts), 0
        while level and (depth is None or nesting < depth):
            blocks = [part for part in level if isinstance(part, Block) and is_closable(part)]
            for block in representatives(blocks):
                known = any(likeness(classes(block), other) >= ALIKE for other in self.shown)
                # A picture of what is rare in the model would mislead where there is no room for what is frequent.
                if not known and not self.try_open(block):
                    break
            later = [block for block in blocks if id(block) not in self.open]
            if sum(len(block.parts) - 1 for block in later) <= self.room():
                for block in later:
                    self.try_open(block)
            opened_now = [block for block in blocks if id(block) in self.open and id(block) not in self.stages]
            level = [inner for block in opened_now for inner in block.parts]
            nesting += 1

    def finished(self, part: Part) -> Part:
        if not isinstance(part, Block):
            return part
        if is_closable(part) and id(part) not in self.open:
            return replace(part, closed=True)
        parts = self.stages.get(id(part)) or tuple(self.finished(inner) for inner in part.parts)
        return replace(part, parts=parts)


def representatives(blocks: Sequence[Block]) -> list[Block]:
    """One of each kind of blocks, that with most copies; the kind that stands for most of the model is in front."""
    kinds: list[tuple[Counter[str], list[Block]]] = []
    for block in blocks:
        found = classes(block)
        same = next((members for other, members in kinds if likeness(found, other) >= ALIKE), None)
        if same is None:
            kinds.append((found, [block]))
        else:
            same.append(block)
    kinds.sort(key=lambda kind: -kind[0].total() * sum(block.times for block in kind[1]))
    return [max(members, key=lambda block: block.times) for _, members in kinds]


def classes(block: Block) -> Counter[str]:
    return Counter(layer.class_name for layer in layers_of(block))


def likeness(one: Counter[str], other: Counter[str]) -> float:
    """The Jaccard index of two multisets: 1 for equal ones."""
    return (one & other).total() / max(1, (one | other).total())


def has_named(block: Block, names: Collection[str]) -> bool:
    return any(is_named(inner, names) for inner in blocks_in(block))


def blocks_in(part: Part) -> Iterator[Block]:
    if isinstance(part, Block):
        yield part
        for inner in part.parts:
            yield from blocks_in(inner)


def is_named(block: Block, names: Collection[str]) -> bool:
    """Whether a block goes by one of the names: its title, or what the layers of one of its copies share."""
    return any(fnmatchcase(own, name) for own in names_of(block) for name in names)


def names_of(block: Block) -> set[str]:
    """Each copy's name; of a nested model also its key."""
    if block.models:
        return {text for model in block.models for text in (model.name, model.namespace)}
    copies = min(len(row) for row in rows_of(block))
    return {title(block), *(block_name(block, copy) for copy in range(copies))} - {""}


def all_names(parts: Iterable[Part]) -> set[str]:
    """The names that blocks of a tree go by."""
    return {name for part in parts for block in blocks_in(part) for name in names_of(block)}
