"""The files of a table as table functions of DuckDB: those of one schema together, which spares opening each twice.

`union_by_name` opens every file once more to see its columns. Files that pyarrow wrote have their schema as one text in
the footer: where that is the same, so are the columns, and the version is looked at in one of them.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import duckdb

from exporter.query import places
from exporter.query.compaction import FILE_COLUMN
from exporter.query.places import LocalFile

# The length of a footer and the signature after it end the file (Parquet format, File Format).
TAIL_BYTES, SIGNATURE = 8, b"PAR1"
# A key in the footer and its value, which is base64, with the value's length between them (Thrift compact protocol).
KEY = b"ARROW:schema"
VALUE = re.compile(rb"\x18[\x80-\xff]*[\x00-\x7f]([A-Za-z0-9+/=]+)")


def scans(connection: duckdb.DuckDBPyConnection, files: Sequence[LocalFile]) -> list[str]:
    """Table functions that read all the files. Raises UnsupportedError for a later version, and duckdb.Error."""
    groups: dict[bytes | None, list[str]] = defaultdict(list)
    for file in files:
        groups[_arrow_schema(file.path)].append(file.path)
    found = []
    for schema, paths in groups.items():
        _check_versions(connection, paths if schema is None else paths[:1])
        union = ", union_by_name = true" if schema is None else ""
        found.append(f"read_parquet({literals(paths)}, filename = '{FILE_COLUMN}'{union})")
    return found


def _check_versions(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    versions = f"SELECT file_name, value FROM parquet_kv_metadata({literals(paths)}) WHERE key = ?"
    for name, version in connection.execute(versions, [places.VERSION_KEY]).fetchall():
        places.check_version(bytes(version).decode(), str(name))


def _arrow_schema(path: str) -> bytes | None:
    """The text of the schema; None where there is none, or where the file is not whole, which reading it will say."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            tail = os.pread(stream.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES))
            length = int.from_bytes(tail[:4], "little")
            if tail[4:] != SIGNATURE or length > size:
                return None
            footer = os.pread(stream.fileno(), length, size - TAIL_BYTES - length)
    except OSError:
        return None
    at = footer.find(KEY)
    found = None if at < 0 else VALUE.match(footer, at + len(KEY))
    return found and found[1]


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Iterable[str]) -> str:
    """A list of texts in SQL."""
    return "[" + ", ".join(map(literal, texts)) + "]::VARCHAR[]"
