"""Boxes and clusters as Graphviz HTML-like labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.formats.dot_labels import box_tooltip, escaped, hint, node_facts, small
from exporter.formats.node_style import FOLLOWED_BY, kind, label, output_text, params_text, shortened, tooltip
from exporter.formats.pictures.colouring import Colouring
from exporter.formats.pictures.costs import Shares, percent
from exporter.formats.pictures.identifiers import Identifiers
from exporter.formats.pictures.themes import Theme
from exporter.formats.repetition import Block, Node, layers_of
from exporter.formats.sketch import Box, is_framed, rows_of, title
from exporter.records import Layer

LONGEST_NAME = 34
# Points: the longest bar of a picture, the height of each, and a length that can still be seen.
BAR_LENGTH, BAR_HEIGHT, SHORTEST_BAR = 72, 3, 3


@dataclass(frozen=True)
class Labels:
    """`largest` are the shares of parameters and MACs that have the longest bars; 0 for no bars at all."""

    theme: Theme
    look: Colouring
    shares: Shares
    ids: Identifiers
    largest: tuple[float, float]

    def box(self, box: Box) -> str:
        return self.block_table(box.part) if isinstance(box.part, Block) else self.node_table(box.part, box)

    def tooltip(self, box: Box) -> str:
        params, macs = self.shares.box(box.part)
        costs = f"{percent(params)} of the model's parameters, {percent(macs)} of its MACs"
        return f"{box_tooltip(box)}\n{costs}"

    def node_table(self, node: Node, box: Box) -> str:
        """Name; the head's words; the others of the chain side by side; what comes out and what it costs."""
        layers = [row[0] for row in node.rows]
        head = next((place for place, layer in enumerate(layers) if kind(layer) not in FOLLOWED_BY), 0)
        name = layers[head].name.removeprefix(box.prefix).lstrip("_-./ ") or layers[head].name
        lines = [self.small(escaped(shortened(name, LONGEST_NAME)) + self.badge(box))]
        lines += self.cells(node.rows[:head]) + self.cells([node.rows[head]], bold=True)
        lines += self.cells(node.rows[head + 1 :])
        lines.append(self.small(escaped(node_facts(node.rows))))
        lines += self.bars(box)
        return self.table("".join(lines), self.look(node.rows[head]).border, self.theme.box)

    def badge(self, box: Box) -> str:
        """`×N` for a box that repeats by itself and so has no frame to say it."""
        if not box.blocks or box.blocks[-1].times == 1 or is_framed(box.blocks[-1]):
            return ""
        return f' <FONT POINT-SIZE="14" COLOR="{self.theme.ink}"><B>×{box.blocks[-1].times}</B></FONT>'

    def cells(self, rows: Sequence[tuple[Layer, ...]], *, bold: bool = False) -> list[str]:
        """Layers side by side in one line of the table, three at most."""
        lines = []
        for start in range(0, len(rows), 3):
            line = "".join(self.cell(row, bold=bold) for row in rows[start : start + 3])
            inner = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2"><TR>{line}</TR></TABLE>'
            lines.append(f'<TR><TD CELLPADDING="0">{inner}</TD></TR>' if len(rows) > 1 else f"<TR>{line}</TR>")
        return lines

    def cell(self, row: tuple[Layer, ...], *, bold: bool) -> str:
        text = escaped(shortened(label(row[0]), LONGEST_NAME))
        calls = f" (called {row[0].calls} times)" if row[0].calls > 1 else ""
        return (
            f'<TD ID="{self.ids.layer(row)}" BGCOLOR="{self.look(row).fill}" TITLE="{hint(tooltip(row))}">'
            f"{f'<B>{text}</B>' if bold else text}{calls}</TD>"
        )

    def block_table(self, block: Block) -> str:
        """A closed block: its title, what is inside, and its parameters."""
        rows = list(rows_of(block))
        classes = Counter(row[0].class_name for row in rows if row[0] not in block.models)
        common = ", ".join(f"{name} ×{number}" if number > 1 else name for name, number in classes.most_common(3))
        more = f", {len(classes) - 3} more kinds" if len(classes) > 3 else ""
        name = title(block) or next(layers_of(block)).name
        times = f'&#160; <FONT POINT-SIZE="14">×{block.times}</FONT>' if block.times > 1 else ""
        total = params_text([sum(layer.params for row in rows for layer in row)])
        lines = [
            f"<TR><TD><B>{escaped(shortened(name, 60))}{times}</B></TD></TR>",
            self.small(escaped(common + more)),
            self.small(" · ".join(part for part in (escaped(output_text(rows[-1])), total) if part)),
            *self.share_bars(self.shares.box(block)),
        ]
        repeats = block.times > 1
        border = self.theme.repeat_frame if repeats else self.theme.model_frame
        return self.table("".join(lines), border, self.theme.repeat_fill if repeats else self.theme.frame_fill)

    def bars(self, box: Box) -> list[str]:
        return self.share_bars(self.shares.box(box.part))

    def share_bars(self, shares: tuple[float, float]) -> list[str]:
        """Two bars below each other, parameters and MACs; none where both are too short to be seen."""
        lengths = [
            round(BAR_LENGTH * share / most) if most else 0 for share, most in zip(shares, self.largest, strict=True)
        ]
        if max(lengths) < SHORTEST_BAR:
            return []
        return [self.bar(length, color) for length, color in zip(lengths, self.theme.bars, strict=True)]

    def bar(self, length: int, color: str) -> str:
        fill = f' BGCOLOR="{color}"' if length >= SHORTEST_BAR else ""
        cell = f'<TD FIXEDSIZE="TRUE" WIDTH="{max(length, 1)}" HEIGHT="{BAR_HEIGHT}"{fill}></TD>'
        inner = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"><TR>{cell}</TR></TABLE>'
        return f'<TR><TD CELLPADDING="0.5">{inner}</TD></TR>'

    def small(self, text: str) -> str:
        return small(text, self.theme.faint_ink)

    def table(self, lines: str, border: str, fill: str) -> str:
        look = f'BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2" COLOR="{border}" BGCOLOR="{fill}"'
        return f"<TABLE {look}>{lines}</TABLE>"

    def cluster(self, block: Block) -> str:
        """Title and `×N` in large type, with the parameters of all copies."""
        total = params_text([sum(layer.params for row in rows_of(block) for layer in row)])
        times = f'&#160; <FONT POINT-SIZE="16"><B>×{block.times}</B></FONT>' if block.times > 1 else ""
        faint = self.theme.faint_ink
        cost = f'&#160; <FONT POINT-SIZE="9" COLOR="{faint}">{total}</FONT>' if total else ""
        return f"<B>{escaped(title(block))}</B>{times}{cost}"
