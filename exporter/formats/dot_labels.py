"""Boxes and clusters as Graphviz HTML-like labels. Names go in escaped and never become identifiers."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence

from exporter.formats.node_style import (
    FAINT_INK,
    FOLLOWED_BY,
    INK,
    STYLES,
    kind,
    label,
    output_text,
    params_text,
    shortened,
    tooltip,
)
from exporter.formats.repetition import Block, Node, layers_of
from exporter.formats.sketch import Box, is_framed, rows_of, title
from exporter.records import Layer

LONGEST_NAME = 34


def clean(text: str) -> str:
    """Text that is valid in UTF-8 and in XML: what neither allows becomes `�`."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(sign if sign in "\n\t" or (sign.isprintable() or sign == " ") else "\ufffd" for sign in text)


def escaped(text: str) -> str:
    """Text inside an HTML-like label, on one line. Graphviz puts the node's name for `\\N` even there."""
    return html.escape(" ".join(clean(text).split())).replace("\\", "\\\\")


def quoted(text: str) -> str:
    """Text as a quoted attribute. Graphviz reads both backslash sequences and HTML entities in there."""
    text = html.escape(clean(text), quote=False).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def box_label(box: Box) -> str:
    return block_table(box.part) if isinstance(box.part, Block) else node_table(box.part, box)


def node_table(node: Node, box: Box) -> str:
    """Name; the head's words; the others of the chain side by side; what comes out and what it costs."""
    layers = [row[0] for row in node.rows]
    head = next((place for place, layer in enumerate(layers) if kind(layer) not in FOLLOWED_BY), 0)
    name = layers[head].name.removeprefix(box.prefix).lstrip("_-./ ") or layers[head].name
    lines = [small(escaped(shortened(name, LONGEST_NAME)) + badge(box))]
    lines += cells(node.rows[:head]) + cells([node.rows[head]], bold=True) + cells(node.rows[head + 1 :])
    lines.append(small(escaped(node_facts(node.rows))))
    return table("".join(lines), STYLES[kind(layers[head])].border, "#ffffff")


def badge(box: Box) -> str:
    """`×N` for a box that repeats by itself and so has no frame to say it."""
    if not box.blocks or box.blocks[-1].times == 1 or is_framed(box.blocks[-1]):
        return ""
    return f' <FONT POINT-SIZE="14" COLOR="{INK}"><B>×{box.blocks[-1].times}</B></FONT>'


def cells(rows: Sequence[tuple[Layer, ...]], *, bold: bool = False) -> list[str]:
    """Layers side by side in one line of the table, three at most."""
    lines = []
    for start in range(0, len(rows), 3):
        line = "".join(cell(row, bold=bold) for row in rows[start : start + 3])
        inner = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2"><TR>{line}</TR></TABLE>'
        lines.append(f'<TR><TD CELLPADDING="0">{inner}</TD></TR>' if len(rows) > 1 else f"<TR>{line}</TR>")
    return lines


def cell(row: tuple[Layer, ...], *, bold: bool) -> str:
    text = escaped(shortened(label(row[0]), LONGEST_NAME))
    calls = f" (called {row[0].calls} times)" if row[0].calls > 1 else ""
    return (
        f'<TD BGCOLOR="{STYLES[kind(row[0])].fill}" TITLE="{hint(tooltip(row))}">'
        f"{f'<B>{text}</B>' if bold else text}{calls}</TD>"
    )


def hint(text: str) -> str:
    return html.escape(clean(text)).replace("\\", "\\\\").replace("\n", "&#10;")


def node_facts(rows: Sequence[tuple[Layer, ...]]) -> str:
    """The shape and dtype that leave a chain and the parameters of all its layers."""
    counts = [sum(row[copy].params_total for row in rows) for copy in range(len(rows[0]))]
    return " · ".join(part for part in (output_text(rows[-1]), params_text(counts)) if part)


def block_table(block: Block) -> str:
    """A closed block: its title, what is inside, and its parameters."""
    rows = list(rows_of(block))
    classes = Counter(row[0].class_name for row in rows if row[0] not in block.models)
    common = ", ".join(f"{name} ×{number}" if number > 1 else name for name, number in classes.most_common(3))
    more = f", {len(classes) - 3} more kinds" if len(classes) > 3 else ""
    name = title(block) or next(layers_of(block)).name
    times = f" ×{block.times}" if block.times > 1 else ""
    total = params_text([sum(layer.params for row in rows for layer in row)])
    lines = [
        f"<TR><TD><B>{escaped(shortened(name, 60))}{times}</B></TD></TR>",
        small(escaped(common + more)),
        small(" · ".join(part for part in (escaped(output_text(rows[-1])), total) if part)),
    ]
    return table("".join(lines), INK, STYLES["other"].fill)


def small(text: str) -> str:
    return f'<TR><TD><FONT POINT-SIZE="9" COLOR="{FAINT_INK}">{text}</FONT></TD></TR>'


def table(lines: str, border: str, fill: str) -> str:
    look = f'BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2" COLOR="{border}" BGCOLOR="{fill}"'
    return f"<TABLE {look}>{lines}</TABLE>"


def cluster_label(block: Block) -> str:
    """Title and `×N` in large type, with the parameters of all copies."""
    total = params_text([sum(layer.params for row in rows_of(block) for layer in row)])
    times = f'&#160; <FONT POINT-SIZE="16"><B>×{block.times}</B></FONT>' if block.times > 1 else ""
    cost = f'&#160; <FONT POINT-SIZE="9" COLOR="{FAINT_INK}">{total}</FONT>' if total else ""
    return f"<B>{escaped(title(block))}</B>{times}{cost}"


def box_tooltip(box: Box) -> str:
    rows = list(rows_of(box.part))
    return "\n".join(tooltip(row) for row in rows) if isinstance(box.part, Node) else f"{len(rows)} layers"
