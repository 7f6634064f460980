"""Models of TensorFlow.js: read without TensorFlow, converted, and compared with what TensorFlow makes of them."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import web_files
from exporting import command, export_here, job_for, manifest
from web_files import fused, graph_of, normal, write_graph

from exporter.errors import ExportError, SourceError, UsageError
from exporter.readers.described import DescribedModel
from exporter.readers.tfjs_graph import read
from exporter.sources.detection import detect, files_of
from exporter.sources.web.model_json import read_model_json
from exporter.sources.web.web_values import lazy_values

QUANTISED = {"net/conv/kernel": "uint8", "net/conv/bias": "uint16", "net/head/kernel": "float16"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """In files of 300 bytes, so that a weight lies in several."""
    return write_graph(tmp_path / "image", graph_of(web_files.image), shard_nbytes=300)


def described(path: Path, **options: Any) -> DescribedModel:
    return read(job_for(path, path.parent, formats=("parquet",), stats=True, **options), "")


def computed(path: Path, folder: Path, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime makes of the export."""
    outcome = export_here(path, folder, formats=("onnx", "parquet"))
    assert outcome.error is None
    assert outcome.verification is not None
    assert outcome.verification.status == "passed"
    session = onnxruntime.InferenceSession(str(folder / outcome.name / "model.onnx"))
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return found


def test_the_rows_are_the_operations_with_their_weights(image: Path) -> None:
    graph = described(image).graph
    rows = {layer.namespace: (layer.class_name, layer.params, layer.connected_to) for layer in graph.layers}
    assert rows == {
        "x": ("InputLayer", 0, ()),
        "net": ("Scope", 0, ("x",)),
        "net/conv": ("Scope", 0, ()),
        "net/conv/Conv2D": ("Conv2D", 216, ()),
        "net/conv/BiasAdd": ("BiasAdd", 8, ("net/conv/Conv2D",)),
        "net/conv/Relu": ("Relu", 0, ("net/conv/BiasAdd",)),
        "net/pool": ("Mean", 2, ("net/conv",)),
        "net/head": ("MatMul", 32, ("net/pool",)),
    }
    assert graph.level == "operation"
    assert [(spec.name, spec.shape, spec.dtype) for spec in graph.inputs] == [("x", (None, 6, 6, 3), "float32")]
    assert [spec.name for spec in graph.outputs] == ["net/head/MatMul"]
    conv = json.loads(next(layer.config for layer in graph.layers if layer.class_name == "Conv2D"))
    assert (conv["padding"], conv["strides"]) == ("SAME", [1, 1, 1, 1])


def test_weights_come_from_several_files(image: Path) -> None:
    values = lazy_values(read_model_json(str(image)))
    assert len(files_of(detect(str(image)))) == 5
    np.testing.assert_array_equal(values["net/conv/kernel"].real(), normal(3, 3, 3, 8))
    pieces = list(values["net/conv/kernel"].pieces(64))
    np.testing.assert_array_equal(np.concatenate(pieces), normal(3, 3, 3, 8).reshape(-1))
    assert {name: value.dtype.name for name, value in values.items()} == {
        "net/conv/kernel": "float32",
        "net/conv/bias": "float32",
        "net/pool/axes": "int32",
        "net/head/kernel": "float32",
    }


def test_quantised_weights_are_expanded(tmp_path: Path) -> None:
    """To what they were, but for half a step, by the formula of TensorFlow.js: stored × scale + min."""
    path = write_graph(tmp_path / "m", graph_of(web_files.image), quantised=QUANTISED)
    values = lazy_values(read_model_json(str(path)))
    entries = {entry["name"]: entry for entry in json.loads(path.read_text())["weightsManifest"][0]["weights"]}
    for name, original in (("net/conv/kernel", normal(3, 3, 3, 8)), ("net/conv/bias", normal(8))):
        step = entries[name]["quantization"]["scale"]
        assert values[name].is_divisible
        np.testing.assert_allclose(values[name].real(), original, atol=step / 2 + 1e-6)
        assert np.abs(values[name].real() - original).max() > step / 100
        np.testing.assert_array_equal(np.concatenate(list(values[name].pieces(16))), values[name].real().reshape(-1))
    half = normal(8, 4, seed=2).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(values["net/head/kernel"].real(), half)


@pytest.mark.slow
def test_a_graph_computes_what_tensorflow_computes(image: Path, tmp_path: Path) -> None:
    x = normal(2, 6, 6, 3, seed=5)
    expected = web_files.run(graph_of(web_files.image), {"x:0": x}, "net/head/MatMul:0")
    np.testing.assert_allclose(computed(image, tmp_path / "out", x), expected, rtol=1e-4, atol=1e-5)


IMAGE = (2, 5, 5, 3)
# TensorFlow runs these as they are.
NATIVE = {
    "bias": fused("_FusedConv2D", ["BiasAdd"], [normal(3, 3, 3, 4), normal(4)]),
    "relu6": fused("_FusedConv2D", ["BiasAdd", "Relu6"], [normal(3, 3, 3, 4), normal(4)]),
    "leaky": fused("_FusedConv2D", ["BiasAdd", "LeakyRelu"], [normal(3, 3, 3, 4), normal(4)], leakyrelu_alpha=0.3),
    "norm": fused("_FusedConv2D", ["FusedBatchNorm"], [normal(3, 3, 3, 4), *(normal(4) ** 2,) * 4], epsilon=0.01),
    "dense": fused("_FusedMatMul", ["BiasAdd", "Elu"], [normal(3, 4), normal(4)]),
}


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.slow
def test_joined_operations_compute_what_tensorflow_computes(name: str, tmp_path: Path) -> None:
    graph_def = tf.compat.v1.GraphDef()
    graph_def.CopyFrom(NATIVE[name])
    x = normal(2, 3, seed=1) if name == "dense" else normal(*IMAGE, seed=1)
    graph_def.node[0].attr["shape"].shape.CopyFrom(tf.TensorShape((None, *x.shape[1:])).as_proto())
    expected = web_files.run(graph_def, {"x:0": x}, "y:0")
    path = write_graph(tmp_path / "m", graph_def)
    np.testing.assert_allclose(computed(path, tmp_path / "out", x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_what_tensorflow_has_not_is_taken_apart(tmp_path: Path) -> None:
    """A depthwise convolution with a bias and a parametric ReLU, which TensorFlow.js alone joins."""
    kernel, bias, alpha = normal(3, 3, 3, 1), normal(3), normal(3, seed=3)
    graph_def = fused("FusedDepthwiseConv2dNative", ["BiasAdd", "Prelu"], [kernel, bias, alpha])
    graph_def.node[0].attr["shape"].shape.CopyFrom(tf.TensorShape((None, *IMAGE[1:])).as_proto())
    x = normal(*IMAGE, seed=1)
    y = tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "SAME") + bias
    expected = tf.where(y > 0, y, alpha * y).numpy()
    found = computed(write_graph(tmp_path / "m", graph_def), tmp_path / "out", x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_bodies_of_loops_are_inside_of_the_operation(tmp_path: Path) -> None:
    graph = described(write_graph(tmp_path / "m", graph_of(web_files.loop))).graph
    classes = {layer.namespace: layer.class_name for layer in graph.layers}
    assert classes["loop/op"] == "StatelessWhile"
    assert classes["loop/op/body"] == classes["loop/op/cond"] == "Subgraph"
    inside = {name.split("/")[2]: kind for name, kind in classes.items() if kind in ("Less", "Mul")}
    assert inside == {"cond": "Less", "body": "Mul"}


def test_inputs_and_outputs_can_be_chosen(image: Path) -> None:
    graph = described(image, outputs=("net/conv/Relu",)).graph
    assert [spec.name for spec in graph.outputs] == ["net/conv/Relu"]
    with pytest.raises(UsageError, match="no operation of the graph"):
        described(image, outputs=("elsewhere",))


def test_a_signature_gives_names_and_shapes(tmp_path: Path) -> None:
    shape = {"dim": [{"size": "-1"}, {"size": "4"}]}
    signature = {"outputs": {"scores": {"name": "net/head/MatMul:0", "dtype": "DT_FLOAT", "tensorShape": shape}}}
    graph = described(write_graph(tmp_path / "m", graph_of(web_files.image), signature=signature)).graph
    assert [(spec.name, spec.shape) for spec in graph.outputs] == [("scores", (None, 4))]


@pytest.mark.slow
def test_tables_and_pictures_need_no_tensorflow(image: Path, tmp_path: Path) -> None:
    outcome = export_here(image, tmp_path / "out", formats=("parquet", "dot"), stats=True)
    assert outcome.error is None
    stages = [stage.name for stage in outcome.stages]
    assert "read" in stages
    assert "import" not in stages


# What is not sound. ---------------------------------------------------------------------------------------------------


def changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def spoil(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def group(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["weightsManifest"][0]
    return found


def paths(*names: str) -> Callable[[Path], Any]:
    return changed(lambda content: group(content).update(paths=list(names)))


def weight(**values: Any) -> Callable[[Path], Any]:
    return changed(lambda content: group(content)["weights"][0].update(values))


def linked(path: Path) -> None:
    shard = path.parent / "group1-shard1of4.bin"
    (path.parent.parent / "elsewhere.bin").write_bytes(shard.read_bytes())
    shard.unlink()
    shard.symlink_to(path.parent.parent / "elsewhere.bin")


def circle(content: dict[str, Any]) -> None:
    nodes = {node["name"]: node for node in content["modelTopology"]["node"]}
    nodes["net/conv/Conv2D"]["input"][0] = "net/head/MatMul"


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "not JSON"),
    "deep": (lambda path: path.write_text('{"modelTopology": ' + "[" * 100_000), "not JSON"),
    "shard gone": (lambda path: (path.parent / "group1-shard2of4.bin").unlink(), "is not complete"),
    "shard short": (lambda path: (path.parent / "group1-shard2of4.bin").write_bytes(b"x"), "does not fit"),
    "up": (paths("../secret.bin"), "leads out of its folder"),
    "root": (paths("/etc/passwd"), "leads out of its folder"),
    "web": (paths("https://example.org/a.bin"), "leads out of its folder"),
    "link": (linked, "leads out of its folder"),
    "huge": (weight(shape=[2**40, 2**40]), "does not fit"),
    "negative": (weight(shape=[-4]), r"the shape of net/conv/kernel is \[-4\]"),
    "type": (weight(dtype="pickle"), "the type of net/conv/kernel is pickle"),
    "stored": (weight(quantization={"dtype": "int3"}), "stored as int3"),
    "text": (weight(dtype="string", shape=[2**30]), "texts in"),
    "node": (changed(lambda content: content["modelTopology"]["node"].append({"op": 3})), "its graph"),
    "names": (changed(lambda content: content["modelTopology"]["node"][0].update(name=None)), "its graph"),
    "circle": (changed(circle), "wait for each other"),
    "manifest": (changed(lambda content: content.update(weightsManifest=[7])), "weightsManifest"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_cannot_be_is_said(image: Path, name: str) -> None:
    spoil, why = SPOILED[name]
    spoil(image)
    with pytest.raises(SourceError, match=why):
        described(image)


@pytest.mark.slow
def test_whatever_byte_is_wrong_there_is_an_answer(image: Path) -> None:
    data, answers, numbers = image.read_bytes(), Counter[str](), random.Random(0)
    started = time.process_time()
    for _ in range(200):
        damaged = bytearray(data)
        damaged[numbers.randrange(len(data))] = numbers.choice(b'"0:{}[],-x\xff')
        image.write_bytes(damaged)
        try:
            described(image)
            answers["described"] += 1
        except ExportError as error:
            answers[type(error).__name__] += 1
    assert answers["described"] > 10
    assert answers["SourceError"] > 10
    assert time.process_time() - started < 60


@pytest.mark.slow
def test_the_weights_are_never_in_memory_together(tmp_path: Path) -> None:
    """Eight products with 16 MB each."""

    def build() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 2000), name="x")
        for number in range(8):
            kernel = tf.constant(normal(2000, 2000, seed=number), name=f"net/dense_{number}/kernel")
            x = tf.nn.relu(tf.matmul(x, kernel, name=f"net/dense_{number}/MatMul"), name=f"net/dense_{number}/Relu")

    write_graph(tmp_path / "large", graph_of(build))
    result = command(["large/model.json", "--to", "onnx,parquet", "--no-verify"], cwd=tmp_path)
    assert result.status == 0, result.text
    found = manifest(tmp_path / "outputs" / "large")
    assert found["weight_bytes"] == 8 * 16_000_000
    assert found["memory"]["peak_rss_bytes"] <= found["memory"]["bound_bytes"]
