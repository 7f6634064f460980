"""Makes the copy of a table, in a process of its own that the query does not wait for: `exporter.query.background`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import duckdb

from exporter.errors import ExportError
from exporter.query import background, compaction
from exporter.query.places import LocalFile
from exporter.query.scanning import literal, scans
from exporter.query.statements import SETTINGS


def start(table: str, files: Sequence[LocalFile]) -> bool:
    """Begin to make the copy; False where another process is at it, or there is no folder for copies."""
    if not background.is_allowed():
        return False
    try:
        with compaction.only_maker(table, files) as is_free:
            if not is_free:
                return False
    except OSError:
        return False
    return background.start("exporter.query.copying", [table, [astuple(file) for file in files]])


def make(table: str, files: Sequence[LocalFile]) -> None:
    """Nothing happens where another process makes it. Raises OSError, ExportError and duckdb.Error."""
    with compaction.only_maker(table, files) as is_free:
        if is_free and compaction.up_to_date(table, files) is None:
            compaction.make(table, files, lambda path, record: _write(files, path, record))


def _write(files: Sequence[LocalFile], path: Path, record: str) -> None:
    """All rows, with the path that each comes from."""
    with duckdb.connect(config=SETTINGS) as connection:
        rows = " UNION ALL BY NAME ".join(f"SELECT * FROM {scan}" for scan in scans(connection, files))
        about = f"KV_METADATA {{'{compaction.FILES_KEY}': {literal(record)}}}"
        connection.execute(f"COPY ({rows}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd, {about})")


def main() -> None:
    table, files = background.request()
    with suppress(OSError, ExportError, duckdb.Error):
        make(table, [LocalFile(*file) for file in files])


if __name__ == "__main__":
    main()
