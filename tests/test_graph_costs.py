"""Costs of operations that no Keras layer tells: those of TensorFlow Lite, and of graphs of TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from exporting import export_here

from exporter.costs.counting import Operations
from exporter.costs.layer_costs import operations
from exporter.costs.layer_formulas import LayerCall

IMAGE, ROW = (2, 8, 8, 3), (2, 10)


def constants(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {"constants": {place.strip("_"): {"shape": list(shape)} for place, shape in shapes.items()}}


LITE: dict[str, tuple[LayerCall, Operations]] = {
    "convolution": (
        LayerCall(
            "CONV_2D",
            constants(_1=(5, 3, 3, 3), _2=(5,)) | {"fused_activation_function": "RELU6"},
            (IMAGE,),
            ((2, 4, 4, 5),),
        ),
        Operations(2 * 4 * 4 * 5 * 27, 160 * 3),
    ),
    "depthwise": (
        LayerCall("DEPTHWISE_CONV_2D", constants(_1=(1, 3, 3, 6)), (IMAGE,), ((2, 8, 8, 6),)),
        Operations(2 * 8 * 8 * 6 * 9),
    ),
    "transposed": (
        LayerCall("TRANSPOSE_CONV", constants(_0=(4,), _1=(5, 2, 2, 3)), (IMAGE,), ((2, 16, 16, 5),)),
        Operations(2 * 8 * 8 * 3 * 20),
    ),
    "fully connected": (
        LayerCall("FULLY_CONNECTED", constants(_1=(4, 10)), (ROW,), ((2, 4),)),
        Operations(2 * 4 * 10),
    ),
    "a constant on the left": (
        LayerCall("BATCH_MATMUL", constants(_0=(7, 10)), ((10, 3),), ((7, 3),)),
        Operations(7 * 3 * 10),
    ),
    "addition with a rectifier": (
        LayerCall("ADD", {"fused_activation_function": "RELU"}, (ROW, ROW), (ROW,)),
        Operations(0, 40),
    ),
}


@pytest.mark.parametrize("name", LITE)
def test_operators_of_tensorflow_lite(name: str) -> None:
    call, expected = LITE[name]
    assert operations(call, "operation") == expected


def row(class_name: str, nodes: int, inputs: tuple[Any, ...], output: Any, *weights: tuple[int, ...]) -> LayerCall:
    return LayerCall(class_name, {"nodes": nodes}, inputs, (output,), (), weights)


GRAPHS: dict[str, tuple[LayerCall, Operations | None]] = {
    "product, bias, softmax": (
        row("MatMul+BiasAdd+Softmax", 3, (ROW,), (2, 4), (10, 4), (4,)),
        Operations(2 * 4 * 10, 8 * 6),
    ),
    "convolution and norm": (
        row("Conv2D+Mul+AddV2+Relu", 4, (IMAGE,), (2, 4, 4, 5), (3, 3, 3, 5), (5,), (5,)),
        Operations(160 * 27, 160 * 3),
    ),
    "norm alone": (row("Mul+AddV2", 2, (IMAGE,), IMAGE, (3,), (3,)), Operations(0, 2 * 384)),
    "separable convolution": (
        row("DepthwiseConv2dNative+Conv2D+BiasAdd", 3, (IMAGE,), (2, 6, 6, 5), (3, 3, 3, 2), (1, 1, 6, 5), (5,)),
        Operations(2 * 36 * (6 * 9 + 5 * 6), 360),
    ),
    "a convolution of more than one position": (
        row("DepthwiseConv2dNative+Conv2D", 2, (IMAGE,), (2, 4, 4, 5), (3, 3, 3, 2), (3, 3, 6, 5)),
        None,
    ),
    "a transposed operand": (row("MatMul+BiasAdd", 2, ((10, 2),), (2, 4), (10, 4), (4,)), None),
    "two of one type": (row("MatMul+AddV2", 3, (ROW,), (2, 4), (10, 4), (4,)), None),
    "another shape between": (row("Mul+AddV2", 2, ((2, 1),), ROW, (10,), (10,)), None),
    "a weight of an image": (row("Mul+AddV2", 2, (IMAGE,), IMAGE, (8, 8, 3)), None),
    "an operation that is not known": (row("Mul+Whatever", 2, (IMAGE,), IMAGE, (3,)), None),
    "two kernels": (row("Conv2D+BiasAdd", 2, (IMAGE,), (2, 4, 4, 5), (3, 3, 3, 5), (1, 1, 3, 5)), None),
    "two inputs": (row("Mul+AddV2", 2, (IMAGE, IMAGE), IMAGE), None),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_rows_of_several_operations(name: str) -> None:
    """What lies between them is not in the row: unknown unless it can only have the output's shape."""
    call, expected = GRAPHS[name]
    assert operations(call, "scope") == expected


def test_layers_of_keras_keep_their_formulas() -> None:
    assert operations(LayerCall("Conv2D", {"T": "float32"}, (IMAGE,), (IMAGE,), (), ((3, 3, 3, 3),))) is None


@pytest.mark.slow
def test_every_way_to_save_a_model_has_its_products(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(8, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.save(tmp_path / "m.keras")
    model.export(tmp_path / "saved", verbose=False)
    (tmp_path / "m.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    macs = {}
    for name in ("m.keras", "saved", "m.tflite"):
        outcome = export_here(tmp_path / name, tmp_path / "out" / name, formats=("parquet",))
        table = pq.read_table(Path(outcome.output_path) / "models.parquet").to_pylist()[0]
        assert table["layers_without_cost"] == 0
        macs[name] = table["macs"]
    expected = 7 * 7 * 8 * 27 + 5 * 5 * 8 * 9 + 8 * 5
    assert macs == dict.fromkeys(macs, expected)
