"""What TensorFlow's converter makes of models, quantised in each of its ways, becomes ONNX that computes the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import lite_files
import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from exporting import command, export_here, manifest
from keras import layers
from lite_files import Graph, Operator, Tensor, Writer

pytestmark = pytest.mark.slow


def network() -> Any:
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    x = keras.Input((16, 16, 3), name="x")
    y = layers.Conv2D(8, 3, padding="same", activation="relu6")(x)
    y = layers.DepthwiseConv2D(3, padding="same", bias_initializer="normal")(y)
    y = layers.Conv2DTranspose(4, 3, strides=2, padding="same", bias_initializer="normal", activation="relu")(y)
    y = layers.Dense(24, activation="gelu")(layers.Flatten()(layers.MaxPooling2D(4)(y)))
    return keras.Model(x, layers.Dense(10, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0))(y))


def samples() -> Iterator[list[np.ndarray]]:
    yield from ([lite_files.normal(1, 16, 16, 3, seed=seed)] for seed in range(8))


def quantised(converter: Any) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def whole_numbers(converter: Any) -> None:
    quantised(converter)
    converter.representative_dataset = samples


def at_the_ends_too(converter: Any) -> None:
    whole_numbers(converter)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8


def sixteen_bits(converter: Any) -> None:
    whole_numbers(converter)
    kinds = tf.lite.OpsSet
    converter.target_spec.supported_ops = [kinds.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int16


def half_precision(converter: Any) -> None:
    quantised(converter)
    converter.target_spec.supported_types = [tf.float16]


WAYS: dict[str, Callable[[Any], None]] = {
    "plain": lambda converter: None,
    "dynamic": quantised,
    "int8": whole_numbers,
    "uint8_ends": at_the_ends_too,
    "int16": sixteen_bits,
    "float16": half_precision,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, model, found = tmp_path_factory.mktemp("lite"), network(), {}
    for name, prepare in WAYS.items():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        prepare(converter)
        found[name] = folder / f"{name}.tflite"
        found[name].write_bytes(converter.convert())
    return found


def ops(folder: Path) -> set[str]:
    return {node.op_type for node in onnx.load(str(folder / "model.onnx")).graph.node}


@pytest.mark.parametrize("name", WAYS)
def test_each_way_of_quantising_converts(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    outcome = export_here(files[name], tmp_path, formats=("onnx", "parquet"))
    assert outcome.error is None
    assert outcome.verification is not None
    assert (outcome.verification.status, outcome.verification.reason) == ("passed", "")
    nodes = manifest(tmp_path / name)["onnx_nodes"]
    assert nodes["with_layer"] == nodes["total"]
    # Whole numbers stay whole numbers, and half precision is stored as it is.
    assert ("QuantizeLinear" in ops(tmp_path / name)) == (name in ("int8", "uint8_ends"))
    kinds = {proto.data_type for proto in onnx.load(str(tmp_path / name / "model.onnx")).graph.initializer}
    assert (onnx.TensorProto.INT8 in kinds) == (name in ("dynamic", "int8", "uint8_ends", "int16"))
    assert (onnx.TensorProto.FLOAT16 in kinds) == (name == "float16")


def test_operators_cost_what_their_onnx_nodes_cost(files: dict[str, Path], tmp_path: Path) -> None:
    """Products are the same whatever the file calls them, and are counted by other formulas."""
    assert export_here(files["plain"], tmp_path, formats=("onnx", "parquet"), verify=False).error is None
    layers_table = pq.read_table(tmp_path / "plain" / "layers.parquet").to_pylist()
    nodes_table = pq.read_table(tmp_path / "plain" / "nodes.parquet").to_pylist()
    by_layer = Counter(
        {row["layer"]: row["macs"] for row in layers_table if row["cost_method"] == "layer" and row["macs"]}
    )
    by_node: Counter[str] = Counter()
    for row in nodes_table:
        by_node[row["layer"]] += row["macs"] or 0
    assert len(by_layer) == 5
    assert by_layer == +by_node


def test_dequantised_there_are_no_whole_numbers(files: dict[str, Path], tmp_path: Path) -> None:
    outcome = export_here(files["int8"], tmp_path, formats=("onnx",), dequantize=True)
    assert outcome.error is None
    assert outcome.verification is not None
    assert outcome.verification.status == "passed"
    assert not {"QuantizeLinear", "DequantizeLinear"} & ops(tmp_path / "int8")


class Signed(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(lite_files.normal(4, 3))

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="a")])
    def product(self, a: Any) -> Any:
        return {"y": a @ self.table}

    @tf.function(input_signature=[tf.TensorSpec((2, 4), tf.float32, name="b")])
    def choice(self, b: Any) -> Any:
        return {"z": tf.cond(tf.reduce_sum(b) > 0, lambda: b * 2.0, lambda: b - 1.0), "w": b @ self.table}

    @tf.function(input_signature=[tf.TensorSpec((2, 4), tf.float32, name="b")])
    def repeat(self, b: Any) -> Any:
        return {"z": tf.while_loop(lambda i, v: i < 5, lambda i, v: (i + 1, tf.tanh(v) + 1.0), [0, b])[1]}


@pytest.mark.parametrize("signature", ["product", "choice", "repeat"])
def test_each_signature_converts(signature: str, tmp_path: Path) -> None:
    module = Signed()
    functions = {"product": module.product, "choice": module.choice, "repeat": module.repeat}
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=functions)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    (tmp_path / "m.tflite").write_bytes(converter.convert())
    outcome = export_here(tmp_path / "m.tflite", tmp_path / "out", formats=("onnx",), signature=signature)
    assert outcome.error is None
    assert outcome.verification is not None
    assert (outcome.verification.status, outcome.verification.reason) == ("passed", "")


def large() -> bytes:
    """Eight products with 16 MB each."""
    tensors, operators = [Tensor("x", [1, 2000])], []
    weight = lite_files.normal(2000, 2000)
    for number in range(8):
        tensors += [
            Tensor(f"w{number}", [2000, 2000], data=weight + np.float32(number)),
            Tensor(f"y{number}", [1, 2000]),
        ]
        operators.append(
            Operator("FULLY_CONNECTED", [2 * number, 2 * number + 1, -1], [2 * number + 2], lite_files.DENSE)
        )
    return Writer().file([Graph(tensors, operators, [0], [16])])


def test_the_weights_are_never_in_memory_together(tmp_path: Path) -> None:
    lite_files.written(tmp_path / "large.tflite", large)
    result = command(["large.tflite", "--to", "onnx,parquet", "--no-verify"], cwd=tmp_path)
    assert result.status == 0, result.text
    found = manifest(tmp_path / "outputs" / "large")
    assert found["weight_bytes"] == 8 * 16_000_000
    assert found["memory"]["peak_rss_bytes"] <= found["memory"]["bound_bytes"]
    described = command(["large.tflite", "--to", "parquet", "--stats", "-o", "described"], cwd=tmp_path)
    assert described.status == 0, described.text
    assert manifest(tmp_path / "described" / "large")["memory"]["peak_rss_bytes"] < 300 * 10**6
