"""SQL over exports: the answers against pandas on the same files, what is refused, and which files are read."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exporting import export_here
from stores import s3_server

from exporter import open_catalogue
from exporter.errors import ExportError, SourceError, UnsupportedError, UsageError
from exporter.query import background, compaction, copying, places
from exporter.query.catalogue import Catalogue
from exporter.query.places import LocalFile
from exporter.query.questions import QUESTIONS
from exporter.query.scanning import scans
from exporter.query.sql import run
from exporter.schema import SCHEMAS

NAMES = ["alpha", "beta"]
COUNT = "SELECT count(*) FROM {}"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exports: `alpha` has a NaN and two infinite elements, and one kernel that `beta` has, too."""
    folder = tmp_path_factory.mktemp("query")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    for name in NAMES:
        made = [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(5, name="head"),
        ]
        model = keras.Sequential([*made, *([layers.Dense(2, name="last")] if name == "beta" else [])], name=name)
        kernel = np.linspace(-1, 1, 3 * 3 * 3 * 4, dtype="float32").reshape(3, 3, 3, 4)
        head = model.get_layer("head").get_weights()
        if name == "alpha":
            head[0][0, :3] = np.nan, np.inf, -np.inf
        model.get_layer("conv").set_weights([kernel, np.arange(4, dtype="float32")])
        model.get_layer("head").set_weights(head)
        model.save(folder / f"{name}.keras")
        outcome = export_here(
            folder / f"{name}.keras", folder / "outputs", formats=("onnx", "parquet"), stats=True, verify=False
        )
        assert outcome.error is None
    return folder / "outputs"


@pytest.fixture
def copy(exports: Path, tmp_path: Path) -> Path:
    """The exports in a folder that the test may change."""
    return Path(shutil.copytree(exports, tmp_path / "outputs"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "export-model" / "catalogue"


def rows(catalogue: Catalogue, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in catalogue.sql(sql, parameters).to_arrow().to_pylist()]


def models_in(*places: Path | str) -> list[str]:
    return [name for (name,) in rows(open_catalogue(places), "SELECT model FROM models ORDER BY model")]


def frame(exports: Path, table: str) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(exports / name / f"{table}.parquet") for name in NAMES], ignore_index=True)


def answer(exports: Path, question: str) -> list[tuple[Any, ...]]:
    return rows(open_catalogue(exports), QUESTIONS[question].sql)


def add_export(place: Path, name: str) -> None:
    """Another one in the place of a conversion: `alpha` under another name."""
    shutil.copytree(place / "alpha", place / name)
    for table in SCHEMAS:
        rewrite(place / name / f"{table}.parquet", lambda rows: renamed(rows, name))


def renamed(table: pa.Table, name: str) -> pa.Table:
    return table.set_column(0, table.schema.field(0), pa.array([name] * table.num_rows))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    # Read into memory: the file is overwritten while a mapped one would still be in use.
    pq.write_table(change(pq.ParquetFile(path, memory_map=False).read()), path)


def with_version(version: str | None) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.replace_schema_metadata({"export_model.schema_version": version} if version else None)


# The questions


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_run(question: str, exports: Path) -> None:
    result = open_catalogue(exports).sql(QUESTIONS[question].sql).to_arrow()
    assert result.num_columns > 1
    assert not any(pa.types.is_decimal(field.type) for field in result.schema), "pandas would show decimals"
    assert result.num_rows or question in {
        "unused-weights",
        "nodes-without-layer",
        "tied-weights",
        "memory-bound-layers",
    }


def test_largest_layers_as_pandas_finds_them(exports: Path) -> None:
    columns = ["model", "layer", "class", "params", "weight_bytes"]
    layers = frame(exports, "layers").sort_values(["params", "model", "index"], ascending=[False, True, True])
    assert answer(exports, "largest-layers") == list(layers[columns].itertuples(index=False, name=None))


def test_weights_with_nan_as_pandas_finds_them(exports: Path) -> None:
    tensors = frame(exports, "tensors")
    wanted = tensors[(tensors.nans > 0) | (tensors.infs > 0)][["model", "layer", "tensor", "nans", "infs"]]
    assert answer(exports, "layers-with-nan") == list(wanted.itertuples(index=False, name=None))
    assert wanted[["model", "layer", "nans", "infs"]].values.tolist() == [["alpha", "head", 1, 2]]


def test_duplicates_as_pandas_finds_them(exports: Path) -> None:
    digests = frame(exports, "tensors").groupby("sha256").model.nunique()
    found = answer(exports, "duplicates")
    assert {(digest, count) for digest, count, *_ in found} == set(digests[digests > 1].items())
    assert max(nbytes for *_, nbytes in found) == 3 * 3 * 3 * 4 * 4


def test_share_of_the_head_as_pandas_finds_it(exports: Path) -> None:
    layers = frame(exports, "layers")
    heads = layers[layers.params > 0].sort_values("index").groupby("model").last()
    share = (heads.params / layers.groupby("model").params.sum()).round(4)
    wanted = {(name, heads.layer[name], heads.params[name], share[name]) for name in NAMES}
    assert set(answer(exports, "head-share")) == wanted


def test_params_by_dtype_as_pandas_counts_them(exports: Path) -> None:
    tensors = frame(exports, "tensors")
    tensors["params"] = tensors["shape"].map(np.prod)
    wanted = tensors.groupby("dtype")[["params", "nbytes"]].sum()
    assert set(answer(exports, "params-by-dtype")) == set(wanted.itertuples(name=None))


def test_macs_by_class_as_pandas_sums_them(exports: Path) -> None:
    layers = frame(exports, "layers")  # no layer of these models is inside of another
    wanted = layers.groupby("class").agg(layers=("layer", "size"), macs=("macs", lambda macs: macs.sum(min_count=1)))
    found = {kind: (count, macs) for kind, count, macs in answer(exports, "macs-by-class")}
    assert {kind: row[0] for kind, row in found.items()} == wanted.layers.to_dict()
    assert {kind: row[1] for kind, row in found.items() if row[1]} == wanted.macs[wanted.macs > 0].to_dict()


def test_operators_as_pandas_counts_them(exports: Path) -> None:
    nodes = frame(exports, "nodes").groupby(["domain", "op_type"]).model.agg(["size", "nunique"])
    assert set(answer(exports, "ops")) == {(*key, *counts) for key, *counts in nodes.itertuples(name=None)}


def test_number_of_layers_as_pandas_counts_them(exports: Path) -> None:
    layers = frame(exports, "layers")
    wanted = {
        (name, len(of_model), of_model.depth.max(), (of_model.params > 0).sum())
        for name, of_model in layers.groupby("model")
    }
    assert set(answer(exports, "deepest-models")) == wanted


def test_memory_at_another_batch(exports: Path) -> None:
    models = frame(exports, "models").set_index("model")
    for name, weights, activations, total in answer(exports, "memory-at-32"):
        assert activations == models.peak_activation_bytes[name] * 32 // models.cost_batch_size[name]
        assert (weights, total) == (models.weight_bytes[name], weights + activations)


@pytest.mark.parametrize("table", SCHEMAS)
def test_tables_join_on_their_keys(table: str, exports: Path) -> None:
    assert models_in(exports) == NAMES
    key = {"layers": "layer", "tensors": "layer", "nodes": "layer", "edges": "source", "models": "NULL"}[table]
    known = "SELECT (model, layer) FROM layers"
    orphans = f"SELECT * FROM {table} WHERE {key} IS NOT NULL AND (model, {key}) NOT IN ({known})"
    assert rows(open_catalogue(exports), orphans) == []


# Python


@pytest.mark.slow
def test_tables_and_results_in_all_forms(exports: Path) -> None:
    with open_catalogue(exports) as catalogue:
        layers = frame(exports, "layers")
        selected = catalogue.sql("SELECT model, layer, params FROM layers ORDER BY model, index")
        arrow = selected.to_arrow()
        pd.testing.assert_frame_equal(selected.to_pandas(), layers[["model", "layer", "params"]], check_dtype=False)
        assert selected.to_polars().to_arrow().to_pylist() == arrow.to_pylist()
        assert pa.Table.from_batches(selected.batches(2)).to_pylist() == arrow.to_pylist()
        assert all(batch.num_rows <= 2048 for batch in selected.batches(2048))
        for table, schema in SCHEMAS.items():
            of_table = getattr(catalogue, table).to_arrow()
            assert of_table.schema.names == schema.names
            assert of_table.num_rows == len(frame(exports, table))


@pytest.mark.parametrize(
    ("condition", "parameters"),
    [("model = ? AND params > ?", ["beta", 20]), ("model = $m AND params > $p", {"m": "beta", "p": 20})],
)
def test_parameters(condition: str, parameters: Any, exports: Path) -> None:
    found = rows(open_catalogue(exports), f"SELECT layer FROM layers WHERE {condition} ORDER BY index", parameters)
    assert found == [("conv",), ("head",)]


def test_a_parameter_is_a_value_and_not_sql(exports: Path) -> None:
    sql = "SELECT count(*) FROM layers WHERE model = ?"
    assert rows(open_catalogue(exports), sql, ["' OR true --"]) == [(0,)]


def test_missing_parameters_are_wrong_usage(exports: Path) -> None:
    with pytest.raises(UsageError, match="arameter"):
        rows(open_catalogue(exports), "SELECT * FROM layers WHERE model = ?")


@pytest.mark.slow
def test_queries_in_several_threads(exports: Path) -> None:
    catalogue = open_catalogue(exports)
    questions = ["ops", "head-share", "duplicates", "params-by-dtype"] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: rows(catalogue, QUESTIONS[name].sql), questions))
    assert found == [answer(exports, name) for name in questions]


def test_importing_the_package_imports_no_library() -> None:
    names = "duckdb", "pyarrow", "pandas", "polars"
    code = f"import sys, exporter; print([name for name in {names} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


# What a query may do

FILE = "{layers}"
WRITING_CTE = f"WITH a AS (COPY (SELECT 1) TO '{FILE}' (USE_TMP_FILE false)) SELECT * FROM a, layers"
REFUSED = [
    "COPY layers TO '{new}'",
    f"COPY (SELECT 1) TO '{FILE}'",
    "COPY layers FROM '/etc/passwd'",
    "EXPORT DATABASE '{new}'",
    "ATTACH '{new}' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "CREATE TABLE t AS SELECT 1",
    "CREATE SECRET (TYPE s3)",
    "DROP VIEW layers",
    "INSERT INTO layers SELECT * FROM layers",
    "PRAGMA enable_profiling",
    "CALL enable_logging()",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY layers TO '{new}'",
    "",
    "EXPLAIN ANALYZE COPY layers TO '{new}'",
    "EXPLAIN (ANALYZE, FORMAT json) COPY layers TO '{new}'",
    WRITING_CTE,
    f"EXPLAIN ANALYZE {WRITING_CTE}",
    "WITH a AS (COPY layers TO '{new}') SELECT * FROM a",
    "SELECT * FROM query('COPY layers TO ''{new}''')",
    "SELECT * FROM enable_logging(storage = 'file', storage_path = '{new}')",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM \"Read_Text\"('/etc/passwd')",
    "SELECT (SELECT content FROM read_blob('/etc/passwd')) FROM layers",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '/etc/passwd.csv'",
    "SELECT * FROM read_parquet('{outside}')",
    "SELECT * FROM '{outside}', layers",
    "SELECT * FROM glob('/etc/*')",
    "SELECT nothing",
    "SELEC model FROM models",
]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("sql", REFUSED)
def test_refused_without_a_trace(sql: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside.parquet"
    pq.write_table(pa.table({"secret": ["secret"]}), outside)
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    statement = sql.format(new=tmp_path / "new", outside=outside, layers=copy / "alpha" / "layers.parquet")
    with pytest.raises(UsageError) as caught:
        open_catalogue(copy).sql(statement).to_arrow()
    assert caught.value.why
    assert caught.value.hint
    assert contents(tmp_path) == before


def test_sql_inside_of_a_text_is_refused(copy: Path) -> None:
    """DuckDB runs a serialized statement, also one that writes, from a function in FROM."""
    path = copy / "alpha" / "layers.parquet"
    serialized = duckdb.execute("SELECT json_serialize_sql(?)", [WRITING_CTE.format(layers=path)]).fetchall()[0][0]
    literal = "'" + serialized.replace("'", "''") + "'"
    inner = f"SELECT * FROM json_execute_serialized_sql({literal})".replace("'", "''")
    before = path.read_bytes()
    for sql in (f"SELECT * FROM json_execute_serialized_sql({literal}), layers", f"SELECT * FROM query('{inner}')"):
        with pytest.raises(UsageError, match="refused"):
            open_catalogue(copy).sql(sql).to_arrow()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "sql",
    [
        "FROM layers",
        "TABLE layers",
        "VALUES (1)",
        "DESCRIBE layers",
        "SUMMARIZE layers",
        "SHOW TABLES",
        "EXPLAIN SELECT * FROM layers",
        "EXPLAIN ANALYZE SELECT count(*) FROM layers",
        "SELECT 1;",
        "-- a comment\nSELECT 'COPY layers TO x; DROP' AS text",
        "SELECT model FROM models UNION ALL SELECT model FROM layers",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n, range(3)",
        "PIVOT (SELECT class, params FROM layers) ON class IN ('Conv2D') USING sum(params)",
        "SELECT unnest(shape), row_number() OVER (PARTITION BY model) FROM tensors QUALIFY true",
        "SELECT config->>'$.units', list_transform(connected_to, lambda key: upper(key)) FROM layers",
        "SELECT table_name FROM information_schema.tables",
    ],
)
def test_whatever_reads_is_let_through(sql: str, exports: Path) -> None:
    assert open_catalogue(exports).sql(sql).to_arrow().num_rows


def test_an_unknown_column_is_answered_with_those_that_exist(exports: Path) -> None:
    with pytest.raises(UsageError, match="parameters_count") as caught:
        rows(open_catalogue(exports), "SELECT parameters_count FROM layers")
    assert all(name in caught.value.hint for name in SCHEMAS["layers"].names)
    assert "LINE" not in caught.value.why


def test_an_unknown_table_is_answered_with_those_that_exist(exports: Path) -> None:
    with pytest.raises(UsageError, match="weights") as caught:
        rows(open_catalogue(exports), "SELECT * FROM weights")
    assert all(table in caught.value.hint for table in SCHEMAS)


def test_what_goes_wrong_while_rows_are_made_is_wrong_usage(exports: Path) -> None:
    with pytest.raises(UsageError, match="INT"):
        list(open_catalogue(exports).sql("SELECT CAST(layer AS INTEGER) FROM layers").batches())


# Which files are read


@pytest.mark.slow
def test_folders_files_globs_and_addresses(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    (copy / "team" / "deeper").mkdir(parents=True)
    (copy / "beta").rename(copy / "team" / "deeper" / "beta")
    assert models_in("outputs") == NAMES == models_in(copy)
    assert [name for (name,) in rows(open_catalogue(), "SELECT model FROM models ORDER BY 1")] == NAMES
    assert models_in("outputs/alpha") == ["alpha"]
    assert models_in("outputs/alpha/models.parquet") == ["alpha"]
    assert models_in("outputs/alpha", Path("outputs/team")) == NAMES
    assert models_in("outputs/al*") == ["alpha"]
    assert models_in("outputs/**/models.parquet") == NAMES
    assert models_in(copy.as_uri()) == NAMES


def test_a_place_given_twice_counts_once(exports: Path) -> None:
    assert models_in(exports, exports / "alpha", f"{exports}/*") == NAMES


def test_tables_that_are_not_there_are_empty(exports: Path) -> None:
    only_models = open_catalogue(exports / "alpha" / "models.parquet")
    assert rows(only_models, "SELECT count(*), (SELECT count(*) FROM layers) FROM models") == [(1, 0)]


@pytest.mark.parametrize("name", ["with [brackets]", "what?", "it's", "100 % * star", "größe"])
def test_names_of_folders_are_not_patterns(name: str, copy: Path) -> None:
    (copy / "alpha").rename(copy / name)
    assert models_in(copy) == NAMES
    assert models_in(copy / name) == ["alpha"]
    assert rows(open_catalogue(copy), "SELECT count(*) FROM layers") == [(len(frame_of(copy)),)]


def frame_of(place: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in place.iterdir() for path in [path / "layers.parquet"]])


def test_places_without_exports(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place, said in (("missing", "does not exist"), ("empty", "nothing to query")):
        with pytest.raises(UsageError, match=said) as caught:
            models_in(tmp_path / place)
        assert caught.value.where == str(tmp_path / place)


def test_an_unknown_kind_of_address(exports: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        models_in(exports, "ftp://example.org/exports")
    assert "s3://" in caught.value.hint


def test_an_export_under_way_is_not_read(copy: Path) -> None:
    (copy / "beta" / "manifest.json").unlink()
    shutil.copytree(copy / "alpha", copy / "alpha" / ".staging")
    assert models_in(copy) == ["alpha"]
    assert models_in(copy.as_uri()) == ["alpha"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to say."""


@pytest.fixture
def address(exports: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(exports))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_export_on_a_web_server(address: str, exports: Path) -> None:
    assert models_in(f"{address}/alpha", f"{address}/beta/models.parquet") == NAMES
    assert rows(open_catalogue(f"{address}/alpha/"), QUESTIONS["ops"].sql) == answer(exports / "alpha", "ops")
    with pytest.raises(UsageError, match="nothing to query"):
        models_in(f"{address}/gamma")


@pytest.fixture
def bucket(exports: Path) -> Iterator[str]:
    """The exports in a bucket of a server that speaks S3, on this machine."""
    with s3_server() as s3:
        s3.put_folder(exports, "runs")
        yield s3.address


@pytest.mark.slow
def test_exports_in_an_object_store(bucket: str, exports: Path) -> None:
    assert models_in(bucket) == NAMES
    assert models_in(f"{bucket}/alpha") == ["alpha"]
    for question in ("largest-layers", "duplicates", "ops"):
        assert rows(open_catalogue(bucket), QUESTIONS[question].sql) == answer(exports, question)
    for place in (f"{bucket}/gamma", "s3://no-such-bucket/runs"):
        with pytest.raises(SourceError, match="cannot be listed"):
            models_in(place)


@pytest.mark.parametrize("damage", ["truncated", "empty", "pages"])
@pytest.mark.parametrize("address", [str, Path.as_uri])
def test_a_broken_file_is_named(damage: str, address: Callable[[Path], str], copy: Path) -> None:
    path = copy / "beta" / "layers.parquet"
    whole = path.read_bytes()
    # Pages come first in the file, their offsets and the schema at its end.
    path.write_bytes(
        {"truncated": whole[:-100], "empty": b"", "pages": b"PAR1" + b"\xff" * 4000 + whole[4004:]}[damage]
    )
    with pytest.raises(SourceError) as caught:
        open_catalogue(address(copy)).layers.to_arrow()
    where = caught.value.where.removeprefix("file://")
    assert where == (str(copy) if damage == "pages" and address is str else str(path))
    assert caught.value.hint


@pytest.mark.parametrize("name", ["alpha", "alp[ha]"])
def test_a_newer_schema_is_refused_by_name(name: str, copy: Path) -> None:
    (copy / "alpha").rename(copy / name)
    rewrite(copy / name / "layers.parquet", with_version("99"))
    with pytest.raises(UnsupportedError, match="version 99") as caught:
        open_catalogue(copy).layers.to_arrow()
    assert caught.value.where == str(copy / name / "layers.parquet")
    assert models_in(copy) == NAMES, "the other tables can be read"


@pytest.mark.parametrize("version", ["0", None])
@pytest.mark.parametrize("name", ["alpha", "alp[ha]"])
def test_columns_that_an_older_file_lacks_are_null(version: str | None, name: str, copy: Path) -> None:
    (copy / "alpha").rename(copy / name)
    missing = ["macs", "output_shapes", "onnx_nodes"]
    rewrite(copy / name / "layers.parquet", lambda table: with_version(version)(table.drop_columns(missing)))
    counts = "count(macs), count(output_shapes), count(onnx_nodes), count(layer)"
    found = rows(open_catalogue(copy), f"SELECT {counts} FROM layers WHERE model = 'alpha'")
    assert found == [(0, 0, 0, len(pd.read_parquet(copy / name / "layers.parquet")))]
    assert rows(open_catalogue(copy), "SELECT count(macs) > 0 FROM layers WHERE model = 'beta'") == [(True,)]
    assert open_catalogue(copy / name).layers.to_arrow().schema.names == SCHEMAS["layers"].names


def test_a_column_that_is_lacking_everywhere_has_its_type(copy: Path) -> None:
    for name in NAMES:
        rewrite(copy / name / "models.parquet", lambda table: table.drop_columns(["weights_by_dtype", "macs"]))
    found = open_catalogue(copy).models.to_arrow()
    assert found.schema.field("macs").type == pa.int64()
    assert pa.types.is_struct(found.schema.field("weights_by_dtype").type.value_type)


def test_columns_of_unknown_origin_are_left_out(copy: Path) -> None:
    rewrite(copy / "alpha" / "models.parquet", lambda table: table.append_column("note", pa.array(["mine"])))
    assert open_catalogue(copy).models.to_arrow().schema.names == SCHEMAS["models"].names


# The copy of many files


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files are many, and their copy is made at once."""

    def start(table: str, files: Sequence[LocalFile]) -> bool:
        with suppress(OSError, ExportError, duckdb.Error):
            copying.make(table, files)
        return True

    monkeypatch.setattr(compaction, "FEW_FILES", 1)
    monkeypatch.setattr(copying, "start", start)


def direct(place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[Any, ...]]]:
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "FEW_FILES", 400)
        return {name: answer(place, name) for name in QUESTIONS}


@pytest.mark.usefixtures("few_files")
@pytest.mark.slow
def test_the_copy_gives_the_same_answers(copy: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = direct(copy, monkeypatch)
    assert not cache.exists()
    for _ in range(2):
        assert {name: answer(copy, name) for name in QUESTIONS} == wanted
    made = sorted(path.name.split(".")[1] for path in cache.glob("*.parquet"))
    assert made == ["layers", "models", "nodes", "tensors"], "one for each table that was asked"


@pytest.mark.usefixtures("few_files")
def test_the_copy_is_used(copy: Path, cache: Path) -> None:
    models_in(copy)
    (path,) = cache.glob("*.models.*.parquet")
    written = path.stat().st_mtime_ns
    plan = rows(open_catalogue(copy), "EXPLAIN SELECT model FROM models")[0][1]
    assert path.stat().st_mtime_ns == written
    assert "READ_PARQUET" in plan.upper()


@pytest.mark.slow
@pytest.mark.usefixtures("few_files")
def test_changes_are_seen_at_once(copy: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_export(copy, "gamma")
    assert models_in(copy) == ["alpha", "beta", "gamma"]
    (first,) = cache.glob("*.models.*.parquet")
    add_export(copy, "delta")
    assert models_in(copy) == ["alpha", "beta", "delta", "gamma"]
    assert first.exists(), "one more file is read besides the copy"
    shutil.rmtree(copy / "delta")
    rewrite(copy / "beta" / "models.parquet", lambda table: renamed(table, "changed"))
    assert models_in(copy) == ["alpha", "changed", "gamma"]
    (copy / "gamma" / "manifest.json").unlink()
    assert models_in(copy) == ["alpha", "changed"]
    assert len(list(cache.glob("*.models.*.parquet"))) == 1
    assert {name: answer(copy, name) for name in QUESTIONS} == direct(copy, monkeypatch)


@pytest.mark.usefixtures("few_files")
def test_too_many_changes_make_a_new_copy(copy: Path, cache: Path) -> None:
    models_in(copy)
    (first,) = cache.glob("*.models.*.parquet")
    add_export(copy, "gamma")
    add_export(copy, "delta")
    assert models_in(copy) == ["alpha", "beta", "delta", "gamma"]
    (second,) = cache.glob("*.models.*.parquet")
    assert second != first


@pytest.mark.usefixtures("few_files")
def test_a_file_of_the_same_size_that_was_written_again_is_read_again(copy: Path) -> None:
    assert models_in(copy) == NAMES
    path = copy / "beta" / "models.parquet"
    size = path.stat().st_size
    rewrite(path, lambda table: renamed(table, "bety"))
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))
    assert path.stat().st_size != size or path.stat().st_mtime_ns == 1
    assert models_in(copy) == ["alpha", "bety"]


@pytest.mark.usefixtures("few_files")
def test_a_broken_copy_is_made_again(copy: Path, cache: Path) -> None:
    models_in(copy)
    (path,) = cache.glob("*.models.*.parquet")
    path.write_bytes(b"nonsense")
    assert models_in(copy) == NAMES
    assert json.loads(pq.read_metadata(path).metadata[compaction.FILES_KEY.encode()])


@pytest.mark.usefixtures("few_files")
def test_without_a_cache_folder_the_files_are_read(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # also unwritable for root
    assert models_in(copy) == NAMES


@pytest.mark.usefixtures("few_files")
def test_older_and_newer_schemas_behind_the_copy(copy: Path) -> None:
    rewrite(copy / "alpha" / "layers.parquet", lambda table: with_version(None)(table.drop_columns(["macs"])))
    for _ in range(2):
        found = rows(open_catalogue(copy), "SELECT model, count(macs) > 0 FROM layers GROUP BY ALL ORDER BY ALL")
        assert found == [("alpha", False), ("beta", True)]
    rewrite(copy / "beta" / "layers.parquet", with_version("99"))
    with pytest.raises(UnsupportedError, match="version 99"):
        open_catalogue(copy).layers.to_arrow()


@pytest.mark.usefixtures("few_files")
def test_a_query_can_not_write_into_the_copy(copy: Path, cache: Path) -> None:
    models_in(copy)
    (path,) = cache.glob("*.models.*.parquet")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="refused"):
        rows(open_catalogue(copy), f"WITH a AS (COPY models TO '{path}' (USE_TMP_FILE false)) SELECT * FROM a")
    assert path.read_bytes() == before


@pytest.mark.usefixtures("few_files")
def test_threads_that_make_the_copy_together(copy: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: models_in(copy), range(8))) == [NAMES] * 8


def started_without_nice(command: Sequence[str], **settings: Any) -> subprocess.Popen[bytes]:
    """`python -m MODULE`, which need not wait for all others on a busy machine."""
    code = f"import os, runpy; os.nice = abs; runpy.run_module({command[-1]!r}, run_name='__main__')"
    return subprocess.Popen([command[0], "-c", code], **settings)


@pytest.mark.slow
def test_the_copy_is_made_while_nobody_waits(copy: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "FEW_FILES", 1)
    monkeypatch.setattr(
        background, "subprocess", SimpleNamespace(Popen=started_without_nice, DEVNULL=subprocess.DEVNULL)
    )
    told: list[str] = []
    with run([str(copy)], "SELECT model FROM models", tell=told.append) as result:
        assert sorted(row[0] for row in result.fetchall()) == NAMES
    assert "2 files are read" in told[0]
    deadline = time.monotonic() + 300
    while not list(cache.glob("*.models.*.parquet")):
        assert time.monotonic() < deadline, "no copy was made"
        time.sleep(0.05)
    with run([str(copy)], "SELECT model FROM models", tell=told.append) as result:
        assert sorted(row[0] for row in result.fetchall()) == NAMES
    assert len(told) == 1, "the second query had a copy"


def test_a_misspelled_table_is_told_by_the_tables_there_are(copy: Path) -> None:
    with pytest.raises(UsageError, match="layrs: is no table") as raised, run([str(copy)], "SELECT * FROM layrs"):
        pass
    assert raised.value.hint.startswith("layers; the tables are models, ")


def test_one_copy_is_made_at_a_time(copy: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = places.find([str(copy)], ["models"]).local["models"]
    with compaction.only_maker("models", files) as is_free:
        assert is_free
        assert not copying.start("models", files)
        copying.make("models", files)
    assert not list(cache.glob("*.parquet"))
    monkeypatch.setenv(background.SWITCH, "1")
    assert not copying.start("models", files)


def test_files_of_one_schema_are_read_together(copy: Path) -> None:
    add_export(copy, "gamma")
    pq.write_table(
        pq.read_table(copy / "gamma" / "models.parquet"), copy / "gamma" / "models.parquet", store_schema=False
    )
    rewrite(copy / "beta" / "models.parquet", with_version("1"))
    files = places.find([str(copy)], ["models"]).local["models"]
    with duckdb.connect() as connection:
        found = scans(connection, files)
    assert ["union_by_name" in scan for scan in found] == [False, False, True], (
        "a schema each, and one that is not said"
    )
    assert models_in(copy) == ["alpha", "beta", "gamma"]
