"""The last resort: blocks in columns, drawn without Graphviz, in time that is linear in the boxes.

Boxes stand in the order of the model. An arrow leads from each box to the one below if they are connected; what else
comes into a box is named in it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence

from exporter.formats.dot_labels import clean, node_facts
from exporter.formats.node_style import FONT, label, output_text, shortened
from exporter.formats.pictures.identifiers import element_id
from exporter.formats.pictures.themes import Theme
from exporter.formats.repetition import Block, Node
from exporter.formats.sketch import Arrow, Box, Sketch, rows_of, title

MOST_BOXES = 60
IN_COLUMN = 12
# Points.
WIDTH, LINE, PADDING, GAP, GUTTER = 330.0, 14.0, 6.0, 20.0, 30.0
LONGEST_LINE = 44
MOST_SOURCES = 4
SVG = "http://www.w3.org/2000/svg"


def picture(drawing: Sketch, theme: Theme) -> bytes:
    """An SVG like those of Graphviz, for `compose`."""
    columns = [drawing.boxes[at : at + IN_COLUMN] for at in range(0, len(drawing.boxes), IN_COLUMN)]
    into: dict[int, list[Arrow]] = {}
    for arrow in drawing.arrows:
        into.setdefault(arrow.target, []).append(arrow)
    group = made("g", {})
    tallest = 0.0
    for number, boxes in enumerate(columns):
        top = 0.0
        for box in boxes:
            lines = list(lines_of(drawing, box, into.get(box.number, ()), boxes[0].number))
            high = LINE * len(lines) + 2 * PADDING
            group.append(drawn_box(box, lines, (number * (WIDTH + GUTTER), top, high), theme))
            if box is not boxes[-1] and any(arrow.source == box.number for arrow in into.get(box.number + 1, ())):
                group.append(drawn_arrow(number * (WIDTH + GUTTER) + WIDTH / 2, top + high, theme))
            top += high + GAP
        tallest = max(tallest, top - GAP)
    width = max(1, len(columns)) * (WIDTH + GUTTER) - GUTTER
    root = made("svg", {"viewBox": f"0 0 {width + 2:.0f} {tallest + 2:.0f}"})
    group.set("transform", "translate(1 1)")
    root.append(group)
    return bytes(ElementTree.tostring(root))


def lines_of(drawing: Sketch, box: Box, arrows: Sequence[Arrow], first: int) -> Iterator[str]:
    """What stands in a box: its name, its layers, what comes out, and the inputs that no arrow shows."""
    part = box.part
    if isinstance(part, Block):
        times = f" ×{part.times}" if part.times > 1 else ""
        yield f"{shortened(title(part) or next(rows_of(part))[0].name, LONGEST_LINE - len(times))}{times}"
        yield f"{sum(1 for _ in rows_of(part))} layers · {output_text(list(rows_of(part))[-1])}"
    else:
        times = f" ×{len(part.rows[0])}" if len(part.rows[0]) > 1 else ""
        yield f"{shortened(part.rows[0][0].name, LONGEST_LINE - len(times))}{times}"
        yield from (label(row[0]) for row in part.rows)
        yield node_facts(part.rows)
    shown = [arrow.source for arrow in arrows if arrow.source != box.number - 1 or box.number == first]
    yield from (f"↩ {name_of(drawing.boxes[source])}" for source in shown[:MOST_SOURCES])
    if len(shown) > MOST_SOURCES:
        yield f"↩ and {len(shown) - MOST_SOURCES} more"


def ids(box: Box) -> list[str]:
    """Those of the layers in a box that is no block."""
    return [element_id(row[0].namespace) for row in box.part.rows] if isinstance(box.part, Node) else []


def name_of(box: Box) -> str:
    """What a box is called in another one: a block by its last layer's name, which is what is taken from it."""
    return list(rows_of(box.part))[-1][-1].name


def drawn_box(box: Box, lines: Sequence[str], place: tuple[float, float, float], theme: Theme) -> ElementTree.Element:
    left, top, high = place
    repeats = isinstance(box.part, Block) and box.part.times > 1
    group = made("g", {"class": "node"})
    fill, stroke = (theme.repeat_fill, theme.repeat_frame) if repeats else (theme.box, theme.model_frame)
    frame = {"x": f"{left:.1f}", "y": f"{top:.1f}", "width": f"{WIDTH:.1f}", "height": f"{high:.1f}"}
    group.append(made("rect", frame | {"fill": fill, "stroke": stroke}))
    own = ids(box)
    for number, line in enumerate(lines):
        look = {"font-family": FONT, "font-size": "11" if number else "12", "text-anchor": "middle"}
        place_of = {"x": f"{left + WIDTH / 2:.1f}", "y": f"{top + PADDING + LINE * (number + 0.8):.1f}"}
        text = made("text", look | place_of | {"fill": theme.faint_ink if number else theme.ink})
        text.text = clean(" ".join(shortened(line, LONGEST_LINE).split()))
        if 0 < number <= len(own):
            text.attrib |= {"id": own[number - 1], "class": "layer"}
        group.append(text)
    return group


def drawn_arrow(across: float, top: float, theme: Theme) -> ElementTree.Element:
    tip = f"{across - 4:.1f},{top + GAP - 7:.1f} {across + 4:.1f},{top + GAP - 7:.1f} {across:.1f},{top + GAP:.1f}"
    group = made("g", {"class": "edge"})
    line = {"d": f"M{across:.1f},{top:.1f}V{top + GAP - 6:.1f}", "stroke": theme.arrow, "fill": "none"}
    group.append(made("path", line))
    group.append(made("polygon", {"points": tip, "fill": theme.arrow}))
    return group


def made(tag: str, attributes: dict[str, str]) -> ElementTree.Element:
    return ElementTree.Element(f"{{{SVG}}}{tag}", attributes)
