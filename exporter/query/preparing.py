"""Makes the copies of tables before anybody asks: after a batch, so that the first query over it is quick."""

from __future__ import annotations

from exporter.errors import ExportError
from exporter.query import compaction, places
from exporter.schema import SCHEMAS


def prepare(folder: str) -> list[str]:
    """Begin to copy the tables of the exports below a folder where queries would; the names of those tables.

    A folder with few exports, or one that cannot be listed, costs its listing and nothing else.
    """
    try:
        found = places.find([folder], SCHEMAS)
    except ExportError:
        return []
    many = {table: files for table, files in found.local.items() if compaction.is_worth_it(files)}
    if not many:
        return []
    from exporter.query import copying

    stale = [table for table, files in many.items() if compaction.up_to_date(table, files) is None]
    return [table for table in stale if copying.start(table, many[table])]
