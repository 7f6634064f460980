"""Text inside DOT: names go in escaped and never become identifiers."""

from __future__ import annotations

import html
from collections.abc import Sequence

from exporter.formats.node_style import FAINT_INK, output_text, params_text, tooltip
from exporter.formats.repetition import Node
from exporter.formats.sketch import Box, rows_of
from exporter.records import Layer


def clean(text: str) -> str:
    """Text that is valid in UTF-8 and in XML: what neither allows becomes `�`."""
    if text.isprintable():
        return text
    text = text.encode("utf-8", "replace").decode()
    return "".join(sign if sign in "\n\t" or (sign.isprintable() or sign == " ") else "\ufffd" for sign in text)


def escaped(text: str) -> str:
    """Text inside an HTML-like label, on one line. Graphviz puts the node's name for `\\N` even there."""
    return html.escape(" ".join(clean(text).split())).replace("\\", "\\\\")


def quoted(text: str) -> str:
    """Text as a quoted attribute. Graphviz reads both backslash sequences and HTML entities in there."""
    text = html.escape(clean(text), quote=False).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def hint(text: str) -> str:
    """Text as an attribute inside an HTML-like label, with its line ends."""
    return html.escape(clean(text)).replace("\\", "\\\\").replace("\n", "&#10;")


def small(text: str, color: str = FAINT_INK) -> str:
    return f'<TR><TD><FONT POINT-SIZE="9" COLOR="{color}">{text}</FONT></TD></TR>'


def node_facts(rows: Sequence[tuple[Layer, ...]]) -> str:
    """The shape and dtype that leave a chain and the parameters of all its layers."""
    counts = [sum(row[copy].params_total for row in rows) for copy in range(len(rows[0]))]
    return " · ".join(part for part in (output_text(rows[-1]), params_text(counts)) if part)


def box_tooltip(box: Box) -> str:
    rows = list(rows_of(box.part))
    return "\n".join(tooltip(row) for row in rows) if isinstance(box.part, Node) else f"{len(rows)} layers"
