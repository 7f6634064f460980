"""The tables of many exports from Python: `exporter.open_catalogue("outputs").layers.to_pandas()`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from exporter.query.sql import Parameters, run
from exporter.query.statements import check

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

BATCH_ROWS = 65_536
Place = str | os.PathLike[str]


class Rows:
    """What a query selects. It runs each time that rows are asked for, over the files that are there then."""

    def __init__(self, places: Sequence[str], sql: str, parameters: Parameters = None) -> None:
        self._places, self.text, self._parameters = places, sql, parameters

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Record batches of at most so many rows, for results that need not fit into memory."""
        with run(self._places, self.text, self._parameters) as result:
            yield from result.to_arrow_reader(rows)

    def to_arrow(self) -> pa.Table:
        with run(self._places, self.text, self._parameters) as result:
            return result.to_arrow_table()

    def to_pandas(self) -> pd.DataFrame:
        with run(self._places, self.text, self._parameters) as result:
            return result.df()

    def to_polars(self) -> pl.DataFrame:
        """Raises ImportError without Polars, which does not come with export-model."""
        import polars as pl

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame


class Catalogue:
    """The exports below some places; see `open_catalogue`.

    Safe to use from several threads: it holds no connection, every query opens its own.
    """

    def __init__(self, places: Sequence[str]) -> None:
        self.places = tuple(places)

    models = property(lambda self: self.sql("SELECT * FROM models"), doc="One row for each export.")
    layers = property(lambda self: self.sql("SELECT * FROM layers"), doc="One row for each layer.")
    tensors = property(lambda self: self.sql("SELECT * FROM tensors"), doc="One row for each weight.")
    nodes = property(lambda self: self.sql("SELECT * FROM nodes"), doc="One row for each ONNX node.")
    batch = property(lambda self: self.sql("SELECT * FROM batch"), doc="One row for each model of the last batch.")
    edges = property(lambda self: self.sql("SELECT * FROM edges"), doc="One row for each tensor between calls.")

    def sql(self, sql: str, parameters: Parameters = None) -> Rows:
        """The rows of one SELECT in DuckDB's SQL; `parameters` stand for its `?` (a sequence) or `$name` (a mapping).

        Raises UsageError for a statement that does more than read. What else is wrong with it shows when rows are asked
        for: UsageError for an unknown column, SourceError for a broken file, UnsupportedError for a newer schema.
        """
        check(sql)
        return Rows(self.places, sql, parameters)

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to give back: no file and no connection stays open between queries."""


def open_catalogue(path: Place | Sequence[Place] = "outputs") -> Catalogue:
    """The finished exports in a folder and all folders below it, or in several.

    A `path` may be a glob, an export's folder, an object store (`s3://`, `gs://`, `az://`) or the address of one export
    on a web server. Folders are listed anew for every query.
    """
    places = [path] if isinstance(path, str | os.PathLike) else path
    return Catalogue([os.fspath(place) for place in places])
