"""Hollow conversion of small models: what ONNX Runtime computes is what Keras computes, and nothing was read early.

The models are in `models.py`, the conversion of many in one process in `conversion.py`.
"""

from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from conversion import Converted, all_nodes, convert, filled, random_inputs, run_keras, run_onnx
from models import BEYOND, MODELS
from sampling import sampled

from exporter.errors import UnsupportedError
from exporter.sources.rewriting.onnx_graph import graphs

# How close, relative to the largest value of an output: ONNX Runtime sums in another order than TensorFlow.
TOLERANCE = {"half_precision": 1e-2}
# What stays of a one-dimensional convolution, which is a two-dimensional one inside, and of a transposed input.
AROUND_CONVOLUTIONS = {"Transpose", "Squeeze", "Unsqueeze", "Reshape", "Pad", "Identity"}
# tf2onnx crops the result of this one by arithmetic on its shape, which the norm comes after.
NOT_FOLDED = {"folded_conv1d_transpose"}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def checked(name: str, build: Any = None, **settings: Any) -> Converted:
    """Convert, compare with Keras, and hold what holds for every conversion."""
    build = build or MODELS[name]
    keras.utils.clear_session(free_memory=False)
    real = filled(build())
    converted = convert(build, real, **settings)
    onnx.checker.check_model(converted.model, full_check=True)
    check_names(converted)
    check_layers(converted)
    fixed = {spec.name: spec.shape for spec in converted.graph.inputs}
    arrays = random_inputs([shaped(tensor, fixed) for tensor in real.inputs])
    check_values(run_keras(real, arrays), run_onnx(converted, arrays), TOLERANCE.get(name, 1e-4))
    return converted


def shaped(tensor: Any, shapes: dict[str, Any]) -> Any:
    name = tensor._keras_history.operation.name
    return keras.KerasTensor(shapes[name], tensor.dtype)


def check_values(expected: list[np.ndarray], found: list[np.ndarray], tolerance: float) -> None:
    assert [array.shape for array in found] == [array.shape for array in expected]
    assert [array.dtype for array in found] == [array.dtype for array in expected]
    for a, b in zip(expected, found, strict=True):
        scale = max(1.0, float(np.max(np.abs(a), initial=0)))
        np.testing.assert_allclose(b.astype(np.float64), a.astype(np.float64), rtol=0, atol=tolerance * scale)


def check_names(converted: Converted) -> None:
    """Inputs and outputs have Keras's names, in Keras's order, and every value one name of its own."""
    graph = converted.model.graph
    assert [value.name for value in graph.input] == [spec.name for spec in converted.graph.inputs]
    assert [value.name for value in graph.output] == [spec.name for spec in converted.graph.outputs]
    made = [name for node in all_nodes(graph) for name in node.output if name]
    inputs = [value.name for inner in graphs(graph) for value in inner.input]
    initializers = [proto.name for inner in graphs(graph) for proto in inner.initializer]
    assert [name for name, count in Counter(made + inputs + initializers).items() if count > 1] == []
    weights = {weight.name for weight in converted.graph.weights}
    for name, array in converted.structure.weights.items():
        assert array.origins <= weights
        assert not array.origins or name.rpartition("_")[0] in weights or name in weights


def check_layers(converted: Converted) -> None:
    namespaces = {layer.namespace for layer in converted.graph.layers}
    for node in all_nodes(converted.model.graph):
        (entry,) = [entry for entry in node.metadata_props if entry.key == "namespace"]
        assert entry.value in namespaces | {""}
    known = [node.layer in namespaces for node in converted.structure.nodes if node.op_type != "Identity"]
    assert sum(known) >= 0.95 * len(known)


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled((name for name in MODELS if not name.startswith("folded")), every=20))
def test_conversion(name: str) -> None:
    checked(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled((name for name in MODELS if name.startswith("folded")), every=6))
def test_batch_norms_are_folded_into_convolutions(name: str) -> None:
    converted = checked(name)
    arithmetic = set(converted.ops) - {"Conv", "ConvTranspose", "Relu"} - AROUND_CONVOLUTIONS
    assert not arithmetic or name in NOT_FOLDED
    assert all(array.transform == "folded" for array in converted.structure.weights.values()) or name in (
        # The first of its two convolutions has no norm behind it.
        "folded_separable2d",
        "folded_separable1d",
        *NOT_FOLDED,
    )


@pytest.mark.slow
def test_a_folded_kernel_keeps_the_name_of_the_kernel() -> None:
    weights = checked("folded_conv2d").structure.weights
    assert weights["conv2d/kernel"].shape == (6, 4, 3, 3)
    assert {"conv2d/kernel", "batch_normalization/gamma", "batch_normalization/moving_variance"} == set(
        weights["conv2d/kernel"].origins
    )
    (bias,) = set(weights) - {"conv2d/kernel"}
    assert len(weights[bias].origins) == 5


@pytest.mark.parametrize(
    ("name", "convolutions", "arithmetic"),
    [
        ("norm_before_conv", 1, {"Mul": 1, "Add": 1}),
        ("norm_after_add", 1, {"Add": 2, "Mul": 1}),
        ("shared_conv", 2, {}),
        ("shared_conv_no_bias", 2, {}),
        ("shared_conv_one_norm", 2, {}),
        ("conv_output_used_twice", 1, {"Mul": 1, "Add": 2}),
        ("conv_output_is_output", 1, {"Mul": 1, "Add": 1}),
        ("residual", 6, {"Add": 3}),
        ("siamese", 2, {"Sub": 1}),
    ],
)
@pytest.mark.slow
def test_what_is_folded_and_what_is_not(name: str, convolutions: int, arithmetic: dict[str, int]) -> None:
    ops = Counter(checked(name).ops)
    assert ops["Conv"] == convolutions
    assert {op: ops[op] for op in ("Mul", "Add", "Sub", "Div", "BatchNormalization") if ops[op]} == arithmetic


@pytest.mark.slow
def test_a_table_used_twice_is_stored_once() -> None:
    converted = checked("embedding_tied")
    tables = [name for name, array in converted.structure.weights.items() if "table/embeddings" in array.origins]
    assert sum(converted.structure.weights[name].size for name in tables) <= 2 * 66
    assert "table/embeddings" in tables


@pytest.mark.slow
def test_recurrent_layers_become_the_ops_of_onnx() -> None:
    for name in ("lstm", "lstm_any_length", "lstm_bidirectional", "lstm_backwards"):
        assert Counter(checked(name).ops)["LSTM"] == 1
    weights = checked("lstm").structure.weights
    assert {array.transform for array in weights.values()} == {"folded"}
    assert set(weights) == {"lstm/lstm_cell/kernel", "lstm/lstm_cell/recurrent_kernel", "lstm/lstm_cell/bias"}


@pytest.mark.slow
def test_a_weight_inside_of_a_loop_stays_outside_of_it_and_unread() -> None:
    for name in ("loop", "branch"):
        converted = checked(name)
        assert [proto.name for proto in converted.model.graph.initializer if "kernel" in proto.name]
        _, *bodies = graphs(converted.structure.model.graph)
        assert bodies
        assert all(len(proto.raw_data) <= 64 for body in bodies for proto in body.initializer)


@pytest.mark.parametrize("name", ["conv_conv2d", "lstm", "attention", "embedding_tied", "loop", "folded_depthwise2d"])
@pytest.mark.slow
def test_no_weight_is_read_before_the_file_is_written(name: str) -> None:
    structure = convert(MODELS[name]).structure
    assert structure.weights
    assert not any(proto.raw_data for proto in structure.model.graph.initializer if proto.name in structure.weights)
    with pytest.raises(AssertionError, match="was read"):
        next(iter(structure.weights.values())).real()


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("several_inputs_and_outputs", ["zeta", "alpha"], ["late", "early"]),
        ("dictionaries", ["alpha", "zeta"], ["first", "second"]),
        ("siamese", ["left", "right"], ["dense"]),
        ("duplicated_output", ["x"], ["head", "head_1"]),
        ("same_layer_twice", ["a", "b"], ["head", "head_1"]),
        ("output_is_input", ["x"], ["x_1", "head"]),
        ("output_named_like_input", ["x"], ["x_1"]),
        ("output_in_the_middle", ["x"], ["head", "hidden"]),
        ("unused_input", ["a", "unused"], ["dense"]),
        ("sequential", ["x"], ["dense_1"]),
    ],
)
@pytest.mark.slow
def test_names_of_inputs_and_outputs(name: str, inputs: list[str], outputs: list[str]) -> None:
    graph = convert(MODELS[name]).model.graph
    assert [value.name for value in graph.input] == inputs
    assert [value.name for value in graph.output] == outputs


def dims(value: onnx.ValueInfoProto) -> list[Any]:
    return [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]


@pytest.mark.slow
def test_a_dynamic_batch_is_called_batch() -> None:
    graph = checked("residual").model.graph
    assert dims(graph.input[0]) == ["batch", 8, 9, 4]
    assert dims(graph.output[0]) == ["batch", 3]
    graph = checked("any_image_size").model.graph
    assert dims(graph.input[0]) == ["batch", "x_dim_1", "x_dim_2", 3]


@pytest.mark.parametrize("name", ["residual", "lstm", "any_image_size"])
@pytest.mark.slow
def test_a_fixed_shape(name: str) -> None:
    shape = {"residual": (2, 8, 9, 4), "any_image_size": (2, 16, 12, 3)}.get(name, (2, 7, 6))
    converted = checked(name, shapes={"x": shape})
    assert dims(converted.model.graph.input[0]) == list(shape)
    assert dims(converted.model.graph.output[0])[0] == 2
    assert all(None not in (shape or ()) for node in converted.structure.nodes for shape in node.output_shapes)


@pytest.mark.slow
@pytest.mark.parametrize("name", sampled(BEYOND, every=4))
def test_what_cannot_be_converted_is_said(name: str) -> None:
    keras.utils.clear_session(free_memory=False)
    with pytest.raises(UnsupportedError) as caught:
        convert(BEYOND[name])
    error = caught.value
    named = {"stranger": "hidden", "untraceable": "Untraceable"}
    layer = named.get(name) or next(layer.name for layer in BEYOND[name]().layers[1:])
    assert layer in f"{error.where} {error.why}"
    assert error.what
    assert error.why
    assert error.hint
    assert "\x1b" not in str(error)
