"""ONNX files as sources: what the tables say is what onnx itself reads in the file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_chain
import pyarrow.parquet as pq
import pytest
from exporting import export_here, job_for
from models import MODELS
from onnx import TensorProto, helper, numpy_helper
from sampling import sampled

from exporter import cli
from exporter.errors import ExportError, SourceError, UsageError
from exporter.readers.onnx_file import read
from exporter.sources.detection import detect
from exporter.sources.detection.kinds import ONNX_FILE
from exporter.sources.graphs.name_scopes import below, layers_of, node_names, outer_scopes


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / f"{table}.parquet").to_pylist()
    return found


def described(path: Path) -> Any:
    return read(job_for(path, path.parent, formats=("parquet",)), str(path.parent))


def a_model(nodes: list[Any], initializers: list[Any] | None = None, **named: Any) -> Any:
    """One input `x` and one output `y`, both float32 of `[batch, 4]` unless said otherwise."""
    x = named.pop("x", helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4]))
    y = named.pop("y", helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4]))
    graph = helper.make_graph(nodes, "net", [x], [y], initializers or [], **named)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def scoped() -> Any:
    """A residual block as PyTorch's exporter names it, and a node without a name."""
    weight = numpy_helper.from_array(np.arange(16, dtype=np.float32).reshape(4, 4), "fc.weight")
    unused = numpy_helper.from_array(np.ones(3, np.int64), "unused")
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["a"], name="/block/fc/MatMul"),
        helper.make_node("Relu", ["a"], ["b"], name="/block/fc/Relu"),
        helper.make_node("Add", ["b", "x"], ["c"], name="/block/Add"),
        helper.make_node("Softmax", ["c"], ["y"], axis=1),
    ]
    return a_model(nodes, [weight, unused])


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(scoped(), path)
    return path


def test_scopes_become_layers(net: Path) -> None:
    graph = described(net).graph
    table = {
        layer.namespace: (layer.class_name, layer.parent, layer.params, layer.params_total) for layer in graph.layers
    }
    assert table == {
        "x": ("InputLayer", None, 0, 0),
        "block": ("Scope", None, 0, 16),
        "block/fc": ("MatMul+Relu", "block", 16, 16),
        "block/Add": ("Add", "block", 0, 0),
        "Softmax": ("Softmax", None, 0, 0),
        "": ("Scope", None, 3, 3),
    }
    edges = {(edge.source, edge.source_output, edge.target, edge.target_input, edge.shape) for edge in graph.edges}
    assert edges == {
        ("x", 0, "block", 0, (None, 4)),
        ("block/fc", 0, "block/Add", 0, (None, 4)),
        ("block", 0, "Softmax", 0, (None, 4)),
    }
    assert [spec.name for spec in graph.inputs + graph.outputs] == ["x", "y"]
    assert [layer.index for layer in graph.layers] == list(range(6))


@pytest.mark.slow
def test_operations_are_counted(net: Path, tmp_path: Path) -> None:
    export_here(net, tmp_path / "out", formats=("parquet",), batch_size=3)
    (model,) = rows(tmp_path / "out" / "net", "models")
    assert (model["macs"], model["opset"], model["kind"], model["verification"]) == (3 * 16, 18, "onnx_file", "none")
    assert model["weights_by_dtype"] == [
        {"dtype": "float32", "params": 16, "nbytes": 64},
        {"dtype": "int64", "params": 3, "nbytes": 24},
    ]
    (tensor, _) = rows(tmp_path / "out" / "net", "tensors")
    assert (tensor["layer"], tensor["initializer"], tensor["transform"]) == ("block/fc", "fc.weight", "none")


@pytest.mark.parametrize("name", ["residual", "norm_after_add", "shared_conv"])
@pytest.mark.slow
def test_a_file_of_ours_gives_the_table_of_nodes_that_its_export_wrote(name: str, tmp_path: Path) -> None:
    MODELS[name]().save(tmp_path / "m.keras")
    export_here(tmp_path / "m.keras", tmp_path / "out", formats=("onnx", "parquet"), verify=False)
    (tmp_path / "out" / "m" / "model.onnx").rename(tmp_path / "m.onnx")
    export_here(tmp_path / "m.onnx", tmp_path / "again", formats=("parquet",))
    ours, again = (rows(tmp_path / way / "m", "nodes") for way in ("out", "again"))
    for row in ours + again:
        del row["match_kind"], row["namespace"]
    assert again == ours
    weights = {each["initializer"] for each in rows(tmp_path / "out" / "m", "tensors")}
    assert weights <= {each["tensor"] for each in rows(tmp_path / "again" / "m", "tensors")}


def stored(kind: str, array: np.ndarray, folder: Path) -> Any:
    """The array as an initializer `w`: raw, in a field of numbers, or in a file of its own."""
    if kind == "typed":
        data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        return helper.make_tensor("w", data_type, array.shape, array.reshape(-1).tolist())
    proto = numpy_helper.from_array(array, "w")
    if kind == "external":
        (folder / "w.bin").write_bytes(b"before" + proto.raw_data)
        proto.ClearField("raw_data")
        proto.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "w.bin"), ("offset", "6"), ("length", str(array.nbytes))):
            proto.external_data.add(key=key, value=value)
    return proto


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raw", "typed", "external"])
@pytest.mark.parametrize("dtype", sampled([np.float32, np.float64, np.int64, np.uint8, np.float16], every=5))
def test_statistics_are_those_of_the_numbers(kind: str, dtype: type, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 9, (4, 5)).astype(dtype)
    node = helper.make_node("Cast", ["w"], ["z"], to=1)
    model = a_model([node, helper.make_node("Identity", ["x"], ["y"])], [stored(kind, array, tmp_path)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    export_here(tmp_path / "m.onnx", tmp_path / "out", formats=("parquet",), stats=True)
    (row,) = rows(tmp_path / "out" / "m", "tensors")
    assert (row["shape"], row["dtype"], row["nbytes"]) == ([4, 5], np.dtype(dtype).name, array.nbytes)
    assert (row["min"], row["max"], row["zeros"]) == (array.min(), array.max(), int((array == 0).sum()))
    assert row["mean"] == pytest.approx(array.astype(float).mean())
    assert (row["data_file"], row["data_offset"]) == (("w.bin", 6) if kind == "external" else (None, None))


@pytest.mark.slow
@pytest.mark.parametrize("data_type", [TensorProto.INT4, TensorProto.UINT4, TensorProto.BFLOAT16])
def test_packed_and_unusual_types(data_type: int, tmp_path: Path) -> None:
    weight = helper.make_tensor("w", data_type, (5,), [0, 1, 2, 3, 4])
    model = a_model([helper.make_node("Identity", ["x"], ["y"])], [weight])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    export_here(tmp_path / "m.onnx", tmp_path / "out", formats=("parquet",), stats=True)
    (row,) = rows(tmp_path / "out" / "m", "tensors")
    assert row["nbytes"] == (10 if data_type == TensorProto.BFLOAT16 else 3)
    assert (row["min"], row["max"]) == (0, 4)


@pytest.mark.slow
def test_weights_that_are_not_there_are_named_and_not_needed(net: Path, tmp_path: Path) -> None:
    model = scoped()
    model.graph.initializer[0].CopyFrom(stored("external", np.zeros((4, 4), np.float32), tmp_path))
    model.graph.initializer[0].name = "fc.weight"
    net.write_bytes(model.SerializeToString())
    (tmp_path / "w.bin").unlink()
    outcome = export_here(net, tmp_path / "out", formats=("parquet", "svg"))
    assert outcome.status == "done"
    assert any("w.bin" in note for note in outcome.notes)
    with_statistics = export_here(net, tmp_path / "stats", formats=("parquet",), stats=True)
    assert with_statistics.error is not None
    assert "w.bin" in str(with_statistics.error["where"])


def test_no_other_folder_is_read(net: Path, tmp_path: Path) -> None:
    model = scoped()
    proto = model.graph.initializer[0]
    proto.ClearField("raw_data")
    proto.data_location = TensorProto.EXTERNAL
    proto.external_data.add(key="location", value="../secret")
    net.write_bytes(model.SerializeToString())
    with pytest.raises(SourceError, match="outside of its folder"):
        described(net)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def not_text(data: bytes) -> bytes:
    return data.replace(b"/block/fc/Relu", b"\xff" * 14)


@pytest.mark.parametrize("spoil", [cut, not_text, lambda data: data[:7] + b"\xff" + data[8:]])
def test_damage_is_an_error_of_ours(spoil: Callable[[bytes], bytes], net: Path, tmp_path: Path) -> None:
    net.write_bytes(spoil(net.read_bytes()))
    with pytest.raises(ExportError):
        described(net)


@pytest.mark.slow
def test_random_damage_is_never_a_defect(net: Path, tmp_path: Path) -> None:
    data, dice = net.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        spoilt = bytearray(data)
        for _ in range(dice.integers(1, 4)):
            spoilt[dice.integers(len(data))] = dice.integers(256)
        net.write_bytes(spoilt)
        try:
            outcome = export_here(net, tmp_path / "out", formats=("parquet",))
        except ExportError:
            continue
        assert outcome.error is None or outcome.error["type"] != "InternalError", outcome.error


@pytest.mark.slow
def test_it_is_found_by_its_content(net: Path, tmp_path: Path) -> None:
    other = net.rename(tmp_path / "weights.bin")
    assert detect(str(other)).kind == ONNX_FILE
    (tmp_path / "no.onnx").write_bytes(b"\x08\xff\x01" * 200_000)
    with pytest.raises(SourceError, match="has the name of an ONNX file"):
        detect(str(tmp_path / "no.onnx"))


def test_it_is_not_converted_again(net: Path) -> None:
    with pytest.raises(UsageError, match="it is an ONNX file"):
        job_for(net, net.parent)


@pytest.mark.slow
def test_inspect_and_pictures(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(net), "--format", "csv", "-q"]) == 0
    assert "block/fc,MatMul+Relu" in capsys.readouterr().out


def test_layers_of_names() -> None:
    names = node_names(
        [("/a/b/Conv", "Conv"), ("/a/Add", "Add"), ("", "Relu"), ("", "Relu"), ("a", "Mul"), ("d/e", "X")]
    )
    assert names == ["a/b/Conv", "a/Add", "Relu", "Relu_1", "a", "d/e"]
    assert layers_of(names) == ["a/b", "a/Add", "Relu", "Relu_1", "a/node", "d"]
    assert outer_scopes("a/b/c") == ("a", "a/b")
    assert below("a/b/c/d", "a/x") == ("a/b", "a/b/c")
    assert below("a/b", "a/c") == ()


@pytest.mark.slow
def test_a_large_graph_is_described_in_proportion(tmp_path: Path) -> None:
    """Numbers of rows follow from how the chain is made; onnx's own checker accepts the file."""
    path = tmp_path / "chain.onnx"
    onnx_chain.write(path, 5_000)
    onnx.checker.check_model(path, full_check=True)
    found = described(path)
    assert len(found.nodes) == 5_000
    assert sum(layer.class_name == "Scope" for layer in found.graph.layers) == 1 + 1_000
    assert {node.layer for node in found.nodes} <= {layer.namespace for layer in found.graph.layers}
    assert found.costs.macs == 2 * 1_000 * math.prod((8, 8))


@pytest.mark.slow
def test_more_nodes_than_shapes_are_inferred_for(tmp_path: Path) -> None:
    path = tmp_path / "chain.onnx"
    onnx_chain.write(path, 101_000)
    outcome = export_here(path, tmp_path / "out", formats=("parquet",))
    assert outcome.status == "done"
    assert any("costs, are unknown" in note for note in outcome.notes)
    (model,) = rows(tmp_path / "out" / "chain", "models")
    assert (model["nodes"], model["macs"], model["params"]) == (101_000, None, 64)
