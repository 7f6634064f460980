"""The Parquet catalogue: fixed schemas, unknown against zero, whole or absent, a stream of row groups."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporter.errors import OutputError
from exporter.formats import FORMATS, layer_table, model_table
from exporter.formats.layer_table import ROW_GROUP_ROWS, TABLES, write, write_table
from exporter.records import (
    Edge,
    Job,
    Layer,
    Material,
    ModelGraph,
    OnnxNode,
    OutputDifference,
    StoredTensor,
    TensorSpec,
    Verification,
    Weight,
)
from exporter.schema import SCHEMAS

IMAGE = TensorSpec("image", (None, 8, 8, 3), "float32")
FEATURES = TensorSpec("conv", (None, 6, 6, 4), "float32")

# The promise to readers: a change here is a new schema version.
GOLDEN = {
    "models": """
        model: string not null
        name: string not null
        source: string not null
        kind: string not null
        source_digest: string not null
        weights: string not null
        level: string
        opset: int64
        layers: int64 not null
        tensors: int64 not null
        edges: int64 not null
        nodes: int64
        nodes_with_layer: int64
        params: int64 not null
        params_trainable: int64 not null
        weight_bytes: int64 not null
        weights_by_dtype: list<element: struct<dtype: string, params: int64, nbytes: int64>> not null
        cost_batch_size: int64 not null
        cost_dimension: int64 not null
        layers_without_cost: int64 not null
        macs: int64
        flops: int64
        peak_activation_bytes: int64
        verification: string not null
        verification_reason: string
        max_abs_difference: double
        export_model_version: string not null
        tensorflow_version: string
        keras_version: string
        tf2onnx_version: string
        onnx_version: string
    """,
    "layers": """
        model: string not null
        index: int64 not null
        layer: string not null
        name: string not null
        class: string not null
        level: string
        depth: int64 not null
        parent: string
        trainable: bool not null
        input_shapes: list<element: list<element: int64>>
        output_shapes: list<element: list<element: int64>>
        input_dtypes: list<element: string>
        output_dtypes: list<element: string>
        params: int64 not null
        params_trainable: int64 not null
        params_total: int64 not null
        weight_bytes: int64 not null
        calls: int64 not null
        connected_to: list<element: string> not null
        macs: int64
        flops: int64
        activation_bytes: int64
        arithmetic_intensity: double
        cost_method: string
        config: string not null
        onnx_nodes: list<element: string>
    """,
    "tensors": """
        model: string not null
        layer: string not null
        tensor: string not null
        shape: list<element: int64> not null
        dtype: string not null
        nbytes: int64 not null
        trainable: bool not null
        initializer: string
        transform: string
        stored_dtype: string
        data_file: string
        data_offset: int64
        data_nbytes: int64
        initializers: list<element: string>
        min: double
        max: double
        mean: double
        std: double
        l2_norm: double
        zeros: int64
        near_zeros: int64
        nans: int64
        infs: int64
        dead_filters: int64
        distinct: int64
        quantiles: list<element: double>
        histogram_edges: list<element: double>
        histogram_counts: list<element: int64>
        sha256: string
    """,
    "edges": """
        model: string not null
        source: string not null
        source_call: int64 not null
        source_output: int64 not null
        target: string not null
        target_call: int64 not null
        target_input: int64 not null
        shape: list<element: int64>
        dtype: string
    """,
    "nodes": """
        model: string not null
        index: int64 not null
        node: string not null
        op_type: string not null
        domain: string not null
        namespace: string not null
        layer: string
        match_kind: string not null
        inputs: list<element: string> not null
        outputs: list<element: string> not null
        output_shapes: list<element: list<element: int64>> not null
        output_dtypes: list<element: string> not null
        macs: int64
        flops: int64
        activation_bytes: int64
        cost_method: string
    """,
}


def a_layer(index: int, name: str, **changes: Any) -> Layer:
    layer = Layer(
        index,
        name,
        "Conv2D",
        name,
        0,
        None,
        True,
        (IMAGE,),
        (FEATURES,),
        112,
        112,
        112,
        448,
        1,
        ("image",),
        '{"filters":4}',
    )
    return replace(layer, **changes)


def a_node(index: int, name: str, layer: str | None) -> OnnxNode:
    kind = "none" if layer is None else "recorded"
    return OnnxNode(index, name, "Conv", "", f"net/{name}", layer, kind, ("x", ""), ("y",), (None,), (None,))


def a_material(**changes: Any) -> Material:
    job = Job("conv.keras", "keras_archive", "net", "outputs/net", ("parquet",), "f", "d")
    graph = ModelGraph(
        name="net",
        inputs=(IMAGE,),
        outputs=(FEATURES,),
        layers=(
            a_layer(0, "image", class_name="InputLayer", inputs=(), outputs=(IMAGE,), params=0, connected_to=()),
            a_layer(1, "conv"),
            a_layer(2, "inner", inputs=None, outputs=None, depth=1, parent="conv", namespace="conv/inner", calls=0),
            a_layer(3, "rankless", inputs=(TensorSpec("x", None, None),)),
        ),
        edges=(
            Edge("image", 0, 0, "conv", 0, 0, (None, 8, 8, 3), "float32"),
            Edge("conv", 0, 1, "rankless", 2, 3, None, None),
        ),
        weights=(
            Weight("conv/kernel", "conv", (3, 3, 3, 4), "float32", 432, True),
            Weight("conv/bias", "conv", (4,), "bfloat16", 8, True),
            Weight("conv/unused", "conv", (), "int8", 1, False),
        ),
    )
    stored = (
        StoredTensor("conv/kernel", "folded_bias", "folded", "float32", "model.onnx.data", 4096, 16),
        StoredTensor("conv/kernel", "kernel", "layout", "float32", "model.onnx.data", 0, 432),
        StoredTensor("conv/bias", "folded_bias", "folded", "float32", None, None, 16),
    )
    nodes = (a_node(0, "n0", "conv"), a_node(1, "n1", None), a_node(2, "n2", "conv"))
    return replace(Material(job, graph, nodes, stored), **changes)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize("table", GOLDEN)
def test_the_schema_is_fixed(table: str, tmp_path: Path) -> None:
    write(a_material(), tmp_path)
    model_table.write(a_material(), tmp_path)
    schema = pq.read_schema(tmp_path / f"{table}.parquet")
    lines = [line.strip() for line in GOLDEN[table].strip().splitlines()]
    assert [f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema] == lines
    assert schema.metadata[b"export_model.schema_version"] == b"2"
    assert schema.metadata[b"export_model.table"] == table.encode()
    assert all(field.metadata[b"description"] for field in schema)
    assert schema.equals(SCHEMAS[table])


def test_the_files_are_those_that_the_registry_promises(tmp_path: Path) -> None:
    assert write(a_material(), tmp_path) == ()
    model_table.write(a_material(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FORMATS["parquet"].files)


def test_layers(tmp_path: Path) -> None:
    write(a_material(), tmp_path)
    image, conv, inner, rankless = rows_of(tmp_path / "layers.parquet")
    expected = {
        "model": "net",
        "index": 1,
        "layer": "conv",
        "name": "conv",
        "class": "Conv2D",
        "depth": 0,
        "parent": None,
        "trainable": True,
        "input_shapes": [[None, 8, 8, 3]],
        "output_shapes": [[None, 6, 6, 4]],
        "input_dtypes": ["float32"],
        "output_dtypes": ["float32"],
        "params": 112,
        "params_trainable": 112,
        "params_total": 112,
        "weight_bytes": 448,
        "calls": 1,
        "connected_to": ["image"],
        "config": '{"filters":4}',
        "onnx_nodes": ["n0", "n2"],
    }
    assert {column: conv[column] for column in expected} == expected
    assert (image["input_shapes"], image["input_dtypes"], image["params"], image["onnx_nodes"]) == ([], [], 0, [])
    assert (inner["input_shapes"], inner["output_dtypes"], inner["parent"]) == (None, None, "conv")
    assert (rankless["input_shapes"], rankless["input_dtypes"]) == ([None], [None])
    assert json.loads(conv["config"]) == {"filters": 4}


def test_models(tmp_path: Path) -> None:
    differences = tuple(OutputDifference(name, (1,), size, size, 1.0) for name, size in (("a", 1e-7), ("b", 3e-7)))
    checked = Verification("passed", outputs=differences)
    model_table.write(a_material(source="net.keras", versions={"keras": "3"}, verification=checked), tmp_path)
    (row,) = rows_of(tmp_path / "models.parquet")
    assert (row["model"], row["source"], row["keras_version"], row["onnx_version"]) == ("net", "net.keras", "3", None)
    assert (row["layers"], row["edges"], row["nodes"], row["nodes_with_layer"]) == (4, 2, 3, 2)
    assert row["weights_by_dtype"] == [
        {"dtype": "bfloat16", "params": 4, "nbytes": 8},
        {"dtype": "float32", "params": 108, "nbytes": 432},
        {"dtype": "int8", "params": 1, "nbytes": 1},
    ]
    assert (row["verification"], row["verification_reason"], row["max_abs_difference"]) == ("passed", None, 3e-7)
    model_table.write(a_material(nodes=None, stored=None), tmp_path)
    (row,) = rows_of(tmp_path / "models.parquet")
    assert (row["opset"], row["nodes"], row["nodes_with_layer"], row["verification"]) == (None, None, None, "none")


def test_tensors_show_the_least_changed_place_and_list_all(tmp_path: Path) -> None:
    write(a_material(), tmp_path)
    columns = (
        "tensor",
        "shape",
        "initializer",
        "transform",
        "stored_dtype",
        "data_file",
        "data_offset",
        "data_nbytes",
        "initializers",
    )
    assert [tuple(row[column] for column in columns) for row in rows_of(tmp_path / "tensors.parquet")] == [
        (
            "conv/kernel",
            [3, 3, 3, 4],
            "kernel",
            "layout",
            "float32",
            "model.onnx.data",
            0,
            432,
            ["folded_bias", "kernel"],
        ),
        ("conv/bias", [4], "folded_bias", "folded", "float32", None, None, 16, ["folded_bias"]),
        ("conv/unused", [], None, None, None, None, None, None, []),
    ]


def test_edges_and_nodes(tmp_path: Path) -> None:
    material = a_material()
    write(material, tmp_path)
    first, second = rows_of(tmp_path / "edges.parquet")
    assert first == {"model": "net", **asdict(material.graph.edges[0]), "shape": [None, 8, 8, 3]}
    assert (second["source_output"], second["target_call"], second["shape"], second["dtype"]) == (1, 2, None, None)
    nodes = rows_of(tmp_path / "nodes.parquet")
    assert [(row["node"], row["layer"], row["match_kind"]) for row in nodes] == [
        ("n0", "conv", "recorded"),
        ("n1", None, "none"),
        ("n2", "conv", "recorded"),
    ]
    assert (nodes[0]["inputs"], nodes[0]["output_shapes"], nodes[0]["output_dtypes"]) == (["x", ""], [None], [None])


def test_without_an_onnx_graph_its_columns_are_unknown(tmp_path: Path) -> None:
    write(a_material(nodes=None, stored=None), tmp_path)
    assert not (tmp_path / "nodes.parquet").exists()
    assert {row["onnx_nodes"] for row in rows_of(tmp_path / "layers.parquet")} == {None}
    assert {row["initializers"] for row in rows_of(tmp_path / "tensors.parquet")} == {None}


def test_an_empty_model_has_empty_tables_with_the_same_schema(tmp_path: Path) -> None:
    write(a_material(graph=ModelGraph("empty", (), (), (), (), ()), nodes=()), tmp_path)
    for table, (schema, _) in TABLES.items():
        path = tmp_path / f"{table}.parquet"
        assert (pq.read_table(path).num_rows, pq.read_schema(path).equals(schema)) == (0, True)
        assert duckdb.sql(f"select count(*) from '{path}'").fetchall() == [(0,)]


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        write(a_material(), tmp_path / run)
    for table in TABLES:
        first, second = ((tmp_path / run / f"{table}.parquet").read_bytes() for run in ("first", "second"))
        assert first == second


def broken_rows() -> Iterator[dict[str, Any]]:
    yield from [{"model": "net", **asdict(a_material().graph.edges[0])}] * (ROW_GROUP_ROWS + 1)
    raise RuntimeError("the source broke off")


def test_an_exception_leaves_the_old_file_or_none(tmp_path: Path) -> None:
    path = tmp_path / "edges.parquet"
    with pytest.raises(RuntimeError, match="broke off"):
        write_table(path, layer_table.EDGES, broken_rows())
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"the old table")
    with pytest.raises(RuntimeError, match="broke off"):
        write_table(path, layer_table.EDGES, broken_rows())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the old table"]


def test_an_unknown_in_a_column_of_known_values_is_refused(tmp_path: Path) -> None:
    graph = a_material().graph
    broken = replace(graph, layers=(replace(graph.layers[0], config=None),))  # type: ignore[arg-type]
    with pytest.raises(pa.ArrowInvalid, match="config"):
        write(a_material(graph=broken), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"layers\.parquet"):
        write(a_material(), tmp_path / "missing")


@pytest.mark.slow
def test_many_rows_are_a_stream_of_row_groups(tmp_path: Path) -> None:
    """50,000 layers with 2 KB of config each: 100 MB of text, of which one row group at a time is in memory."""
    count = 50_000

    def rows() -> Iterator[dict[str, Any]]:
        row = next(TABLES["layers"][1](a_material()))
        return ({**row, "index": index, "config": f"{index:2000}"} for index in range(count))

    path = tmp_path / "layers.parquet"
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    write_table(path, layer_table.LAYERS, rows())
    python_peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert python_peak_bytes < 2.5 * ROW_GROUP_ROWS * 2000
    assert pa.total_allocated_bytes() - before < 1_000_000
    file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert sizes == [ROW_GROUP_ROWS] * 6 + [count - 6 * ROW_GROUP_ROWS]
    assert pq.read_table(path, columns=["index"])["index"].to_pylist() == list(range(count))


def test_pandas_and_duckdb_read_the_tables(tmp_path: Path) -> None:
    write(a_material(), tmp_path)
    layers = pd.read_parquet(tmp_path / "layers.parquet")
    assert layers["params"].sum() == 336
    assert list(layers.loc[1, "connected_to"]) == ["image"]
    found = duckdb.sql(f"""
        select l.class, sum(t.nbytes)::bigint, any_value(l.output_shapes[1][4]), any_value(l.config ->> 'filters')
        from '{tmp_path}/layers.parquet' l join '{tmp_path}/tensors.parquet' t on t.layer = l.layer group by all
    """).fetchall()
    assert found == [("Conv2D", 441, 4, "4")]
    assert duckdb.sql(f"select node from '{tmp_path}/nodes.parquet' where layer is null").fetchall() == [("n1",)]
