"""SQL over a catalogue: DuckDB in memory, one view for each table, and nothing else within reach.

Every query gets a connection of its own that is locked before the query is seen: DuckDB may then open the files of the
catalogue and no others, and only statements that read are let through. So nothing that a query says can write, attach
or install anything, and queries may run in several threads.
"""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from exporter.errors import ExportError, SourceError, UsageError
from exporter.query import compaction, copying
from exporter.query import places as catalogue_files
from exporter.query.places import Found, LocalFile
from exporter.query.scanning import literal, literals, scans
from exporter.query.statements import SETTINGS, check, message
from exporter.schema import MOMENT, TABLES

Parameters = Sequence[Any] | Mapping[str, Any] | None
Tell = Callable[[str], None]
# What can show or reach views that it does not name.
REFLECTIVE = re.compile(r"\b(show|describe|information_schema|duckdb_\w+|pragma_\w+|pg_\w+|query\w*)\b", re.IGNORECASE)
# How DuckDB names the file in its complaints about a broken one.
FILE_IN_MESSAGE = re.compile(r"""(?:file|read)\s+["']([^"']+\.parquet)["']""", re.IGNORECASE)
UNKNOWN_TABLE = re.compile(r"Table with name (\S+) does not exist")
SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    MOMENT: "TIMESTAMP WITH TIME ZONE",
}


def silently(sentence: str) -> None:
    """For those who do not want to know."""


@contextmanager
def run(
    places: Sequence[str], sql: str, parameters: Parameters = None, tell: Tell = silently
) -> Iterator[duckdb.DuckDBPyRelation]:
    """The result of `sql`, to be fetched inside the block; `tell` gets a sentence before what takes long.

    Raises UsageError for SQL that is wrong or would do more than read, and what `catalogue_files.find` raises.
    """
    check(sql)
    with connect(places, mentioned(sql), tell) as connection:
        try:
            yield connection.sql(sql, params=parameters)
        except duckdb.Error as error:
            raise _translated(error, sql, places) from error


def mentioned(sql: str) -> list[str]:
    """The tables that `sql` may use. Files of the others are not opened, which is most of the time of a short query."""
    if REFLECTIVE.search(sql):
        return list(TABLES)
    return [table for table in TABLES if re.search(rf"\b{table}\b", sql, re.IGNORECASE)]


def connect(
    places: Sequence[str], tables: Iterable[str] = tuple(TABLES), tell: Tell = silently
) -> duckdb.DuckDBPyConnection:
    """A locked connection with a view of each of the tables; those of which there is no file are empty."""
    tables = list(tables)
    found = catalogue_files.find(places, tables or ["models"])
    connection = duckdb.connect(config=SETTINGS)
    try:
        allowed = [path for table in tables for path in _create_view(connection, table, found, tell)]
        connection.execute(f"SET allowed_paths = {literals(allowed)}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except duckdb.Error as error:
        translated = _translated(error, "", places)
        connection.close()
        raise translated from error
    except ExportError:
        connection.close()
        raise
    return connection


def _create_view(connection: duckdb.DuckDBPyConnection, table: str, found: Found, tell: Tell) -> list[str]:
    """The view of one table, and the paths that it reads."""
    plain = catalogue_files.plain(found.local[table])
    odd = [catalogue_files.read_local(file.path) for file in found.local[table] if glob.escape(file.path) != file.path]
    parts, paths = [], []
    if plain:
        direct: list[LocalFile] = plain
        if compaction.is_worth_it(plain):
            if compacted := compaction.up_to_date(table, plain):
                direct = compacted.changed
                paths.append(compacted.path)
                parts.append(_selection(connection, table, _compacted_rows(compacted)))
            elif copying.start(table, plain):
                tell(f"{table}: {len(plain):,} files are read; a copy that is quicker to read is being made for later")
        paths += [file.path for file in direct]
        parts += [_selection(connection, table, rows) for rows in scans(connection, direct)]
    for number, rows in enumerate([*odd, *found.remote[table]]):
        connection.register(f"{table}_{number}_elsewhere", rows)
        parts.append(_selection(connection, table, f"{table}_{number}_elsewhere"))
    parts = parts or [f"SELECT {_columns(table, ())} WHERE false"]
    connection.execute(f'CREATE VIEW "{table}" AS ' + " UNION ALL ".join(parts))
    return paths


def _compacted_rows(compacted: compaction.Compacted) -> str:
    rows = f"read_parquet({literal(compacted.path)})"
    if not compacted.stale:
        return rows
    return f"(SELECT * FROM {rows} WHERE {compaction.FILE_COLUMN} NOT IN {literals(compacted.stale)})"


def _selection(connection: duckdb.DuckDBPyConnection, table: str, rows: str) -> str:
    there = [str(row[0]) for row in connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()]
    return f"SELECT {_columns(table, there)} FROM {rows}"


def _columns(table: str, there: Sequence[str]) -> str:
    """All columns of the present schema; those that older files lack are NULL."""
    return ", ".join(
        f'"{field.name}"' if field.name in there else f'CAST(NULL AS {sql_type(field.type)}) AS "{field.name}"'
        for field in TABLES[table]
    )


def sql_type(kind: pa.DataType) -> str:
    """DuckDB's name of an Arrow type of the schemas."""
    if pa.types.is_list(kind):
        return sql_type(kind.value_type) + "[]"
    if pa.types.is_struct(kind):
        return "STRUCT(" + ", ".join(f'"{part.name}" {sql_type(part.type)}' for part in kind) + ")"
    return SQL_TYPES[kind]


def _translated(error: duckdb.Error, sql: str, places: Sequence[str]) -> ExportError:
    sentence = message(error)
    broken = FILE_IN_MESSAGE.search(str(error))
    if broken and not isinstance(error, duckdb.PermissionException):
        return catalogue_files.unreadable(broken[1], sentence)
    if isinstance(error, duckdb.PermissionException):
        return UsageError("refused", why="a query reads the catalogue and nothing else", hint=sentence)
    if type(error) is duckdb.Error:  # Of no kind: from the decoders of Parquet's pages, which do not know the file.
        hint = "a file there is damaged; ask one folder after the other, and export that model again with --force"
        return SourceError("cannot be read", where=", ".join(places), why=sentence, hint=hint)
    if unknown := UNKNOWN_TABLE.search(sentence):
        return _unknown_table(unknown[1])
    return UsageError("the query failed", why=sentence, hint=_hint(sql))


def _unknown_table(name: str) -> UsageError:
    """DuckDB itself would propose one of its own tables."""
    near = difflib.get_close_matches(name.lower(), TABLES, n=1)
    hint = f"the tables are {', '.join(TABLES)}"
    return UsageError(
        "is no table", where=name, why="a catalogue has none of that name", hint=f"{near[0]}; {hint}" if near else hint
    )


def _hint(sql: str) -> str:
    """Which columns exist in what the query uses."""
    tables = [table for table in TABLES if re.search(rf"\b{table}\b", sql, re.IGNORECASE)]
    if not tables:
        return "the tables are " + ", ".join(TABLES)
    return "; ".join(f"{table} has {', '.join(TABLES[table].names)}" for table in tables)
