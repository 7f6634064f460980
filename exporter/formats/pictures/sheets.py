"""The DOT of all pictures, streamed: boxes, clusters, arrows and the links between columns."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from exporter.formats.dot_labels import escaped, quoted
from exporter.formats.node_style import FONT, shape_text, shortened
from exporter.formats.pictures.themes import LIGHT, Theme
from exporter.formats.repetition import Block, Part
from exporter.formats.sketch import Arrow, Box, Piece, Sketch, is_framed, title

STUB = 'shape=box, style="rounded,dashed", fontsize=9, margin="0.05,0.02", height=0, width=0'
RANKS = {"down": "TB", "right": "LR"}


@dataclass(frozen=True)
class Paint:
    """How boxes, clusters and arrows look: HTML-like labels, tooltips, ids of boxes and clusters (empty for none).

    `arrow` gives attributes to add to an arrow, each ending in `, `.
    """

    label: Callable[[Box], str]
    tooltip: Callable[[Box], str]
    cluster: Callable[[Block], str]
    arrow: Callable[[Arrow], str] = lambda arrow: ""
    identify: Callable[[Part], str] = lambda part: ""
    theme: Theme = LIGHT
    direction: str = "down"


def head(paint: Paint) -> Iterator[str]:
    theme, font = paint.theme, f'fontname="{FONT}"'
    yield f'graph [{font}, fontsize=12, fontcolor="{theme.ink}"];'
    yield f'graph [rankdir={RANKS[paint.direction]}, nodesep=0.25, ranksep=0.28, bgcolor="{theme.background}"];'
    yield f'node [{font}, fontsize=11, fontcolor="{theme.ink}", shape=plain];'
    # Of the links between columns; layers have colours of their own.
    yield f'node [color="{theme.link_border}", fillcolor="{theme.link_fill}"];'
    yield f'edge [{font}, fontsize=9, color="{theme.arrow}", arrowsize=0.6];'


def sheet(
    drawing: Sketch, pieces: Sequence[Piece], arrows: Iterable[Arrow], links: Iterable[str], paint: Paint
) -> Iterator[str]:
    """DOT for some pieces of a picture and for those arrows that it is given; `links` are lines to add."""
    yield f"digraph {quoted(drawing.name)} {{"
    yield from head(paint)
    for _, members in groupby(pieces, key=lambda piece: id(piece.frame)):
        inside = list(members)
        if frame := inside[0].frame:
            goes_on = any(piece.frame is frame and piece.start < inside[0].start for piece in drawing.pieces)
            yield from (f"subgraph cluster_{inside[0].start} {{", cluster_style(frame, paint, continued=goes_on))
        for piece in inside:
            yield from part_lines(drawing, piece.part, piece.start, paint)
        if frame:
            yield "}"
    for number, arrow in enumerate(arrows):
        yield from arrow_lines(number, arrow, paint)
    yield from links
    yield "}"


def part_lines(drawing: Sketch, part: Part, number: int, paint: Paint, depth: int = 0) -> Generator[str, None, int]:
    """The boxes of a part, from `number` on, inside their clusters; returns the number of the next box."""
    if not isinstance(part, Block) or part.closed:
        box = drawing.boxes[number]
        own = attribute("id", paint.identify(part))
        yield f"n{number} [{own}label=<{paint.label(box)}>, tooltip={quoted(paint.tooltip(box))}];"
        return number + 1
    framed = is_framed(part)
    if framed:
        yield f"subgraph cluster_{number}_{depth} {{"
        yield cluster_style(part, paint)
    for inner in part.parts:
        number = yield from part_lines(drawing, inner, number, paint, depth + 1)
    if framed:
        yield "}"
    return number


def attribute(name: str, value: str) -> str:
    return f"{name}={quoted(value)}, " if value else ""


def cluster_style(block: Block, paint: Paint, *, continued: bool = False) -> str:
    """Nested models have a frame of their own, repeated blocks a coloured one, others a faint one."""
    more = " (continued)" if continued else ""
    theme, repeats = paint.theme, block.times > 1
    frame = theme.model_frame if block.models else theme.repeat_frame if repeats else theme.frame
    fill = theme.repeat_fill if repeats else theme.frame_fill
    words = " ".join(part for part in (title(block), f"×{block.times}" if repeats else "") if part)
    own = attribute("id", paint.identify(block)).replace(", ", "; ")
    return (
        f'{own}label=<{paint.cluster(block)}{more}>; tooltip={quoted(words)}; style="rounded,filled"; color="{frame}"; '
        f'fillcolor="{fill}"; labeljust=l; penwidth={1.6 if repeats or block.models else 1}; margin=9;'
    )


def arrow_lines(number: int, arrow: Arrow, paint: Paint) -> Iterator[str]:
    source = f"n{arrow.source}"
    if arrow.stub:
        source = f"s{number}"
        name = shortened(arrow.edge.source.rpartition("/")[2], 30)
        yield f'{source} [label=<↩ {escaped(name)}>, color="{paint.theme.frame}", {STUB}];'
    shape = f"{shape_text([arrow.edge.shape])} {arrow.edge.dtype or '?'}"
    words = f"{arrow.edge.source} → {arrow.edge.target}\n{shape}"
    words = f"{paint.arrow(arrow)}tooltip={quoted(words)}"
    if arrow.course == "up" and not arrow.stub:
        yield f"n{arrow.target} -> {source} [dir=back, weight=4, {words}];"
    elif arrow.course == "across" and not arrow.stub:
        yield f"{{rank=same; {source} -> n{arrow.target} [minlen=2, {words}];}}"
    else:
        weight = "" if arrow.stub or arrow.target - arrow.source > 1 else ", weight=4"
        yield f"{source} -> n{arrow.target} [{words}{weight}];"
