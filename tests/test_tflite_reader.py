"""`.tflite` files: described without TensorFlow, as TensorFlow Lite's own interpreter sees them; and damaged ones."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lite_files
import numpy as np
import pytest
import tensorflow as tf
from exporting import export_here, job_for, manifest
from lite_files import Graph, Operator, Tensor, Writer, written

from exporter.costs.model_costs import layer_costs
from exporter.errors import SourceError, UnsupportedError, UsageError
from exporter.formats.node_style import kind
from exporter.readers.described import DescribedModel
from exporter.readers.tflite_file import read
from exporter.sources.detection import detect
from exporter.sources.lite.lite_reading import read_model
from exporter.sources.lite.lite_values import unpacked


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return written(tmp_path / "net.tflite", lite_files.network)


def described(path: Path, **options: Any) -> DescribedModel:
    return read(job_for(path, path.parent, formats=("parquet",), stats=True, **options), "")


def interpreter(path: Path) -> Any:
    kinds = tf.lite.experimental.OpResolverType
    return tf.lite.Interpreter(str(path), experimental_op_resolver_type=kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES)


def test_the_rows_are_the_operators_with_their_constants(network: Path) -> None:
    graph = described(network).graph
    rows = {layer.namespace: (layer.class_name, layer.params, layer.connected_to) for layer in graph.layers}
    assert rows == {
        "x": ("InputLayer", 0, ()),
        "net": ("Scope", 0, ("x",)),
        "net/conv": ("CONV_2D", 112, ()),
        "net/pool": ("MEAN", 2, ("net/conv",)),
        "net/head": ("FULLY_CONNECTED", 8, ("net/pool",)),
    }
    assert graph.level == "operation"
    assert [(spec.name, spec.shape) for spec in graph.inputs] == [("x", (None, 6, 6, 3))]
    assert [(spec.name, spec.shape) for spec in graph.outputs] == [("scores", (None, 2))]
    head = json.loads(next(layer.config for layer in graph.layers if layer.namespace == "net/head"))
    assert head["constants"]["1"] == {"name": "net/head/MatMul", "shape": [2, 4], "dtype": "int8"}
    conv = json.loads(next(layer.config for layer in graph.layers if layer.namespace == "net/conv"))
    assert (conv["padding"], conv["fused_activation_function"], conv["stride_h"]) == ("SAME", "RELU", 1)


def test_pictures_know_the_operators(network: Path) -> None:
    kinds = [kind(layer) for layer in described(network).graph.layers]
    assert kinds == ["input", "other", "convolution", "pooling", "dense"]


def test_operators_cost_what_their_shapes_say(network: Path) -> None:
    """Of one image: 6 × 6 × 4 sums of 27 products, each with a bias and a rectifier; 144 numbers; 2 sums of 4."""
    found = layer_costs(described(network).graph, None)
    conv, pool, head = (found.layers[f"net/{name}"] for name in ("conv", "pool", "head"))
    assert (conv.macs, conv.flops) == (144 * 27, 2 * 144 * 27 + 144 * 2)
    assert (pool.macs, pool.flops) == (0, 144)
    assert (head.macs, head.flops) == (8, 16)
    assert found.macs == 144 * 27 + 8


def test_operators_and_tensors_are_those_of_the_interpreter(network: Path) -> None:
    own = interpreter(network)
    own.allocate_tensors()
    (lite,) = read_model(str(network)).graphs
    details = {each["index"]: each for each in own.get_tensor_details()}
    for place, tensor in enumerate(lite.tensors):
        assert (tensor.name, tensor.dtype) == (details[place]["name"], np.dtype(details[place]["dtype"]).name)
        assert [-1 if size is None else size for size in tensor.shape or ()] == list(details[place]["shape_signature"])
        scale = tensor.quantization.scale if tensor.quantization else []
        assert list(scale) == list(details[place]["quantization_parameters"]["scales"])
    assert Counter(each.op for each in lite.operators) == Counter(each["op_name"] for each in own._get_ops_details())


def test_constants_are_what_the_interpreter_holds(network: Path) -> None:
    own = interpreter(network)
    own.allocate_tensors()
    held = {each["name"].split(";")[0]: each["index"] for each in own.get_tensor_details()}
    values = described(network).values
    assert set(values) == {"net/conv/Conv2D", "net/conv/bias", "net/pool/axes", "net/head/MatMul"}
    for name, value in values.items():
        assert value.is_divisible
        np.testing.assert_array_equal(value.real(), own.get_tensor(held[name]))


def test_bodies_of_loops_are_inside_of_the_operator(tmp_path: Path) -> None:
    graph = described(written(tmp_path / "loop.tflite", lite_files.loop)).graph
    found = {layer.namespace: (layer.class_name, layer.parent) for layer in graph.layers}
    assert found["y"] == ("WHILE", None)
    assert found["y/cond"] == ("Subgraph", "y")
    assert found["y/body/sum"] == ("ADD", "y/body")
    assert {(edge.source, edge.target) for edge in graph.edges} >= {("x", "y"), ("y/body/a", "y/body/sum")}
    assert [(weight.name, weight.layer) for weight in graph.weights] == [("limit", "y/cond/less")]


def test_a_buffer_that_several_tensors_share_is_one_weight(tmp_path: Path) -> None:
    def shared() -> bytes:
        table, writer = lite_files.normal(2, 4), Writer()
        tensors = [Tensor("x", [1, 4]), Tensor("w", [2, 4], data=table), Tensor("y", [1, 2]), Tensor("z", [1, 2])]
        operators = [Operator("FULLY_CONNECTED", [0, 1, -1], [place], lite_files.DENSE) for place in (2, 3)]
        return writer.file([Graph(tensors, operators, [0], [2, 3])])

    graph = described(written(tmp_path / "shared.tflite", shared)).graph
    assert [(layer.name, layer.params) for layer in graph.layers] == [("x", 0), ("y", 8), ("z", 0)]


def test_a_signature_chooses_the_graph(tmp_path: Path) -> None:
    def two() -> bytes:
        graphs = [
            Graph([Tensor("x", [1, 4]), Tensor("y", [1, 4])], [Operator(op, [0], [1])], [0], [1])
            for op in ("EXP", "ABS")
        ]
        signatures = [(key, number, {"in": 0}, {"out": 1}) for number, key in enumerate(("first", "second"))]
        return Writer().file(graphs, signatures)

    path = written(tmp_path / "two.tflite", two)
    assert [layer.class_name for layer in described(path).graph.layers] == ["InputLayer", "EXP"]
    assert "--signature chooses another: second" in described(path).notes[0]
    assert [layer.class_name for layer in described(path, signature="second").graph.layers] == ["InputLayer", "ABS"]
    with pytest.raises(UsageError, match="its signatures are first, second"):
        described(path, signature="third")


def test_numbers_of_four_bits_have_the_first_in_the_lower_half() -> None:
    """As `tensorflow/lite/kernels/internal/portable_tensor_utils.h` unpacks them."""
    packed = np.array([0x7F, 0x80, 0x03], np.uint8)
    assert unpacked(packed, 4, "int4", 5).tolist() == [-1, 7, 0, -8, 3]
    assert unpacked(packed, 4, "uint4", 5).tolist() == [15, 7, 0, 8, 3]
    assert unpacked(np.array([0b11100100], np.uint8), 2, "int2", 4).tolist() == [0, 1, -2, -1]


@pytest.mark.slow
def test_sparse_constants_are_read_with_their_zeros(tmp_path: Path) -> None:
    path = written(tmp_path / "sparse.tflite", lite_files.sparse)
    found = described(path)
    assert [(weight.name, weight.shape, weight.nbytes) for weight in found.graph.weights] == [
        ("net/kernel", (4, 4), 48)
    ]
    kernel = found.values["net/kernel"].real()
    expected = [[0, 0, 1, 2], [0, 0, 3, 4], [5, 6, 9, 10], [7, 8, 11, 12]]
    np.testing.assert_array_equal(kernel, expected)
    own, x = interpreter(path), np.arange(4, dtype=np.float32)[None]
    own.allocate_tensors()
    own.set_tensor(own.get_input_details()[0]["index"], x)
    own.invoke()
    np.testing.assert_allclose(own.get_tensor(own.get_output_details()[0]["index"]), x @ kernel.T)
    outcome = export_here(path, tmp_path / "out", formats=("onnx",))
    assert outcome.verification is not None
    assert outcome.verification.status == "passed"


@pytest.mark.parametrize("segments", [(0, 1, 4), (0, 2, 1), (0, 3), (1, 2, 4)])
def test_sparse_constants_that_do_not_fit_are_refused(segments: tuple[int, ...], tmp_path: Path) -> None:
    path = written(tmp_path / "sparse.tflite", lambda: lite_files.sparse(segments=segments))
    with pytest.raises(SourceError, match="segments that do not fit"):
        described(path).values["net/kernel"].real()


def test_bytes_behind_the_tables_are_read_where_they_are(tmp_path: Path) -> None:
    """Files above 2 GB keep the content of buffers at offsets of 64 bits."""
    content = lite_files.normal(2, 4)

    class Apart(Writer):
        def buffer(self, data: bytes) -> int:
            if not data:
                return super().buffer(data)
            return self.table("Buffer", Offset=4096, Size=content.nbytes)

    tensors = [Tensor("x", [1, 4]), Tensor("w", [2, 4], data=content), Tensor("y", [1, 2])]
    operators = [Operator("FULLY_CONNECTED", [0, 1, -1], [2], lite_files.DENSE)]
    data = Apart().file([Graph(tensors, operators, [0], [2])]).ljust(4096, b"\0")
    (tmp_path / "large.tflite").write_bytes(data + content.tobytes())
    np.testing.assert_array_equal(described(tmp_path / "large.tflite").values["w"].real(), content)
    (tmp_path / "short.tflite").write_bytes(data + content.tobytes()[:-1])
    with pytest.raises(SourceError, match="goes beyond the end"):
        described(tmp_path / "short.tflite")


# What is not sound. ---------------------------------------------------------------------------------------------------


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    assert detect(str(written(tmp_path / "net.keras", lite_files.network))).kind == "tflite"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_ends_early_is_refused(network: Path, share: float) -> None:
    network.write_bytes(network.read_bytes()[: int(share * network.stat().st_size)])
    with pytest.raises(SourceError, match="truncated or corrupt"):
        described(network)


@pytest.mark.slow
def test_whatever_byte_is_wrong_there_is_an_answer(network: Path) -> None:
    """A description of what is there then, or a sentence; nothing else is raised, and nothing takes long."""
    data, answers = network.read_bytes(), Counter[str]()
    numbers = random.Random(0)
    started = time.process_time()
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(numbers.choice((1, 1, 4))):
            damaged[numbers.randrange(8, len(data))] = numbers.choice((0, 1, 0x7F, 0x80, 0xFF, numbers.randrange(256)))
        network.write_bytes(damaged)
        try:
            described(network)
            answers["described"] += 1
        except SourceError:
            answers["refused"] += 1
    assert min(answers["described"], answers["refused"]) > 20
    assert time.process_time() - started < 60


class Multiplied(Writer):
    """Each table stands a thousand times in the vector that it is in: a billion operators in a small file."""

    def vector(self, offsets: Sequence[int]) -> int:
        return super().vector(list(offsets) * 1000)


@pytest.mark.slow
def test_tables_in_each_other_do_not_multiply(tmp_path: Path) -> None:
    graph = Graph([Tensor("x", [1])], [Operator("EXP", [0], [0])], [0], [0])
    path = written(tmp_path / "m.tflite", lambda: Multiplied().file([graph]))
    started = time.process_time()
    with pytest.raises(SourceError, match="offsets lie in each other"):
        described(path)
    assert time.process_time() - started < 10


def _recursive() -> bytes:
    call = Operator("WHILE", [0], [1], ("WhileOptions", {"CondSubgraphIndex": 1, "BodySubgraphIndex": 1}))
    graph = Graph([Tensor("x", [1]), Tensor("y", [1])], [call], [0], [1])
    return Writer().file([graph, graph])


def _sizes() -> bytes:
    tensors = [Tensor("x", [1, 4]), Tensor("w", [2**30, 2**30], data=lite_files.normal(8)), Tensor("y", [1, 2])]
    return Writer().file([Graph(tensors, [Operator("FULLY_CONNECTED", [0, 1, -1], [2])], [0], [2])])


def _tensor_number() -> bytes:
    return Writer().file([Graph([Tensor("x", [1, 4])], [Operator("EXP", [0], [7])], [0], [0])])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_recursive, "a graph runs itself"),
        (_sizes, "has 32 bytes"),
        (_tensor_number, "tensor 7 is not there"),
        (lambda: Writer().file([]), "it has no graph"),
        (lambda: b"\x1c\0\0\0TFL3" + bytes(100), "no table"),
        (lambda: b"\xff\xff\xff\xffTFL3" + bytes(100), "not in the file"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, make: Callable[[], bytes], why: str) -> None:
    with pytest.raises(SourceError, match=why):
        described(written(tmp_path / "m.tflite", make))


# Through the worker. --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tables_and_pictures_need_no_tensorflow(network: Path, tmp_path: Path) -> None:
    outcome = export_here(network, tmp_path / "out", formats=("parquet", "dot", "svg"), stats=True)
    assert outcome.error is None
    stages = [stage.name for stage in outcome.stages]
    assert "read" in stages
    assert "import" not in stages


@pytest.mark.slow
def test_a_file_becomes_onnx_that_computes_the_same(network: Path, tmp_path: Path) -> None:
    outcome = export_here(network, tmp_path / "out", formats=("onnx", "parquet"))
    assert outcome.error is None
    assert outcome.verification is not None
    assert (outcome.verification.status, outcome.verification.reason) == ("passed", "")
    nodes = manifest(tmp_path / "out" / "net")["onnx_nodes"]
    assert nodes["with_layer"] == nodes["total"]


@pytest.mark.slow
def test_a_loop_becomes_onnx(tmp_path: Path) -> None:
    path = written(tmp_path / "loop.tflite", lite_files.loop)
    outcome = export_here(path, tmp_path / "out", formats=("onnx",), opset=17)
    assert outcome.error is None
    assert outcome.verification is not None
    assert outcome.verification.status == "passed"


def test_a_custom_op_is_described_and_not_converted(tmp_path: Path) -> None:
    path = written(tmp_path / "own.tflite", lite_files.custom)
    assert [layer.class_name for layer in described(path).graph.layers][-1] == "MyOwnOp"
    outcome = export_here(path, tmp_path / "out", formats=("onnx",))
    assert outcome.error is not None
    assert outcome.error["type"] == UnsupportedError.__name__
    assert "custom op MyOwnOp" in outcome.error["what"]
    assert not list((tmp_path / "out").rglob("*.onnx"))
