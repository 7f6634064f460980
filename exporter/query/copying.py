"""Makes the copies of tables, in a process of its own that the query does not wait for.

Run as `python -m exporter.query.copying` with a request on standard input. It goes on after the query has ended, at the
lowest priority, and says nothing: a copy that cannot be made is one that later queries do without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import duckdb

from exporter.errors import ExportError
from exporter.query import compaction
from exporter.query.places import LocalFile
from exporter.query.scanning import literal, scans
from exporter.query.statements import SETTINGS

# With any value, queries make no copies.
SWITCH = "EXPORT_MODEL_NO_COPY"
LOWEST_PRIORITY = 19

# Kept, because Python warns of a process that nobody remembers, and reaps those that have ended when it starts another.
_started: list[subprocess.Popen[bytes]] = []


def start(table: str, files: Sequence[LocalFile]) -> bool:
    """Begin to make the copy; False where another process is at it, or there is no folder for copies."""
    if os.environ.get(SWITCH):
        return False
    try:
        with compaction.only_maker(table, files) as is_free:
            if not is_free:
                return False
        with tempfile.TemporaryFile() as request:
            request.write(json.dumps([table, [astuple(file) for file in files]]).encode())
            request.seek(0)
            command = [sys.executable, "-m", "exporter.query.copying"]
            quiet = subprocess.DEVNULL
            maker = subprocess.Popen(command, stdin=request, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError:
        return False
    _started[:] = [*(each for each in _started if each.poll() is None), maker]
    return True


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
    os.nice(LOWEST_PRIORITY)
    table, files = json.load(sys.stdin)
    with suppress(OSError, ExportError, duckdb.Error):
        make(table, [LocalFile(*file) for file in files])


if __name__ == "__main__":
    main()
