"""The rows of one table of an export, as a stream."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.errors import SourceError
from exporter.schema import SCHEMA_VERSION, SCHEMAS

Row = dict[str, Any]
VERSION_KEY = b"export_model.schema_version"
BATCH_ROWS = 8192


def rows(folder: Path, table: str, columns: Collection[str] = ()) -> Iterator[Row]:
    """All columns of the schema, or those that are named, with None in those that the file does not have.

    Raises SourceError for a file that is not there, is damaged, or has another schema.
    """
    path, schema = folder / f"{table}.parquet", SCHEMAS[table]
    try:
        with pq.ParquetFile(path) as file:
            check(path, file.schema_arrow, schema)
            asked = [column for column in schema.names if not columns or column in columns]
            present = [column for column in asked if column in file.schema_arrow.names]
            absent = dict.fromkeys(set(asked) - set(present))
            for batch in file.iter_batches(BATCH_ROWS, columns=present):
                for row in batch.to_pylist():
                    yield absent | row
    except (OSError, pa.ArrowInvalid) as error:
        hint = "export the model again with --to onnx,parquet"
        raise SourceError("cannot be read", where=str(path), why=str(error).splitlines()[0], hint=hint) from error


def check(path: Path, found: pa.Schema, schema: pa.Schema) -> None:
    """Raises SourceError when a file has a later schema, or lacks a column that is never unknown."""
    version = (found.metadata or {}).get(VERSION_KEY, b"").decode()
    missing = [column.name for column in schema if not column.nullable and column.name not in found.names]
    later = version.isdecimal() and int(version) > int(SCHEMA_VERSION)
    if later or missing:
        why = f"it lacks {', '.join(missing)}" if missing else f"it has schema version {version}"
        hint = "export the model again with this version of export-model"
        raise SourceError(f"is not a table of schema version {SCHEMA_VERSION}", where=str(path), why=why, hint=hint)
