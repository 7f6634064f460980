"""`model.dot`: the graph of layers as Graphviz text, streamed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from exporter import files
from exporter.formats.dot_labels import box_label, box_tooltip, cluster_label, escaped, quoted
from exporter.formats.node_style import FONT, INK, shape_text, shortened
from exporter.formats.repetition import Block, Part
from exporter.formats.sketch import Arrow, Box, Piece, Sketch, is_framed, sketch, title
from exporter.records import Material, ModelGraph

HEAD = (
    f'graph [fontname="{FONT}", fontsize=12, fontcolor="{INK}"];',
    "graph [rankdir=TB, nodesep=0.25, ranksep=0.28, bgcolor=white];",
    f'node [fontname="{FONT}", fontsize=11, fontcolor="{INK}", shape=plain];',
    f'edge [fontname="{FONT}", fontsize=9, color="#444444", arrowsize=0.6];',
)
STUB = 'shape=box, style="rounded,dashed", fontsize=9, margin="0.05,0.02", height=0, width=0'


@dataclass(frozen=True)
class Paint:
    """How boxes and arrows look: an HTML-like label, a tooltip, and attributes to add, each ending in `, `."""

    label: Callable[[Box], str] = box_label
    tooltip: Callable[[Box], str] = box_tooltip
    arrow: Callable[[Arrow], str] = lambda arrow: ""


PLAIN = Paint()


def write(material: Material, folder: Path) -> tuple[str, ...]:
    files.write_lines(folder / "model.dot", lines(material.graph, expand=material.job.expand))
    return ()


def lines(graph: ModelGraph, *, expand: bool = False) -> Iterator[str]:
    """The whole model, folded where blocks repeat, or with every layer as a node (`expand`)."""
    drawing = sketch(graph, expand=expand)
    yield from sheet(drawing, drawing.pieces, drawing.arrows)


def sheet(
    drawing: Sketch, pieces: Sequence[Piece], arrows: Iterable[Arrow], links: Iterable[str] = (), paint: Paint = PLAIN
) -> Iterator[str]:
    """DOT for some pieces of a picture and for those arrows that it is given; `links` are lines to add."""
    yield f"digraph {quoted(drawing.name)} {{"
    yield from HEAD
    for _, members in groupby(pieces, key=lambda piece: id(piece.frame)):
        inside = list(members)
        if frame := inside[0].frame:
            yield from (f"subgraph cluster_{inside[0].start} {{", cluster_style(frame))
        for piece in inside:
            yield from part_lines(drawing, piece.part, piece.start, paint=paint)
        if frame:
            yield "}"
    for number, arrow in enumerate(arrows):
        yield from arrow_lines(number, arrow, paint)
    yield from links
    yield "}"


def part_lines(
    drawing: Sketch, part: Part, number: int, depth: int = 0, paint: Paint = PLAIN
) -> Generator[str, None, int]:
    """The boxes of a part, from `number` on, inside their clusters; returns the number of the next box."""
    if not isinstance(part, Block) or part.closed:
        box = drawing.boxes[number]
        yield f"n{number} [label=<{paint.label(box)}>, tooltip={quoted(paint.tooltip(box))}];"
        return number + 1
    framed = is_framed(part)
    if framed:
        yield f"subgraph cluster_{number}_{depth} {{"
        yield cluster_style(part)
    for inner in part.parts:
        number = yield from part_lines(drawing, inner, number, depth + 1, paint)
    if framed:
        yield "}"
    return number


def cluster_style(block: Block) -> str:
    """Nested models have a dark frame, repeated blocks a blue one, others a faint one."""
    frame = "#1b1b1b" if block.models else "#1f5fa8" if block.times > 1 else "#c4c4c4"
    fill = "#f3f8fe" if block.times > 1 else "#fcfcfc"
    words = " ".join(part for part in (title(block), f"×{block.times}" if block.times > 1 else "") if part)
    return (
        f'label=<{cluster_label(block)}>; tooltip={quoted(words)}; style="rounded,filled"; color="{frame}"; '
        f'fillcolor="{fill}"; labeljust=l; penwidth={1.6 if block.times > 1 or block.models else 1}; margin=9;'
    )


def arrow_lines(number: int, arrow: Arrow, paint: Paint = PLAIN) -> Iterator[str]:
    source = f"n{arrow.source}"
    if arrow.stub:
        source = f"s{number}"
        name = shortened(arrow.edge.source.rpartition("/")[2], 30)
        yield f"{source} [label=<↩ {escaped(name)}>, {STUB}];"
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
