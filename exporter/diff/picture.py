"""A difference as a picture: both models in one graph, and what is the same folded to single boxes.

Colours are never alone: each kind of change has a sign before the layer's name and a border of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from itertools import count, groupby
from time import monotonic

from exporter.diff.differences import ADDED, CHANGED, REMOVED, RENAMED, SAME, Difference
from exporter.diff.text import SIGNS, WORDS, details, summary
from exporter.diff.union import Union, status_of, united
from exporter.diff.weights import UNKNOWN
from exporter.errors import ExportError, InternalError, ResourceError
from exporter.formats import layout
from exporter.formats.columns import plans
from exporter.formats.dot_labels import box_tooltip, escaped, small
from exporter.formats.levels import Hierarchy
from exporter.formats.node_style import INK, Style, label, output_text, shortened
from exporter.formats.pictures.opening import STAGES, opened
from exporter.formats.pictures.sheets import Paint, sheet
from exporter.formats.repetition import Block, Node, Part, Unit, folded
from exporter.formats.sketch import Box, Sketch, drawn, rows_of, title
from exporter.formats.svg_compose import Frame, compose
from exporter.records import Layer

# Light fills under near-black text, in hues that stay apart with red-green colour blindness through their lightness.
STYLES = {
    ADDED: Style("+ added (thick border)", "#cdeccb", "#1a7f37"),
    REMOVED: Style("- removed (dashed)", "#fbd0d0", "#b3202f"),
    CHANGED: Style("~ changed (dotted)", "#ffe7a8", "#8a5a00"),
    RENAMED: Style("= renamed", "#dfe8f3", "#4a6076"),
    UNKNOWN: Style("? weights unknown", "#e9e4f2", "#6d5b8f"),
    SAME: Style("the same", "#f1f1f1", "#8a8a8a"),
}
BORDERS = {
    ADDED: 'BORDER="3"',
    REMOVED: 'BORDER="2" STYLE="dashed"',
    CHANGED: 'BORDER="2" STYLE="dotted"',
    RENAMED: 'BORDER="1"',
    UNKNOWN: 'BORDER="1"',
    SAME: 'BORDER="1"',
}
ARROWS = {ADDED: f'color="{STYLES[ADDED].border}", penwidth=2, ', REMOVED: 'color="#b3202f", style=dashed, '}
UNCHANGED = (SAME, UNKNOWN, RENAMED)
SHORT = {UNKNOWN: "with weights unknown"}
# A shorter row of layers that are the same is drawn box by box, as the surroundings of what is not.
SHORTEST_RUN = 3
MOST_BOXES, MOST_LINES, LONGEST_LINE = 100, 4, 44
# The share of the time left that one attempt may take, so that a coarser one can follow.
SHARE = 0.6


def draw(difference: Difference, *, seconds: float) -> bytes:
    """The document in SVG, in UTF-8. Raises ResourceError when even the coarsest picture takes too long."""
    union = united(difference)
    deadline = monotonic() + seconds
    failure: ExportError | None = None
    for drawing in attempts(union):
        if failure is not None or len(drawing.boxes) <= MOST_BOXES:
            try:
                return rendered(union, drawing, difference, (deadline - monotonic()) * SHARE)
            except (ResourceError, InternalError) as error:
                failure = error
    return rendered(union, drawing, difference, deadline - monotonic())


def rendered(union: Union, drawing: Sketch, difference: Difference, seconds: float) -> bytes:
    labels = Labels(union)
    paint = Paint(
        labels.label, labels.tooltip, labels.cluster, lambda arrow: ARROWS.get(status_of(union, arrow.edge), "")
    )
    texts = ["\n".join(sheet(drawing, part.pieces, part.arrows, part.links, paint)) for part in plans(drawing)[0]]
    found = {union.status(layer) for layer in union.graph.layers}
    styles = [style for status, style in STYLES.items() if status in found]
    frame = Frame(styles, next(summary(difference)))
    return compose(union.graph.name, layout.pictures(texts, seconds=seconds), frame)


def attempts(union: Union) -> Iterator[Sketch]:
    """From the finest to the coarsest: what is the same in single boxes, then all that is of one kind, then stages."""
    for kinds in ((SAME,), tuple(STYLES)):
        parts = Folding(union, kinds).parts(None)
        yield sketch(union, parts)
    yield sketch(union, opened(parts, STAGES, depth=0))


def sketch(union: Union, parts: Sequence[Part]) -> Sketch:
    return drawn(union.graph.name, parts, Hierarchy(union.graph))


class Folding:
    """The tree of parts: neighbours in execution order of one of `kinds` in one box, repeated changes counted."""

    def __init__(self, union: Union, kinds: Sequence[str]) -> None:
        self.union, self.kinds = union, kinds
        self.hierarchy = Hierarchy(union.graph)
        self.tokens: dict[Hashable, int] = {}
        self.unlike = count()
        self.inner = self._inner()

    def parts(self, parent: str | None) -> list[Part]:
        level = self.hierarchy.level(parent, compact=False)
        layers = [layer for chain in level.chains for layer in chain]
        groups = [list(members) for _, members in groupby(enumerate(layers), lambda item: self._group(item[1]))]
        pieces = [piece for group in groups for piece in self._pieces(group)]
        home = {place: number for number, piece in enumerate(pieces) for place, _ in piece}
        units = []
        for number, piece in enumerate(pieces):
            origins = tuple(number - home[origin] for place, _ in piece for origin in level.before[place])
            units.append(Unit(self._token(piece, origins), (self._part([layer for _, layer in piece]),)))
        return [part for unit in folded(units, self._number) for part in unit.parts]

    def status(self, layer: Layer) -> str:
        """That of a layer with what is inside of it."""
        own = self.union.status(layer)
        return CHANGED if own in UNCHANGED and self.inner[layer.namespace] else own

    def is_open(self, layer: Layer) -> bool:
        return self.hierarchy.is_model(layer) and self.inner[layer.namespace]

    def _inner(self) -> dict[str, bool]:
        """Whether the inside of a layer is to be seen: because something differs there, or came from elsewhere."""
        found = {layer.namespace: False for layer in self.union.graph.layers}
        for layer in sorted(self.union.graph.layers, key=lambda layer: -layer.depth):
            if layer.parent not in found:
                continue
            status = self.union.status(layer)
            if self.union.pairs[layer.parent].status in (ADDED, REMOVED):
                shown = status not in (ADDED, REMOVED)
            else:
                shown = status not in UNCHANGED
            found[layer.parent] |= shown or found[layer.namespace]
        return found

    def _group(self, layer: Layer) -> Hashable:
        status = self.status(layer)
        if self.is_open(layer):
            return next(self.unlike)
        if self.union.pairs[layer.namespace].is_only_trained_otherwise:
            return "trainable"
        kind = SAME if status == UNKNOWN else status
        return kind if kind in self.kinds else next(self.unlike)

    def _pieces(self, group: list[tuple[int, Layer]]) -> list[list[tuple[int, Layer]]]:
        return [group] if len(group) >= SHORTEST_RUN else [[item] for item in group]

    def _part(self, layers: Sequence[Layer]) -> Part:
        if len(layers) == 1 and self.is_open(layers[0]):
            return Block(tuple(self.parts(layers[0].namespace)), models=(layers[0],))
        nodes = tuple(Node(((layer,),)) for layer in layers)
        return nodes[0] if len(nodes) == 1 else Block(nodes, closed=True)

    def _token(self, piece: list[tuple[int, Layer]], origins: tuple[int, ...]) -> int:
        """Equal where boxes may be folded: single layers with the same change; boxes of several are not."""
        layer = piece[0][1]
        if len(piece) > 1 or self.is_open(layer):
            return self._number(("unlike", next(self.unlike)))
        shapes = tuple(spec.shape for spec in layer.outputs or ())
        return self._number((self.status(layer), label(layer), shapes, tuple(self._lines(layer)), origins))

    def _lines(self, layer: Layer) -> Iterator[str]:
        return (line.partition(":")[0] for line in details(self.union.pairs[layer.namespace]))

    def _number(self, key: Hashable) -> int:
        return self.tokens.setdefault(key, len(self.tokens))


class Labels:
    """Boxes as Graphviz HTML-like labels, and their tooltips."""

    def __init__(self, union: Union) -> None:
        self.folding = Folding(union, ())

    def label(self, box: Box) -> str:
        rows = list(rows_of(box.part))
        statuses = Counter(self.folding.status(row[0]) for row in rows)
        mixed = UNKNOWN if statuses.keys() <= {SAME, UNKNOWN} else CHANGED
        status = next(iter(statuses)) if len(statuses) == 1 else mixed
        lines = self._layer_lines(rows[0], status) if len(rows) == 1 else self._summary_lines(rows, statuses)
        style = STYLES[status]
        look = f'{BORDERS[status]} CELLBORDER="0" CELLSPACING="0" CELLPADDING="2"'
        return f'<TABLE {look} COLOR="{style.border}" BGCOLOR="{style.fill}">{"".join(lines)}</TABLE>'

    def tooltip(self, box: Box) -> str:
        rows = list(rows_of(box.part))
        if len(rows) > 1:
            return "\n".join(row[0].namespace for row in rows[:20])
        pair = self.folding.union.pairs[rows[0][0].namespace]
        return "\n".join([box_tooltip(box), *details(pair)])

    def cluster(self, block: Block) -> str:
        times = f" ×{block.times}" if block.times > 1 else ""
        return f"<B>{escaped(title(block))}{times}</B>"

    def _layer_lines(self, row: Sequence[Layer], status: str) -> Iterator[str]:
        """Name, class, what differs; of folded copies the first."""
        layer, pair = row[0], self.folding.union.pairs[row[0].namespace]
        sign = f"{SIGNS[status]} " if status in SIGNS else ""
        times = f" ×{len(row)}" if len(row) > 1 else ""
        yield small(escaped(shortened(layer.name, LONGEST_LINE)))
        yield f"<TR><TD><B>{escaped(sign + shortened(label(layer), LONGEST_LINE) + times)}</B></TD></TR>"
        if pair.renamed and pair.old:
            yield small(f"was {escaped(shortened(pair.old, LONGEST_LINE))}")
        changes = list(details(pair)) if status == CHANGED else []
        shown = changes if len(changes) <= MOST_LINES else [*changes[: MOST_LINES - 1], "…"]
        for line in shown or [output_text(row)]:
            yield small(escaped(shortened(line, LONGEST_LINE)))

    def _summary_lines(self, rows: Sequence[Sequence[Layer]], statuses: Counter[str]) -> Iterator[str]:
        """Of several layers: how many there are of each kind, the first and the last, what comes out of the last."""
        words = ", ".join(
            f"{SIGNS.get(status, '')} {number} {SHORT.get(status) or WORDS[status]}".strip()
            for status, number in statuses.items()
        )
        yield f'<TR><TD><FONT COLOR="{INK}"><B>{escaped(words)}</B></FONT></TD></TR>'
        first, last = rows[0][0].name, rows[-1][-1].name
        yield small(escaped(f"{shortened(first, 26)} … {shortened(last, 26)}"))
        told = [set(details(self.folding.union.pairs[row[0].namespace])) for row in rows]
        yield from (small(escaped(shortened(line, LONGEST_LINE))) for line in sorted(set.intersection(*told)))
        yield small(escaped(output_text(rows[-1])))
