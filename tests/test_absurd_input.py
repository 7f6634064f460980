"""Files that claim what cannot be: each is refused in a sentence, before anything is computed from it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from exporter import plan, worker
from exporter.costs.model_costs import layer_costs
from exporter.errors import SourceError
from exporter.graph_limits import check_costs, check_graph
from exporter.records import Layer, LayerCosts, ModelGraph, TensorSpec, Weight
from exporter.sources.graphs.name_scopes import DEEPEST, node_names
from exporter.sources.graphs.operation_graph import operation_names
from exporter.sources.web.model_json import named_files, weight_files


def answer(source: Path, output: Path) -> str:
    """What is said of it; with its statistics, for which the weights are read."""
    (job,) = plan.plan([str(source)], plan.ExportOptions(formats=("parquet",), output=str(output), stats=True))
    if isinstance(job, plan.Refusal):
        assert isinstance(job.error, SourceError)
        return str(job.error)
    found = worker.carry_out(job, worker.Reporter(io.StringIO()))
    assert found.error is not None
    assert found.error["type"] == "SourceError", found.error
    assert not list(output.rglob("*.parquet"))
    return f"{found.error['what']}: {found.error['why']}"


def write_onnx(path: Path, weight: TensorProto) -> Path:
    sides = [helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", sides[:1], sides[1:], [weight])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


# What is said of external data of four numbers, by the entries that say where they are; `w.data` has 16 bytes.
PLACES: list[tuple[dict[str, str], str]] = [
    ({}, "is in no file"),
    ({"location": ""}, "is in no file"),
    ({"offset": "0"}, "is in no file"),
    ({"location": "../w.data"}, "outside of its folder"),
    ({"location": "/etc/passwd"}, "outside of its folder"),
    ({"location": "a\0b"}, "outside of its folder"),
    ({"location": "w" * 5000}, "outside of its folder"),
    ({"location": "."}, "which is no file"),
    ({"location": "pipe"}, "which is no file"),
    ({"location": "w.data", "offset": "8"}, "needs 16 bytes up to byte 24 of 16"),
    ({"location": "w.data", "offset": "-8"}, "has the size or place '-8'"),
    ({"location": "w.data", "offset": "1_0"}, "has the size or place '1_0'"),
    ({"location": "w.data", "offset": "9" * 5000}, "has the size or place '999"),
    ({"location": "w.data", "offset": str(2**63)}, "has the size or place '9223372036854775808'"),
    ({"location": "w.data", "length": "12"}, "where 12 are said to be"),
    ({"location": "w.data", "length": "abc"}, "has the size or place 'abc'"),
]


@pytest.mark.parametrize(("place", "why"), PLACES)
def test_external_data_of_onnx(place: Mapping[str, str], why: str, tmp_path: Path) -> None:
    (tmp_path / "w.data").write_bytes(bytes(16))
    os.mkfifo(tmp_path / "pipe")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in place.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    assert why in answer(write_onnx(tmp_path / "m.onnx", weight), tmp_path / "out")


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT4])
@pytest.mark.parametrize(
    ("dims", "why"),
    [
        ([-4], "has the shape [-4]"),
        ([2**62, 4], "larger than any memory"),
        ([0, 2**62, 2**62], "larger than any memory"),
        ([1] * 65, "65 axes"),
    ],
)
def test_shapes_of_initializers(dims: list[int], why: str, dtype: int, tmp_path: Path) -> None:
    weight = TensorProto(name="w", data_type=dtype, dims=dims, raw_data=bytes(16))
    assert why in answer(write_onnx(tmp_path / "m.onnx", weight), tmp_path / "out")


@pytest.mark.parametrize(
    ("values", "dims", "why"),
    [
        ({"raw_data": bytes(12)}, [4], "has 12 bytes: not 16"),
        ({"float_data": [1.0]}, [2**40], "too few"),
        ({}, [2**40], "cannot reshape"),
    ],
)
def test_initializers_with_too_little(values: Mapping[str, Any], dims: list[int], why: str, tmp_path: Path) -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, **values)
    assert why in answer(write_onnx(tmp_path / "m.onnx", weight), tmp_path / "out")


def test_numbers_that_are_not_all_there(tmp_path: Path) -> None:
    """Their fields would have to be parsed to know; that is done when they are read."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], float_data=[1.0, 2.0])
    assert "cannot reshape" in answer(write_onnx(tmp_path / "m.onnx", weight), tmp_path / "out")


MANIFESTS: list[tuple[Any, str]] = [
    (5, "something else than lists"),
    ([{"paths": 5}], "something else than lists"),
    ([{"paths": "abc"}], "something else than lists"),
    ([{"paths": [["a"]]}], "something else than lists"),
    ([{"paths": ["a\ud800"]}], "which is not in its folder"),
    ([{"paths": ["a" * 5000]}], "which is not in its folder"),
    ([{"paths": ["a/../../b"]}], "which is not in its folder"),
    ([{"paths": ["pipe"]}], "pipe is no file"),
    ([{"paths": ["."]}], "which is not in its folder"),
]


@pytest.mark.parametrize(("manifest", "why"), MANIFESTS)
def test_manifests_of_tensorflow_js(manifest: Any, why: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"modelTopology": {}, "weightsManifest": manifest}))
    with pytest.raises(SourceError, match=why):
        weight_files(str(path))
    if "lists" in why:
        with pytest.raises(SourceError, match=why):
            named_files(str(path))


@pytest.mark.parametrize("name", ["x" * 5000 + ".safetensors", "\ud800.safetensors", "../x.safetensors"])
def test_shards_of_names_that_no_file_has(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": name}}))
    assert "is not in its folder" in answer(path, tmp_path / "out")


@pytest.mark.parametrize("name", ["a." * 500_000, "\\ud800"])
def test_names_of_tensors_that_are_none(name: str, tmp_path: Path) -> None:
    header = f'{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}'.encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "name" in answer(tmp_path / "m.safetensors", tmp_path / "out")


def test_a_pipe_beside_the_model_is_not_read(tmp_path: Path) -> None:
    """Reading it would have no end, and that in the process that plans."""
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m.ckpt"\n')
    (tmp_path / "m.ckpt.index").write_bytes(bytes(48))
    os.mkfifo(tmp_path / "m.ckpt.data-00000-of-00001")
    assert "it is not a file" in answer(tmp_path, tmp_path / "out")


def operation_name(name: str) -> list[str]:
    """One that is alone in its scopes would get the name of the outermost."""
    return operation_names([name, f"{name}-2"])[:1]


@pytest.mark.parametrize("named", [lambda name: node_names([(name, "Relu")]), operation_name])
def test_names_become_so_many_scopes_at_most(named: Callable[[str], list[str]]) -> None:
    (found,) = named("/".join(map(str, range(5000))))
    assert found.count("/") == DEEPEST - 1
    assert found.endswith("62/" + ".".join(map(str, range(63, 5000))))
    assert named("a//b/c") == ["a/b/c"]


# What a description cannot be, whoever made it ---------------------------------------------------------------------


def layer(**settings: Any) -> Layer:
    spec = TensorSpec("x", settings.pop("shape", (None, 4)), settings.pop("dtype", "float32"))
    known: dict[str, Any] = {
        "index": 0, "name": "a", "class_name": "ReLU", "namespace": "a", "depth": 0, "parent": None, "trainable": True,
        "inputs": (spec,), "outputs": (spec,), "params": 0, "params_trainable": 0, "params_total": 0,
        "weight_bytes": 0, "calls": 1, "connected_to": (), "config": "{}",
    }  # fmt: skip
    return Layer(**known | settings)


def described(*layers: Layer, weights: tuple[Weight, ...] = ()) -> ModelGraph:
    spec = TensorSpec("x", (None, 4), "float32")
    return ModelGraph("m", (spec,), (spec,), layers, (), weights)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"shape": (None, [4])}, r"the shape \[None, \[4\]\]"),
        ({"shape": (None, 4.0)}, "the shape"),
        ({"shape": (None, -4)}, "the shape"),
        ({"shape": (2**31, 2**31)}, "larger than any memory"),
        ({"shape": (1,) * 100}, "100 axes"),
        ({"dtype": 5}, "has the type 5"),
        ({"namespace": "n" * 5000}, "5,000 characters"),
        ({"class_name": "\ud800"}, "is no text"),
    ],
)
def test_descriptions_that_cannot_be(settings: dict[str, Any], why: str) -> None:
    check_graph(described(layer()), "m")
    with pytest.raises(SourceError, match=why):
        check_graph(described(layer(**settings)), "m")


def test_weights_of_more_bytes_than_there_are() -> None:
    weight = Weight("w", "a", (2**58,), "float32", 2**60, True)
    check_graph(described(layer(), weights=(weight,) * 7), "m")
    with pytest.raises(SourceError, match="its weights would have"):
        check_graph(described(layer(), weights=(weight,) * 8), "m")


def test_work_that_cannot_be_counted() -> None:
    costs = LayerCosts({}, 1, 128, 0, 2**63, 2**64, None)
    with pytest.raises(SourceError, match="operations or bytes"):
        check_costs(costs, (), "m")


@pytest.mark.parametrize("strides", [[0], "x", [[]], {}])
def test_settings_of_no_layer_cost_what_nobody_knows(strides: Any) -> None:
    config = json.dumps({"kernel_size": [3], "strides": strides, "padding": "valid"})
    inner = layer(class_name="Conv1D", shape=(None, None, 4), config=config)
    graph = described(inner)
    assert layer_costs(graph, None).layers["a"].macs is None


def test_a_layer_without_its_inputs_costs_what_nobody_knows() -> None:
    graph = described(layer(class_name="TRANSPOSE_CONV", inputs=()))
    assert layer_costs(dataclasses.replace(graph, level="scope"), None).layers["a"].macs is None
