"""Which SQL only reads. A SELECT need not: its WITH clause may hold COPY … TO, and some functions run SQL in a text.

So the parsed statement is looked through, for what is known to read; whatever a later DuckDB adds is refused.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from exporter.errors import UsageError
from exporter.query.compaction import cache_folder

# Extensions are code; a query must neither bring nor wake one, nor see the variables of the Python program around it.
SETTINGS: dict[str, Any] = {
    # Where large sorts may go, otherwise the current folder. DuckDB lets queries read what is there.
    "temp_directory": str(cache_folder().parent / "spill"),
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?(\([^)]*\)\s*)?", re.IGNORECASE)
READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
# The others read files, take addresses of objects in memory, run SQL in a text, or change how DuckDB works.
TABLE_FUNCTIONS = {
    *("unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree", "query_table", "summary"),
    *("histogram", "histogram_values", "duckdb_columns", "duckdb_functions", "duckdb_settings", "duckdb_tables"),
    *("duckdb_types", "duckdb_views", "pragma_table_info", "pragma_version"),
}


@functools.lru_cache(maxsize=64)
def check(sql: str) -> None:
    """Raises UsageError unless `sql` is one statement that only reads. A good one is remembered, which saves 10 ms."""
    statements = _parsed(sql)
    if len(statements) != 1:
        why = "there is no statement" if not statements else f"there are {len(statements)} statements"
        raise UsageError("cannot be run", why=why, hint="give one SELECT; --example lists some")
    kind = statements[0].type
    if kind == duckdb.StatementType.EXPLAIN:
        # EXPLAIN ANALYZE executes what it explains.
        head = EXPLAIN.match(sql)
        sql = sql[head.end() :] if head else ""
        inner = _parsed(sql)
        kind = inner[0].type if len(inner) == 1 else kind
    if kind != duckdb.StatementType.SELECT:
        raise _refusal(f"{kind.name} is not a query")
    _check_parts(sql)


def _parsed(sql: str) -> list[duckdb.Statement]:
    try:
        return list(duckdb.extract_statements(sql))
    except duckdb.Error as error:
        why = message(error)
        raise UsageError("the SQL cannot be parsed", why=why, hint="--example lists queries that run") from error


def _check_parts(sql: str) -> None:
    for part in _parts(sql):
        kind = str(part.get("type", ""))
        if kind.endswith("_NODE") and kind not in READING_NODES:
            raise _refusal(f"{kind.split('_')[0]} inside of a query is not a query")
        if kind == "TABLE_FUNCTION" and (name := _function_name(part)) not in TABLE_FUNCTIONS:
            raise _refusal(f"FROM {name}(…) is not a table of the catalogue")


def _function_name(part: dict[str, Any]) -> str:
    function = part.get("function")
    return str(function.get("function_name", "")).lower() if isinstance(function, dict) else ""


def _parts(sql: str) -> Iterator[dict[str, Any]]:
    """All objects in the syntax tree that DuckDB writes as JSON. Raises UsageError where it cannot write one."""
    with duckdb.connect(config=SETTINGS) as connection:
        (text,) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("{}",)
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise UsageError("cannot be run", why="the SQL is too deeply nested", hint="split it") from error
    if tree.get("error") is not False:
        raise _refusal(f"it cannot be seen whether it only reads ({tree.get('error_message', 'no reason given')})")
    open_parts: list[Any] = [tree]
    while open_parts:
        part = open_parts.pop()
        if isinstance(part, dict):
            yield part
            open_parts += part.values()
        elif isinstance(part, list):
            open_parts += part


def _refusal(why: str) -> UsageError:
    hint = "SELECT from models, layers, tensors, edges, nodes, batch; -o FILE keeps the result"
    return UsageError("refused", why=f"{why}, and a catalogue is only read", hint=hint)


def message(error: duckdb.Error) -> str:
    """DuckDB's sentence without its drawing of the place in the SQL."""
    return re.split(r"\n\s*\n?LINE \d+:", str(error))[0].strip().replace("\n", " ")
