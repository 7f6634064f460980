"""An ONNX file that somebody else made against its source: here files that are put together by hand."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.cli import main
from exporter.records import TensorSpec
from exporter.verification.sample_inputs import given_sizes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [layers.Input((4,), name="x"), layers.Dense(3, activation="relu", bias_initializer="normal")]
    )
    net.save(folder / "m.keras")
    kernel, bias = net.get_weights()
    onnx.save(by_hand(kernel, bias), folder / "right.onnx")
    onnx.save(by_hand(kernel, bias, batch=1), folder / "one.onnx")
    onnx.save(by_hand(kernel + 0.01, bias), folder / "wrong.onnx")
    net.save_weights(folder / "m.weights.h5")
    return folder


def by_hand(kernel: np.ndarray, bias: np.ndarray, batch: int | None = None) -> onnx.ModelProto:
    """relu(x·W + b), with names that no Keras model has."""
    nodes = [helper.make_node("Gemm", ["data", "w", "b"], ["sum"]), helper.make_node("Relu", ["sum"], ["result"])]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, size])
        for name, size in (("data", 4), ("result", 3))
    ]
    weights = [numpy_helper.from_array(kernel, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "sentence"),
    [
        ("right.onnx", 0, "verification: passed"),
        ("one.onnx", 0, "result (1×3) differs by at most"),
        ("wrong.onnx", 3, "verification: MISMATCH"),
    ],
)
def test_a_file_of_another_converter(
    name: str, status: int, sentence: str, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(model.iterdir())
    assert main(["check", str(model / "m.keras"), str(model / name), "-q"]) == status
    assert sentence in capfd.readouterr().out
    assert sorted(model.iterdir()) == before


@pytest.mark.parametrize(
    ("source", "file", "status", "sentence"),
    [
        ("m.keras", "m.keras", 4, "is not an ONNX file"),
        ("m.keras", "missing.onnx", 4, "no such file"),
        ("m.weights.h5", "right.onnx", 2, "is nothing to compare with"),
        ("right.onnx", "right.onnx", 2, "is nothing to compare with"),
    ],
)
def test_what_cannot_be_compared(
    source: str, file: str, status: int, sentence: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(model / source), str(model / file), "-q"]) == status
    assert sentence in capsys.readouterr().err


def test_sizes_that_the_file_fixes(model: Path) -> None:
    """By name, and by position where another converter has its own; what the source fixes stays."""
    spec = TensorSpec("x", (None, 4), "float32")
    assert given_sizes([spec], model / "one.onnx") == (TensorSpec("x", (1, 4), "float32"),)
    assert given_sizes([spec], model / "right.onnx") == (spec,)
    assert given_sizes([TensorSpec("data", (7, 4), "float32")], model / "one.onnx")[0].shape == (7, 4)
