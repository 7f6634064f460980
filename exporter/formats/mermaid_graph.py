"""The folded graph as a Mermaid flowchart, which GitHub, GitLab and many editors draw inside of Markdown.

Mermaid refuses a text of more than 50,000 characters and more than 500 edges (`maxTextSize` and `maxEdges`, which a
document cannot raise). Long before that a flowchart cannot be read any more, so that blocks are closed until few boxes
are left.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from exporter.formats.blocks import Folder
from exporter.formats.dot_labels import clean
from exporter.formats.node_style import FOLLOWED_BY, INK, STYLES, kind, label, output_text, shape_text, shortened
from exporter.formats.repetition import Block, Node, Part, layers_of, numbered
from exporter.formats.sketch import Arrow, Box, Sketch, Wiring, end_name, is_framed, laid_out, stubbed, title
from exporter.records import ModelGraph

LONGEST_TEXT, MOST_EDGES = 50_000, 500
MOST_BOXES = 60
FEWEST_BOXES = 8
LONGEST_NAME = 40
# Fill and border of blocks.
FRAMES = {"block": ("#fcfcfc", "#8c8c8c"), "repeated": ("#f3f8fe", "#1f5fa8")}
# Signs that may stand for themselves in a quoted label. All others could begin an entity (`#`), a directive (`%%{`), a
# formula (`$$`), an icon (`fa:`), Markdown or HTML.
SAFE = set(" .,/()+=?-×…·→↩_")


def flowchart(graph: ModelGraph) -> list[str]:
    """The lines of a flowchart within Mermaid's limits; empty if there is none, or nothing to draw."""
    folder = Folder(graph)
    parts, room = folder.parts(), MOST_BOXES
    while parts and room >= FEWEST_BOXES:
        drawing = laid_out(Sketch(graph.name, closed_to(parts, room)))
        drawing.arrows = stubbed(list(Wiring(folder.hierarchy, drawing.boxes).arrows()))
        found = list(lines(drawing))
        if len(drawing.arrows) <= MOST_EDGES and sum(map(len, found)) + len(found) <= LONGEST_TEXT:
            return found
        room //= 2
    return []


def closed_to(parts: Sequence[Part], room: int) -> tuple[Part, ...]:
    """At most about `room` boxes: blocks are opened level by level while they fit, long rows grouped into stages."""
    if len(parts) > room:
        size = -(-len(parts) // room)
        return tuple(Block(tuple(parts[at : at + size]), closed=True) for at in range(0, len(parts), size))
    left, opened = room - len(parts), set()
    level = [part for part in parts if isinstance(part, Block)]
    while level:
        inner: list[Part] = []
        for block in level:
            if len(block.parts) - 1 <= left:
                opened.add(id(block))
                left -= len(block.parts) - 1
                inner += block.parts
        level = [part for part in inner if isinstance(part, Block)]
    return tuple(_closed(part, opened) for part in parts)


def _closed(part: Part, opened: set[int]) -> Part:
    if isinstance(part, Node):
        return part
    if id(part) not in opened:
        return replace(part, closed=True)
    return replace(part, parts=tuple(_closed(inner, opened) for inner in part.parts))


def lines(drawing: Sketch) -> Iterator[str]:
    yield "flowchart TD"
    number = 0
    classes: dict[str, list[str]] = {}
    for part in drawing.parts:
        number = yield from _part(drawing, part, number, classes)
    for place, arrow in enumerate(drawing.arrows):
        yield from _arrow(place, arrow)
    for box in drawing.boxes:
        classes.setdefault(_kind(box), []).append(f"n{box.number}")
    for name, members in classes.items():
        fill, border = FRAMES[name] if name in FRAMES else (STYLES[name].fill, STYLES[name].border)
        yield f"classDef {name} fill:{fill},stroke:{border},color:{INK}"
        yield f"class {','.join(members)} {name}"


def _part(
    drawing: Sketch, part: Part, number: int, classes: dict[str, list[str]], depth: int = 0
) -> Generator[str, None, int]:
    """The boxes of a part, inside their frames, whose classes are noted; returns the number of the next box."""
    if not isinstance(part, Block) or part.closed:
        yield f"n{number}[{quoted(_box_text(drawing.boxes[number]))}]"
        return number + 1
    framed = is_framed(part)
    if framed:
        times = f" ×{part.times}" if part.times > 1 else ""
        name = f"b{number}_{depth}"
        classes.setdefault("repeated" if part.times > 1 else "block", []).append(name)
        yield f"subgraph {name}[{quoted([shortened(title(part), 60) + times])}]"
    for inner in part.parts:
        number = yield from _part(drawing, inner, number, classes, depth + 1)
    if framed:
        yield "end"
    return number


def _box_text(box: Box) -> list[str]:
    """The lines of a box: its name, what it is, what comes out."""
    part = box.part
    if isinstance(part, Block):
        rows = list(layers_of(part))
        ends = f"{end_name(part, 0)} … {end_name(part, -1)}"
        # Stages of one long row of layers have names that say nothing, such as `dense`.
        name = title(part) if part.times > 1 or part.models or numbered(title(part)) else ends
        times = f" ×{part.times}" if part.times > 1 else ""
        return [shortened(name, LONGEST_NAME) + times, f"{len(rows)} layers", output_text([rows[-1]])]
    firsts = [row[0] for row in part.rows]
    head = next((layer for layer in firsts if kind(layer) not in FOLLOWED_BY), firsts[0])
    name = (box.prefix and head.name.removeprefix(box.prefix).lstrip("_-./ ")) or head.name
    times = _badge(box)
    return [shortened(name, LONGEST_NAME) + times, " + ".join(map(label, firsts)), output_text(part.rows[-1])]


def _badge(box: Box) -> str:
    """`×N` for a box that repeats by itself and so has no frame to say it."""
    repeats = box.blocks and box.blocks[-1].times > 1 and not is_framed(box.blocks[-1])
    return f" ×{box.blocks[-1].times}" if repeats else ""


def _kind(box: Box) -> str:
    if isinstance(box.part, Block):
        return "other"
    kinds = [kind(row[0]) for row in box.part.rows]
    return next((name for name in kinds if name not in FOLLOWED_BY), kinds[0])


def _arrow(place: int, arrow: Arrow) -> Iterator[str]:
    if not arrow.stub:
        yield f"n{arrow.source} --> n{arrow.target}"
        return
    name = shortened(arrow.edge.source.rpartition("/")[2], LONGEST_NAME)
    shape = shape_text([arrow.edge.shape])
    yield f"s{place}([{quoted([f'↩ {name}', shape])}]) -.-> n{arrow.target}"


def quoted(texts: Sequence[str]) -> str:
    """Lines of text as a quoted label in which nothing has a meaning of its own."""
    return f'"{"<br>".join(_escaped(" ".join(clean(text).split())) for text in texts if text)}"'


def _escaped(text: str) -> str:
    return "".join(sign if sign.isalnum() or sign in SAFE else f"#{ord(sign)};" for sign in text)
