"""The outline of a model in the columns of a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

from exporter.formats.block_tree import Sums
from exporter.formats.node_style import amount, shortened
from exporter.formats.outline import Line
from exporter.memory import format_bytes

GAP = "  "
KIND = "kind"
BAR_WIDTH = 10
EIGHTHS = " ▏▎▍▌▋▊▉█"
# From these widths on there are these columns.
BAR_FROM, BYTES_FROM, MACS_FROM, OUTPUT_FROM, WHAT_FROM = 120, 84, 72, 66, 44
NARROWEST_NAME, WIDEST_OUTPUT, WIDEST_BRIEF = 14, 24, 22
COLOURS = {
    "convolution": "blue",
    "dense": "magenta",
    "normalisation": "green",
    "activation": "yellow",
    "pooling": "cyan",
    "merge": "red",
    "sequence": "bright_magenta",
    "embedding": "bright_yellow",
}
Style = dict[str, str | bool]
Parts = list[tuple[str, Style]]


@dataclass(frozen=True)
class Column:
    """`right` columns are numbers. `text` is the whole cell; `style` that of an entry's cell."""

    title: str
    text: Callable[[Line], str]
    right: bool = False
    style: Callable[[Line], Style] = lambda line: {}


class Layout:
    """Columns for a width, in cells of a terminal (a Chinese character takes two); `with_bytes`: also of weights."""

    def __init__(self, lines: Sequence[Line], total: Sums, width: int, *, with_bytes: bool = False) -> None:
        self.lines, self.width, self.with_bytes = lines, width, with_bytes
        dtypes = Counter(line.entry.output.rpartition(" ")[2] for line in lines if " " in line.entry.output)
        self.dtype = dtypes.most_common(1)[0][0] if dtypes else ""
        self.columns = list(self._columns(total))
        self.widths = self._widths()

    def _columns(self, total: Sums) -> Iterator[Column]:
        yield Column("layer", _name, style=lambda line: {"bold": True} if line.entry.times > 1 else {})
        if self.width >= WHAT_FROM:
            yield Column(KIND, lambda line: line.entry.what, style=_colour)
        if self.width >= OUTPUT_FROM:
            title = f"output {self.dtype}".rstrip()
            yield Column(title, lambda line: line.entry.output.removesuffix(f" {self.dtype}"))
        yield Column("params", lambda line: f"{line.entry.sums.params:,}", right=True, style=_params_style)
        yield Column("share", lambda line: share(line.entry.sums.params, total.params), right=True, style=_params_style)
        if self.with_bytes and self.width >= BYTES_FROM:
            yield Column("bytes", _bytes_text, right=True, style=_params_style)
        if self.width >= BAR_FROM:
            yield Column("", lambda line: bar(line.entry.sums.params, total.params), style=_colour)
        if self.width >= MACS_FROM:
            yield Column("MACs", lambda line: macs_text(line.entry.sums), right=True, style=_macs_style)

    def _widths(self) -> list[int]:
        """Numbers and shapes get what they need; the name and the kind share the rest."""
        wide = [max(map(cell_len, [column.title, *map(column.text, self.lines)])) for column in self.columns]
        if self.width >= OUTPUT_FROM:
            wide[2] = min(wide[2], WIDEST_OUTPUT)
        flexible = 2 if self.width >= WHAT_FROM else 1
        rest = self.width - sum(wide[flexible:]) - len(GAP) * (len(wide) - 1)
        if flexible == 1:
            wide[0] = max(min(wide[0], rest), NARROWEST_NAME)
        elif sum(wide[:2]) > rest:
            brief = min(max(cell_len(line.entry.brief) for line in self.lines), WIDEST_BRIEF, rest // 2)
            wide[0] = max(min(wide[0], rest - brief), NARROWEST_NAME)
            wide[1] = max(rest - wide[0], 0)
        return wide

    def heading(self) -> Parts:
        titles = zip(self.columns, self.widths, strict=True)
        return self._joined([(cell(column.title, width, column.right), {"dim": True}) for column, width in titles])

    def row(self, line: Line) -> Parts:
        cells = []
        for column, width in zip(self.columns, self.widths, strict=True):
            text = column.text(line)
            if column.title == KIND and cell_len(text) > width:
                text = ended(line.entry.brief, width)
            cells.append((cell(text, width, column.right), column.style(line)))
        return self._joined(cells)

    def _joined(self, cells: Parts) -> Parts:
        """The cells of a line, without the blanks at its end."""
        spaced = [part for each in cells for part in (each, (GAP, {}))][:-1]
        while spaced and not spaced[-1][0].strip():
            spaced.pop()
        return [*spaced[:-1], (spaced[-1][0].rstrip(), spaced[-1][1])] if spaced else []


def cell(text: str, width: int, right: bool) -> str:
    """A text in so many cells, its middle left out if it is longer."""
    kept, length = text, width
    while cell_len(kept) > width:
        kept, length = shortened(text, length) if length > 2 else "…"[:width], length - 1
    blanks = " " * (width - cell_len(kept))
    return blanks + kept if right else kept + blanks


def ended(text: str, width: int) -> str:
    """A text whose end is left out if it is longer."""
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…"


def share(part: int, whole: int) -> str:
    """`12.3 %`; nothing for nothing."""
    if not part or not whole:
        return ""
    percent = 100 * part / whole
    return f"{percent:.1f} %" if percent >= 0.05 else "<0.1 %"


def bar(part: int, whole: int) -> str:
    """A bar of at most `BAR_WIDTH` cells, in eighths of a cell."""
    eighths = round(8 * BAR_WIDTH * part / whole) if whole else 0
    return EIGHTHS[8] * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")


def macs_text(sums: Sums) -> str:
    """`7.57 G`; with `≥` where those of some layers are unknown, `?` where all are."""
    if not sums.macs_unknown:
        return amount(sums.macs) if sums.macs else "0"
    return f"≥{amount(sums.macs)}" if sums.macs else "?"


def _bytes_text(line: Line) -> str:
    return format_bytes(line.entry.sums.weight_bytes) if line.entry.sums.weight_bytes else ""


def _name(line: Line) -> str:
    if line.left_out:
        return f"{line.branch}… {line.left_out:,} more"
    times = f" ×{line.entry.times}" if line.entry.times > 1 else ""
    return f"{line.branch}{line.entry.name}{times}{' …' if line.closed else ''}"


def _colour(line: Line) -> Style:
    colour = COLOURS.get(line.entry.kind)
    return {"fg": colour} if colour else {}


def _params_style(line: Line) -> Style:
    return {} if line.entry.sums.params else {"dim": True}


def _macs_style(line: Line) -> Style:
    return {} if line.entry.sums.macs else {"dim": True}
