"""What is drawn of a model: the finest picture that its options allow, and coarser ones if it cannot be laid out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from exporter.errors import UsageError
from exporter.formats.blocks import Folder
from exporter.formats.columns import turning_point
from exporter.formats.levels import Hierarchy
from exporter.formats.node_style import Style
from exporter.formats.pictures import ALL
from exporter.formats.pictures.colouring import colouring, legend
from exporter.formats.pictures.costs import Shares, percent
from exporter.formats.pictures.identifiers import Identifiers
from exporter.formats.pictures.labels import Labels
from exporter.formats.pictures.opening import all_names, blocks_in, is_named, opened
from exporter.formats.pictures.sheets import Paint
from exporter.formats.pictures.themes import THEMES
from exporter.formats.repetition import Block, Part
from exporter.formats.sketch import Sketch, drawn, rows_of, sketch, title
from exporter.formats.svg_compose import Frame, totals
from exporter.records import Material, ModelGraph

# Above this, layers that differ only in their channels are folded too, where that helps; with more boxes than the
# second number text becomes too small on a page.
COMFORTABLE, READABLE = 60, 72
# What is drawn at most where the number of boxes is not said but which blocks are.
MOST_BOXES = 400
# More boxes than this take Graphviz minutes, and nobody reads them.
MOST_EXPANDED = 2_000
# What is tried when a picture cannot be laid out in time, or is too large for a page.
FEWER = (64, 56, 48, 40, 28, 16, 8)
# Parts that the description for screen readers names.
MOST_TOLD = 40


class Subject:
    """The model of a picture, folded once."""

    def __init__(self, material: Material) -> None:
        self.graph, self.options = material.graph, material.job.picture
        self.hierarchy, self.parts = folded(material.graph)
        self.shares = Shares(material.graph, material.costs)

    def drawing(self, most: int) -> Sketch:
        """With at most so many boxes."""
        options = self.options
        named = most if options.max_nodes else max(most, MOST_BOXES)
        parts = opened(self.parts, most, depth=options.depth, names=options.expand, most_named=named)
        flat = drawn(self.graph.name, tuple(dissolved(parts)), self.hierarchy)
        if turning_point(flat) is not None:
            return flat
        return drawn(self.graph.name, parts, self.hierarchy)

    def most(self) -> int:
        return self.options.max_nodes or (READABLE if self.options.depth is None else MOST_BOXES)

    def is_free(self) -> bool:
        """Whether the picture is to fit a page, and no option says what is in it."""
        options = self.options
        return options.depth is None and options.max_nodes is None and not options.expand

    def attempts(self) -> Iterator[Sketch]:
        """From the finest that is asked for to the coarsest."""
        if ALL in self.options.expand and len(self.graph.layers) <= MOST_EXPANDED:
            yield sketch(self.graph, expand=True)
        last = self.most() + 1
        for most in (self.most(), *FEWER):
            if most < last:
                drawing = self.drawing(most)
                yield drawing
                last = len(drawing.boxes)

    def too_large(self) -> str:
        """Why nothing can be drawn that is asked for; empty if it can be tried."""
        count = len(self.graph.layers)
        if ALL not in self.options.expand or count <= MOST_EXPANDED:
            return ""
        return f"{count:,} layers are too many for an expanded picture (limit {MOST_EXPANDED:,})"

    def note(self, drawing: Sketch, failed: str = "") -> str:
        """What is not in the picture and why, or how to see it; empty where all is there or as asked for."""
        shut = sum(isinstance(box.part, Block) for box in drawing.boxes)
        if failed:
            return (
                f"{failed}; it is simplified: {shut} blocks are single boxes. `--to dot --expand all` has every layer."
            )
        if not shut or not self.is_free():
            return ""
        blocks = "1 block is drawn as a single box" if shut == 1 else f"{shut} blocks are drawn as single boxes"
        more = "--max-nodes, --depth or --expand NAME draw more"
        return f"{blocks}, so that the picture fits a page; {more}."

    def paint(self, drawing: Sketch) -> tuple[Paint, Frame]:
        """How the drawing looks, and what stands around it; the frame's attributes are complete when it is drawn."""
        theme = THEMES[self.options.theme]
        look = colouring(self.options.color_by, theme, self.shares)
        largest = self.shares.largest(drawing.boxes)
        labels = Labels(theme, look, self.shares, Identifiers(len(self.graph.layers)), largest)
        rows = (row for box in drawing.boxes if not isinstance(box.part, Block) for row in box.part.rows)
        bars = [
            Style(f"bar: share of {what}, the longest is {percent(share)}", color, color)
            for what, share, color in zip(("parameters", "MACs"), largest, theme.bars, strict=True)
            if share
        ]
        styles = [*legend(self.options.color_by, theme, rows, look), *bars]
        right = self.options.direction == "right"
        paint = Paint(
            labels.box,
            labels.tooltip,
            labels.cluster,
            identify=lambda part: labels.ids.block(part) if isinstance(part, Block) else "",
            theme=theme,
            direction=self.options.direction,
        )
        words = totals(self.graph)
        return paint, Frame(styles, words, f"{words}. {outline(drawing)}", theme, labels.ids.attributes, right)


def folded(graph: ModelGraph) -> tuple[Hierarchy, tuple[Part, ...]]:
    """Folded exactly where the result is readable, else also blocks of different widths, where that helps."""
    exact = Folder(graph)
    parts = exact.parts()
    if count(parts) <= COMFORTABLE:
        return exact.hierarchy, parts
    loose = Folder(graph, loose=True)
    wider = loose.parts()
    return (loose.hierarchy, wider) if count(wider) < 0.8 * count(parts) else (exact.hierarchy, parts)


def count(parts: Sequence[Part]) -> int:
    """The boxes of parts that are all open."""
    return sum(count(part.parts) if isinstance(part, Block) and not part.closed else 1 for part in parts)


def dissolved(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts without the frames that only hold neighbours together."""
    for part in parts:
        if isinstance(part, Block) and part.times == 1 and not part.models and not part.closed:
            yield from dissolved(part.parts)
        else:
            yield part


def outline(drawing: Sketch) -> str:
    """The parts in order, for those who do not see the picture."""
    told = []
    for part in drawing.parts[:MOST_TOLD]:
        first = next(rows_of(part))[0]
        name = (title(part) or first.name) if isinstance(part, Block) else f"{first.name} ({first.class_name})"
        times = f", {part.times} times" if isinstance(part, Block) and part.times > 1 else ""
        told.append(f"{name}{times}")
    more = len(drawing.parts) - len(told)
    return "In order: " + "; ".join(told) + (f"; and {more} more." if more > 0 else ".")


def first_drawing(material: Material) -> tuple[Sketch, Paint, str]:
    """What the options ask for, however large; for text it matters not whether it can be laid out."""
    subject = Subject(material)
    whole = ALL in subject.options.expand
    drawing = sketch(material.graph, expand=True) if whole else subject.drawing(subject.most())
    return drawing, subject.paint(drawing)[0], subject.note(drawing)


def check_names(material: Material) -> None:
    """Raises UsageError for a name of `--expand` that no block of the model has."""
    wanted = [name for name in material.job.picture.expand if name != ALL]
    if not wanted:
        return
    _, parts = folded(material.graph)
    blocks = [block for part in parts for block in blocks_in(part)]
    for name in wanted:
        if not any(is_named(block, [name]) for block in blocks):
            names = sorted(all_names(parts))
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
            why = f"near it are {', '.join(near)}" if near else "the model has no blocks"
            hint = "names of blocks stand over their frames; --expand all draws every layer"
            raise UsageError("is no block of this model", where=f"--expand {name}", why=why, hint=hint)
