"""The drawn graph: boxes with numbers, clusters, and the edges between boxes, from a folded tree.

Every edge of the model is drawn, or runs between two copies of a folded block (which is what `×N` says), or between
two layers in one box.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from exporter.formats.blocks import FAN_OUT, LONGEST_EDGE, Folder
from exporter.formats.levels import Hierarchy
from exporter.formats.node_style import shortened
from exporter.formats.repetition import Block, Node, Part, layers_of, shared_name
from exporter.records import Edge, Layer, ModelGraph

# A nested model with up to so many parts stays in one column.
SMALL_MODEL = 8
# After a first name longer than this only the end of the last name is shown.
LONG_NAME = 20


@dataclass(frozen=True, slots=True)
class Box:
    """A drawn node; `blocks` are the clusters around it from the outside in, `prefix` the name they share."""

    number: int
    part: Part
    blocks: tuple[Block, ...]
    prefix: str


@dataclass(frozen=True, slots=True)
class Arrow:
    """A drawn edge. One with `stub` starts at a small label of its own instead of at the source's box.

    Its `course` is `down` the page, `up` (in the second arm of a U) or `across` (between the arms).
    """

    source: int
    target: int
    edge: Edge
    stub: bool = False
    course: str = "down"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part at the top of the picture, or right inside a nested model (`frame`): where columns may be cut.

    `start` is the number of its first box; boxes are numbered in drawing order.
    """

    part: Part
    frame: Block | None
    start: int


@dataclass
class Sketch:
    """A whole picture; `parts` is the tree, `pieces` the same as one row."""

    name: str
    parts: tuple[Part, ...]
    pieces: list[Piece] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)

    def arrows_into(self, first: int, last: int) -> Sequence[Arrow]:
        """The arrows whose targets are the boxes from `first` up to `last`; arrows are sorted by target."""
        low, high = (bisect_left(self.arrows, number, key=lambda arrow: arrow.target) for number in (first, last))
        return self.arrows[low:high]


def sketch(graph: ModelGraph, *, expand: bool = False, loose: bool = False) -> Sketch:
    """The picture of a model with all its blocks open, and with nothing folded (`expand`)."""
    folder = Folder(graph, loose=loose, fold=not expand)
    return drawn(graph.name, folder.parts(), folder.hierarchy)


def drawn(name: str, parts: Sequence[Part], hierarchy: Hierarchy) -> Sketch:
    """The picture of a tree with the edges between its boxes."""
    drawing = laid_out(Sketch(name, tuple(parts)))
    drawing.arrows = stubbed(list(Wiring(hierarchy, drawing.boxes).arrows()))
    return drawing


def laid_out(drawing: Sketch) -> Sketch:
    """The same with its pieces and boxes, which follow from its parts."""
    for part in drawing.parts:
        frame = open_model(part)
        for inner in frame.parts if frame else (part,):
            start = len(drawing.boxes)
            drawing.pieces.append(Piece(inner, frame, start))
            drawing.boxes.extend(boxes(inner, start, (frame,) if frame else (), ""))
    return drawing


def open_model(part: Part) -> Block | None:
    """The part itself if it is a nested model with so much inside that columns may cut it."""
    opened = isinstance(part, Block) and part.models and part.times == 1 and not part.closed
    return part if isinstance(part, Block) and opened and len(part.parts) > SMALL_MODEL else None


def boxes(part: Part, number: int, blocks: tuple[Block, ...], prefix: str) -> Iterator[Box]:
    if isinstance(part, Node) or part.closed:
        yield Box(number, part, blocks, prefix)
        return
    if shared := block_name(part, 0):
        prefix = shared
    for inner in part.parts:
        for box in boxes(inner, number, (*blocks, part), prefix):
            yield box
            number = box.number + 1


def block_name(block: Block, copy: int) -> str:
    """What the layers of one copy of a block are called together; empty if their names have nothing in common."""
    return "" if block.models else shared_name([layer.name for layer in layers_of(block, copy)])


def title(block: Block) -> str:
    """`conv4_block2 … conv4_block23`, the name and class of a nested model, or empty where names say nothing."""
    if block.models:
        model = block.models[0]
        last = f" … {block.models[-1].name}" if len(block.models) > 1 else ""
        calls = f" · called {model.calls} times" if model.calls > 1 else ""
        return f"{model.name}{last} · {model.class_name}{calls}"
    first, last = (block_name(block, copy) or end_name(block, copy) for copy in (0, -1))
    if block.times == 1 and not block.closed:
        return block_name(block, 0)
    if first == last:
        return shortened(first, 60)
    if len(first) > LONG_NAME:
        last = last.removeprefix(f"{shared_name([first, last])}_")
    return f"{shortened(first, 40)} … {shortened(last, 40)}"


def is_framed(block: Block) -> bool:
    """Whether a block gets a frame: one box that repeats says so itself, and a block without a name needs none."""
    if block.times > 1 and not block.models:
        return len(block.parts) > 1 or not isinstance(block.parts[0], Node)
    return bool(title(block))


def end_name(block: Block, copy: int) -> str:
    """The first layer of the first copy, or the last of the last."""
    return list(layers_of(block, copy))[copy].name


class Wiring:
    """Finds the boxes at both ends of each edge."""

    def __init__(self, hierarchy: Hierarchy, drawn: Sequence[Box]) -> None:
        self.hierarchy, self.drawn = hierarchy, drawn
        # The box of each drawn layer, and in which copy of the blocks around the box the layer is.
        self.home: dict[str, tuple[int, int]] = {}
        self.doors: dict[tuple[str, bool], list[tuple[int, int]]] = {}
        for box in drawn:
            outside = copies(box.blocks)
            for row in rows_of(box.part):
                for place, layer in enumerate(row):
                    self.home[layer.namespace] = (box.number, place * outside // len(row))

    def arrows(self) -> Iterator[Arrow]:
        seen: set[tuple[int, int, int]] = set()
        for edge in self.hierarchy.graph.edges:
            for source, source_copy in self.ends(edge.source, out=True):
                for target, target_copy in self.ends(edge.target, out=False):
                    if source == target or (source, target, edge.source_call) in seen:
                        continue
                    if self.same_copy(source, source_copy, target, target_copy):
                        seen.add((source, target, edge.source_call))
                        yield Arrow(source, target, edge)

    def ends(self, name: str, *, out: bool) -> list[tuple[int, int]]:
        """The box of a layer; for a nested model that is drawn open, those of its inputs, or of its outputs."""
        if name in self.home:
            return [self.home[name]]
        if (name, out) not in self.doors:
            inside = self.hierarchy.children.get(name, [])
            edges = self.hierarchy.edges.get(name, [])
            inner = {edge.source for edge in edges} if out else {edge.target for edge in edges}
            doors = [layer.namespace for layer in inside if layer.namespace not in inner]
            # In a cycle every layer has a layer before and after it.
            doors = doors or [layer.namespace for layer in inside[-1:]]
            self.doors[name, out] = [end for door in doors for end in self.ends(door, out=out)]
        return self.doors[name, out]

    def same_copy(self, source: int, source_copy: int, target: int, target_copy: int) -> bool:
        """Whether two layers are in the same copy of every block that is around both."""
        ours, theirs = self.drawn[source].blocks, self.drawn[target].blocks
        shared = 0
        while shared < min(len(ours), len(theirs)) and ours[shared] is theirs[shared]:
            shared += 1
        return source_copy // copies(ours[shared:]) == target_copy // copies(theirs[shared:])


def copies(blocks: Sequence[Block]) -> int:
    product = 1
    for block in blocks:
        product *= block.times
    return product


def rows_of(part: Part) -> Iterator[tuple[Layer, ...]]:
    """All rows of a part, and the nested models as rows of their own."""
    if isinstance(part, Node):
        yield from part.rows
        return
    if part.models:
        yield part.models
    for inner in part.parts:
        yield from rows_of(inner)


def stubbed(arrows: list[Arrow]) -> list[Arrow]:
    """Arrows in drawing order; those of a much used output, and very long ones, become stubs."""
    uses: dict[int, int] = {}
    for arrow in arrows:
        uses[arrow.source] = uses.get(arrow.source, 0) + 1
    return [
        replace(arrow, stub=uses[arrow.source] > FAN_OUT or abs(arrow.target - arrow.source) > LONGEST_EDGE)
        for arrow in sorted(arrows, key=lambda arrow: (arrow.target, arrow.source))
    ]
