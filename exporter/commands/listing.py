"""Rows of layers or of weights as text: a table in aligned columns, JSON or CSV, each a stream of lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from exporter.commands.columns import GAP, Parts, Style, cell, share
from exporter.commands.rows import csv_line, plain
from exporter.formats.node_style import amount
from exporter.memory import format_bytes
from exporter.suspicions import Row

BARS = " ▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 16
# A cell is never wider, and on a narrow terminal the first column and the last become narrower.
WIDEST, NARROWEST = 60, 16
Stream = Callable[[], Iterator[Row]]


def sparkline(counts: Sequence[int] | None) -> str:
    """A histogram as one line; an empty bin is a space, every other at least the lowest bar."""
    counts = counts or ()
    step = max(1, len(counts) // SPARKLINE_WIDTH)
    bins = [sum(counts[start : start + step]) for start in range(0, len(counts), step)]
    most = max(bins, default=0)
    return "".join(BARS[-(-count * (len(BARS) - 1) // most)] if count else BARS[0] for count in bins)


def _shape(shape: Sequence[int | None]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


@dataclass(frozen=True)
class Column:
    """`right` columns are numbers, whose digits stand below each other; the first of `least` go where room is short."""

    title: str
    text: Callable[[Row], str]
    right: bool = False
    least: int = 0


TENSOR_COLUMNS = (
    Column("tensor", lambda row: row["tensor"]),
    Column("shape", lambda row: _shape(row["shape"])),
    Column("dtype", lambda row: row["dtype"]),
    Column("bytes", lambda row: format_bytes(row["nbytes"])),
    Column("histogram", lambda row: sparkline(row["histogram_counts"])),
    Column("min", lambda row: _number(row["min"])),
    Column("max", lambda row: _number(row["max"])),
    Column("mean", lambda row: _number(row["mean"]), least=3),
    Column("std", lambda row: _number(row["std"]), least=2),
    Column("zeros", lambda row: f"{row['zeros']:,}", least=1),
)


def layer_columns(total_params: int, *, nested: bool = False) -> tuple[Column, ...]:
    """`nested` names are those that a layer has among its siblings, set in by its depth; otherwise keys."""
    name = (lambda row: "  " * row["depth"] + row["name"]) if nested else (lambda row: row["layer"])
    return (
        Column("layer", name),
        Column("class", lambda row: row["class"]),
        Column("output", lambda row: " ".join("" if each is None else _shape(each) for each in _outputs(row))),
        Column("params", lambda row: f"{row['params']:,}", right=True),
        Column("share", lambda row: share(row["params"], total_params), True, least=2),
        Column("bytes", lambda row: format_bytes(row["weight_bytes"]) if row["weight_bytes"] else "", True, least=3),
        Column("MACs", lambda row: "" if row["macs"] is None else amount(row["macs"]), True, least=1),
        Column("connected to", lambda row: ", ".join(row["connected_to"])),
    )


def _outputs(row: Row) -> Sequence[Sequence[int | None] | None]:
    return row["output_shapes"] or ()


def table(stream: Stream, columns: Sequence[Column], width: int | None) -> Iterator[Parts]:
    """A heading and a line for each row. The rows are gone through twice: for the widths of columns, then for the text.

    At most `width` cells; None where nothing limits it.
    """
    widths = dict(zip(columns, _widest(stream(), columns), strict=True))
    if width is not None:
        widths = _fitted(widths, width)
    yield _line([column.title for column in widths], widths, {"dim": True})
    for row in stream():
        yield _line([column.text(row) for column in widths], widths, {})


def _widest(rows: Iterable[Row], columns: Sequence[Column]) -> list[int]:
    widths = [cell_len(column.title) for column in columns]
    for row in rows:
        for number, column in enumerate(columns):
            text = column.text(row)
            if len(text) > widths[number]:
                widths[number] = min(cell_len(text), WIDEST)
    return widths


def _fitted(widths: dict[Column, int], width: int) -> dict[Column, int]:
    """As few columns go as have to; then the last one and the first become narrower."""
    first, *_, last = widths
    found, spare = dict(widths), sum(max(widths[column] - NARROWEST, 0) for column in (first, last))
    for column in sorted((column for column in widths if column.least), key=lambda column: column.least):
        if _total(found) - spare > width:
            del found[column]
    for column in (last, first):
        found[column] -= min(max(_total(found) - width, 0), max(found[column] - NARROWEST, 0))
    return found


def _total(widths: dict[Column, int]) -> int:
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _line(cells: Sequence[str], widths: dict[Column, int], style: Style) -> Parts:
    shown = (cell(text, width, column.right) for text, (column, width) in zip(cells, widths.items(), strict=True))
    return [(GAP.join(shown).rstrip(), style)]


def csv_text(rows: Iterable[Row], keys: Sequence[str]) -> Iterator[str]:
    yield csv_line(keys)
    for row in rows:
        yield csv_line([row[key] for key in keys])


def json_text(about: Row, rows: Iterable[Row], keys: Sequence[str], findings: Sequence[str]) -> Iterator[str]:
    """One object, with a line for each row; a number that JSON does not have is null."""
    yield f'{{"totals": {_json(about)}, "rows": ['
    held = None
    for row in rows:
        if held is not None:
            yield f"{held},"
        held = f"  {_json({key: row[key] for key in keys})}"
    if held is not None:
        yield held
    yield f'], "suspicious": {_json(list(findings))}}}'


def _json(value: object) -> str:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
