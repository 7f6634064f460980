"""The rows of a query's result as text, a batch at a time, or as a Parquet file."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.files import new_file

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 8192
# A cell of a table is cut there.
CELL_WIDTH = 60


def table_lines(reader: pa.RecordBatchReader, limit: int) -> Iterator[str]:
    """Aligned columns of the first `limit` rows (0: all), and how many more there are."""
    rows = _rows(reader)
    shown = [[_cut(_text(value)) for value in row] for row in (islice(rows, limit) if limit else rows)]
    yield from aligned([list(reader.schema.names), *shown], [_is_number(field.type) for field in reader.schema])
    if more := sum(1 for _ in rows):
        yield f"… and {more:,} more rows (--limit 0 shows all)"


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> Iterator[str]:
    """Lines of cells as columns; those that `right` names end in one place."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        column = zip(cells, widths, right, strict=True)
        yield "  ".join(cell.rjust(width) if ends else cell.ljust(width) for cell, width, ends in column).rstrip()


def markdown_lines(reader: pa.RecordBatchReader) -> Iterator[str]:
    yield _markdown(reader.schema.names)
    yield _markdown("---:" if _is_number(field.type) else "---" for field in reader.schema)
    for row in _rows(reader):
        yield _markdown(_text(value).replace("|", "\\|").replace("\n", " ") for value in row)


def csv_lines(reader: pa.RecordBatchReader) -> Iterator[str]:
    return map(csv_line, chain([reader.schema.names], _rows(reader)))


def csv_line(row: Iterable[Any]) -> str:
    """NULL is an empty cell; lists and structures are JSON."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow(
        json.dumps(plain(value), ensure_ascii=False) if isinstance(value, (list, dict)) else value for value in row
    )
    return stream.getvalue()


def json_lines(reader: pa.RecordBatchReader) -> Iterator[str]:
    """One array, an object in each line; NaN and infinities, which JSON does not have, are null."""
    names, before = reader.schema.names, "["
    for row in _rows(reader):
        if before != "[":
            yield before + ","
        record = dict(zip(names, map(plain, row), strict=True))
        before = ("[" if before == "[" else " ") + json.dumps(record, ensure_ascii=False, allow_nan=False, default=str)
    yield before + "]"


WRITERS: dict[str, Callable[[pa.RecordBatchReader], Iterator[str]]] = {
    "markdown": markdown_lines,
    "csv": csv_lines,
    "json": json_lines,
}


def write_parquet(path: Path, reader: pa.RecordBatchReader) -> None:
    """Raises OutputError."""
    import pyarrow.parquet as pq

    with new_file(path) as stream, pq.ParquetWriter(stream, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:
    for batch in reader:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, (list, dict)):
        return json.dumps(plain(value), ensure_ascii=False, default=str)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    line = text.replace("\n", " ")
    return line if len(line) <= CELL_WIDTH else line[: CELL_WIDTH - 1] + "…"


def plain(value: Any) -> Any:
    """For JSON, which has no NaN and no infinities: they are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def _markdown(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
