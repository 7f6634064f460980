"""Makes the copies of tables before anybody asks: after a batch, so that the first query over it is quick.

Run as `python -m exporter.query.preparing`: one table after the other, because they would only be in each other's way.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice

from exporter.errors import ExportError
from exporter.query import background, compaction


def prepare(folder: str) -> bool:
    """Begin to copy the tables of the exports in a folder; False where there are too few for that.

    Only as many names as that takes are read here; whether there are copies already finds out who makes them.
    """
    try:
        with os.scandir(folder) as entries:
            exports = sum(1 for _ in islice((entry for entry in entries if entry.is_dir()), compaction.FEW_FILES + 1))
    except OSError:
        return False
    return exports > compaction.FEW_FILES and background.start("exporter.query.preparing", os.path.abspath(folder))


def make_all(folder: str) -> list[str]:
    """Copy the tables of which queries would want a copy; their names."""
    import duckdb

    from exporter.query import copying, places
    from exporter.schema import SCHEMAS

    try:
        found = places.find([folder], SCHEMAS)
    except ExportError:
        return []
    many = {table: plain for table in found.local if compaction.is_worth_it(plain := places.plain(found.local[table]))}
    for table, files in many.items():
        with suppress(OSError, ExportError, duckdb.Error):
            copying.make(table, files)
    return list(many)


if __name__ == "__main__":
    make_all(background.request())
