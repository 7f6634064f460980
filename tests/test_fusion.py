"""Formulas become the ops that runtimes know, with Keras's numbers; what only looks like one of them stays."""

from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from conversion import Build, Converted, convert, filled, random_inputs, run_keras, run_onnx
from keras import layers, ops
from models import MODELS
from onnx import TensorProto, helper

from exporter.errors import UnsupportedError
from exporter.sources.conversion import opsets
from exporter.sources.conversion.tf2onnx_einsum import as_product

IMAGE = (8, 9, 4)


def of(call: Callable[[Any], Any], shape: tuple[int | None, ...] = (7, 6)) -> Build:
    """A model of what `call` makes of its input, which makes its layers anew each time."""

    def build() -> Any:
        x = keras.Input(shape, name="x")
        return keras.Model(x, call(x))

    return build


def checked(build: Build, opset: int = 18, tolerance: float = 1e-5) -> Converted:
    """Converted; on random inputs and weights ONNX Runtime gives what Keras gives."""
    keras.utils.clear_session(free_memory=False)
    real = filled(build())
    converted = convert(build, real, opset=opset)
    onnx.checker.check_model(converted.model, full_check=True)
    arrays = random_inputs(real.inputs)
    for theirs, ours in zip(run_keras(real, arrays), run_onnx(converted, arrays), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(1, np.abs(theirs).max()))
    return converted


def optimised_ops(converted: Converted, folder: Path) -> list[str]:
    """The types of the nodes that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(converted.model.SerializeToString(), options, ["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


# Layer normalisation.

NORMS = {
    "both": lambda x: layers.LayerNormalization()(x),
    "no_scale": lambda x: layers.LayerNormalization(scale=False)(x),
    "no_centre": lambda x: layers.LayerNormalization(center=False)(x),
    "bare": lambda x: layers.LayerNormalization(center=False, scale=False)(x),
    "two_axes": lambda x: layers.LayerNormalization(axis=(1, 2))(x),
    "far_from_zero": lambda x: layers.LayerNormalization(epsilon=1e-6)(x * 0.1 + 30.0),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.slow
def test_layer_norm(name: str) -> None:
    converted = checked(of(NORMS[name]), tolerance=1e-4)
    assert Counter(converted.ops)["LayerNormalization"] == 1
    assert not {"ReduceMean", "Sqrt", "Reciprocal"} & set(converted.ops)
    (node,) = [node for node in converted.structure.nodes if node.op_type == "LayerNormalization"]
    assert node.layer == "layer_normalization"
    assert node.match_kind == "recorded"


@pytest.mark.slow
def test_layer_norm_before_its_op(tmp_path: Path) -> None:
    """At opset 16 it is the formula that ONNX Runtime fuses."""
    converted = checked(of(NORMS["both"], (6,)), opset=16)
    assert "LayerNormalization" not in converted.ops
    assert len(converted.ops) == 9
    assert optimised_ops(converted, tmp_path) == ["LayerNormalization"]


@pytest.mark.slow
def test_layer_norm_between_convolution_and_dense() -> None:
    """Channels come first behind a convolution: the transposition for the dense layer is done before the norm."""

    def call(x: Any) -> Any:
        return layers.Dense(5)(layers.LayerNormalization()(layers.Conv2D(6, 3)(x)))

    assert checked(of(call, IMAGE)).ops[2:] == ["Transpose", "LayerNormalization", "MatMul", "Add"]


@pytest.mark.slow
def test_layer_norm_between_convolutions() -> None:
    """There are no transpositions to be saved, and the op would need two."""

    def call(x: Any) -> Any:
        return layers.Conv2D(5, 3)(layers.LayerNormalization()(layers.Conv2D(6, 3)(x)))

    ops_found = Counter(checked(of(call, IMAGE)).ops)
    assert not ops_found["LayerNormalization"]
    assert ops_found["Transpose"] == 2
    assert ops_found["Div"] == 1
    assert not ops_found["Reciprocal"]


def near_norm(x: Any, axis: int = -1, square_axis: int = -1, leak: bool = False) -> Any:
    mean = ops.mean(x, axis=axis, keepdims=True)
    variance = ops.mean(ops.square(x - mean), axis=square_axis, keepdims=True)
    scale = ops.rsqrt(variance + 0.001)
    result = x * scale + -mean * scale
    return [result, variance] if leak else result


@pytest.mark.parametrize(
    "call",
    [
        lambda x: near_norm(x, axis=1, square_axis=1),
        lambda x: near_norm(x, axis=1),
        lambda x: near_norm(x, square_axis=1),
        lambda x: near_norm(x, leak=True),
        lambda x: [(y := near_norm(x)), y + ops.mean(x, axis=-1, keepdims=True)],
    ],
    ids=["first_axis", "mean_over_another", "variance_over_another", "variance_is_an_output", "mean_used_again"],
)
@pytest.mark.slow
def test_no_layer_norm(call: Callable[[Any], Any]) -> None:
    assert "LayerNormalization" not in checked(of(call), tolerance=1e-4).ops


@pytest.mark.slow
def test_rms_norm() -> None:
    assert checked(of(lambda x: layers.RMSNormalization()(x)), opset=23).ops == ["RMSNormalization"]
    assert "RMSNormalization" not in checked(of(lambda x: layers.RMSNormalization()(x)), opset=22).ops


@pytest.mark.slow
def test_no_rms_norm() -> None:
    def call(x: Any) -> Any:
        scale = ops.arange(6, dtype="float32")
        over_another_axis = x * ops.rsqrt(ops.mean(ops.square(x), axis=1, keepdims=True) + 1e-6) * scale
        inner = ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6)
        return [over_another_axis, x * inner * scale, inner]

    assert "RMSNormalization" not in checked(of(call), opset=23).ops


# Activations.


def gelu(x: Any) -> Any:
    return ops.gelu(x, approximate=False)


def erfc(x: Any) -> Any:
    return 1.0 - ops.erf(x)


@pytest.mark.slow
def test_gelu(tmp_path: Path) -> None:
    assert checked(of(gelu), opset=20).ops == ["Gelu"]
    assert checked(of(lambda x: 0.5 * x * erfc(-x * 0.5**0.5)), opset=20).ops == ["Gelu"]
    assert checked(of(lambda x: ops.gelu(x, approximate=True)), opset=20).ops == ["Gelu"]
    older = checked(of(gelu), opset=19)
    assert older.ops == ["Div", "Erf", "Add", "Mul", "Mul"]
    assert optimised_ops(older, tmp_path) == ["Gelu"]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: 0.5 * x * erfc(-x * 0.7),
        lambda x: 0.4 * x * erfc(-x * 0.5**0.5),
        lambda x: 0.5 * (x + 1) * erfc(-x * 0.5**0.5),
        lambda x: [(y := erfc(-x * 0.5**0.5)), 0.5 * x * y],
        lambda x: 0.5 * x * (1 + ops.tanh(0.8 * (x + 0.044715 * x**3))),
    ],
    ids=["other_slope", "other_factor", "another_value", "inner_output", "other_constant_in_tanh"],
)
@pytest.mark.slow
def test_no_gelu(call: Callable[[Any], Any]) -> None:
    assert "Gelu" not in checked(of(call), opset=20).ops


@pytest.mark.parametrize(
    ("name", "opset", "expected"),
    [
        ("hard_sigmoid", 13, ["HardSigmoid"]),
        ("hard_silu", 14, ["HardSwish"]),
        ("hard_silu", 13, ["HardSigmoid", "Mul"]),
        ("mish", 18, ["Mish"]),
        ("mish", 17, ["Softplus", "Tanh", "Mul"]),
        ("softplus", 18, ["Softplus"]),
        ("log_softmax", 18, ["LogSoftmax"]),
        ("leaky_relu", 18, ["LeakyRelu"]),
        ("relu6", 18, ["Clip"]),
    ],
)
@pytest.mark.slow
def test_activations(name: str, opset: int, expected: list[str]) -> None:
    assert checked(of(lambda x: layers.Activation(name)(x)), opset).ops == expected


@pytest.mark.parametrize(
    ("call", "absent"),
    [
        (lambda x: ops.relu6(x + 3.0) * 0.2, "HardSigmoid"),
        (lambda x: ops.clip(x + 3.0, 1.0, 6.0) / 6.0, "HardSigmoid"),
        (lambda x: (x + 1.0) * ops.hard_sigmoid(x), "HardSwish"),
        (lambda x: [(y := ops.hard_sigmoid(x)), x * y], "HardSwish"),
        (lambda x: x * (ops.clip(x + 3.0, 0.0, 4.0) / 4.0), "HardSwish"),
        (lambda x: (x + 1.0) * ops.tanh(ops.softplus(x)), "Mish"),
    ],
    ids=["slope", "lower_bound", "another_value", "gate_is_an_output", "other_bound", "another_value_in_mish"],
)
@pytest.mark.slow
def test_near_activations(call: Callable[[Any], Any], absent: str) -> None:
    assert absent not in checked(of(call)).ops


# Products.


@pytest.mark.slow
def test_dense_is_one_product() -> None:
    assert checked(MODELS["dense_rank_2"]).ops == ["Gemm", "Relu"]
    assert checked(MODELS["dense_rank_3"]).ops == ["MatMul", "Add"]
    assert checked(MODELS["dense_rank_4"]).ops == ["MatMul"]
    assert checked(of(lambda x: layers.Dense(5)(x), (None, None, 6))).ops == ["MatMul", "Add"]


@pytest.mark.slow
def test_no_gemm_of_a_product_that_is_used_twice() -> None:
    def call(x: Any) -> Any:
        y = layers.Dense(5, use_bias=False)(x)
        return [layers.Dense(5)(x), y, y + ops.arange(5, dtype="float32")]

    assert sorted(checked(of(call, (6,))).ops) == ["Add", "Gemm", "MatMul"]


@pytest.mark.parametrize("axes", [1, [[-1], [0]], [[2], [0]]])
@pytest.mark.slow
def test_tensordot_with_a_matrix(axes: Any) -> None:
    def call(x: Any) -> Any:
        return ops.tensordot(x, ops.reshape(ops.arange(12, dtype="float32"), (6, 2)), axes=axes)

    assert checked(of(call)).ops == ["MatMul"]


@pytest.mark.parametrize("axes", [[[1], [0]], [[-1], [1]], 2, 0])
@pytest.mark.slow
def test_other_tensordots(axes: Any) -> None:
    sizes = {"[[1], [0]]": (7, 2), "[[-1], [1]]": (2, 6), "2": (7, 6), "0": (2, 3)}[str(axes)]
    checked(of(lambda x: ops.tensordot(x, ops.ones(sizes) * 0.5, axes=axes)))


@pytest.mark.slow
def test_norms_go_into_dense_layers() -> None:
    def call(x: Any) -> Any:
        return layers.BatchNormalization()(layers.BatchNormalization()(layers.Dense(5)(x)))

    assert checked(of(call, (6,))).ops == ["Gemm"]
    assert checked(of(call)).ops == ["MatMul", "Add"]


@pytest.mark.slow
def test_norms_that_do_not_go_into_dense_layers() -> None:
    def call(x: Any) -> Any:
        y = layers.Dense(7, name="head")(x)
        return [y, layers.BatchNormalization()(y), layers.BatchNormalization(axis=1)(layers.Dense(7)(x))]

    assert Counter(checked(of(call, (7, 6))).ops)["Mul"] == 2


@pytest.mark.slow
def test_attention() -> None:
    """Three projections, two products, a softmax and the projection of the result, each with its bias beside it."""
    converted = checked(of(lambda x: layers.MultiHeadAttention(2, 3)(x, x)))
    expected = {"MatMul": 6, "Add": 4, "Reshape": 4, "Transpose": 4, "Mul": 1, "Softmax": 1}
    assert dict(Counter(converted.ops)) == expected
    # The batch keeps its name through the reshapes.
    assert all(
        value.type.tensor_type.shape.dim[0].dim_param == "batch"
        for value in [*converted.model.graph.value_info, *converted.model.graph.output]
    )


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("BTNH,BSNH->BNTS", ((2, 5, 3, 4), (2, 6, 3, 4))),
        ("BNTS,BSNH->BTNH", ((2, 3, 5, 6), (2, 6, 3, 4))),
        ("abc,cd->abd", ((2, 3, 4), (4, 5))),
        ("abc,dc->bad", ((2, 3, 4), (5, 4))),
        ("abc,cd->dab", ((2, 3, 4), (4, 5))),
        ("ab,ca->bc", ((2, 3), (4, 2))),
    ],
)
def test_einsum_as_a_product(equation: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    product = as_product(equation)
    assert product is not None
    left, right = (np.random.default_rng(0).standard_normal(shape) for shape in shapes)
    result = np.matmul(left.transpose(product.left), right.transpose(product.right)).transpose(product.result)
    np.testing.assert_allclose(result, np.einsum(equation, left, right), rtol=1e-12)


@pytest.mark.parametrize(
    "equation",
    ["ab,ab->a", "ab,cd->abcd", "aab,bc->ac", "...b,bc->...c", "ab->ba", "ab,bc,cd->ad", "abc,cd->ad", "ab,bc"],
)
def test_einsum_that_is_no_product(equation: str) -> None:
    assert as_product(equation) is None


@pytest.mark.slow
def test_other_einsums() -> None:
    checked(of(lambda x: [ops.einsum("abc,abc->ab", x, x), ops.einsum("abc,adc->abd", x, x)]))


# Images and indices.


@pytest.mark.slow
def test_padding_goes_into_convolutions() -> None:
    def call(x: Any) -> Any:
        return layers.DepthwiseConv2D(3, 2)(layers.ZeroPadding2D(((0, 1), (2, 0)))(layers.Conv2D(4, 1)(x)))

    assert "Pad" not in checked(of(call, IMAGE)).ops


@pytest.mark.slow
def test_padding_goes_into_maxima_of_what_is_not_negative() -> None:
    def pooled(activation: str, amount: int) -> Build:
        def call(x: Any) -> Any:
            y = layers.ZeroPadding2D(amount)(layers.Conv2D(4, 1, activation=activation)(x))
            return layers.MaxPooling2D(3, 2)(y)

        return of(call, IMAGE)

    assert "Pad" not in checked(pooled("relu", 1)).ops
    assert "Pad" in checked(pooled("linear", 1)).ops
    assert "Pad" in checked(pooled("relu", 3)).ops


@pytest.mark.slow
def test_padding_that_stays() -> None:
    def call(x: Any) -> Any:
        padded = ops.pad(layers.Conv2D(4, 1)(x), [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0)
        return layers.Conv2D(3, 3)(padded)

    assert "Pad" in checked(of(call, IMAGE)).ops


@pytest.mark.slow
def test_squeeze_and_excite() -> None:
    """The mean of an image keeps its axes, in the layout of the convolutions."""

    def call(x: Any) -> Any:
        y = layers.Conv2D(4, 3)(x)
        gate = layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D()(y))
        return layers.Conv2D(5, 1)(layers.Multiply()([y, layers.Conv2D(4, 1, activation="sigmoid")(gate)]))

    found = Counter(checked(of(call, IMAGE)).ops)
    assert found["GlobalAveragePool"] == 1
    assert found["Transpose"] == 2
    assert not found["Reshape"]
    assert not found["ReduceMean"]


@pytest.mark.slow
def test_embedding_is_one_gather() -> None:
    assert checked(MODELS["embedding"]).ops == ["Gather"]


def test_indices_from_the_end() -> None:
    x = np.random.default_rng(0).standard_normal((2, 7, 6)).astype(np.float32)
    build = of(lambda x: ops.take(x, ops.cast(ops.floor(ops.tanh(x[0, :, 0])), "int32"), axis=1))
    converted = checked(build)
    assert "Where" not in converted.ops
    np.testing.assert_allclose(run_onnx(converted, [x])[0], run_keras(build(), [x])[0])


@pytest.mark.slow
def test_a_choice_is_not_a_sum_of_products() -> None:
    """0 · ∞ is not a number: what is not chosen must not take part."""
    build = of(lambda x: ops.where(x > 0, x, ops.exp(-100.0 * x)))
    converted = checked(of(lambda x: ops.where(x > 0, x, ops.exp(x))))
    assert "Where" in converted.ops
    x = np.full((2, 7, 6), 5.0, np.float32) * np.array([1, -0.1], np.float32)[:, None, None]
    x = np.maximum(x, 0.5)
    real = build()
    np.testing.assert_allclose(run_onnx(convert(build, real), [x])[0], run_keras(real, [x])[0])


# Opsets.


def one_node(op_type: str, opset: int, inputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, None) for i in range(inputs)]
    node = helper.make_node(op_type, [value.name for value in values], ["y"], "the node", **attributes)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", values, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


@pytest.mark.parametrize(
    ("model", "opset"),
    [
        (one_node("DFT", 18, axis=1), 20),
        (one_node("GroupNormalization", 18, 3, num_groups=2), 21),
        (one_node("GridSample", 18, 2, mode="bilinear"), 20),
    ],
    ids=["DFT", "GroupNormalization", "GridSample"],
)
def test_ops_that_changed_are_refused(model: onnx.ModelProto, opset: int) -> None:
    with pytest.raises(UnsupportedError) as raised:
        opsets.declare(model, opset)
    assert f"opset {opset}" in str(raised.value)
    assert raised.value.hint == "--opset 18"
    opsets.declare(model, opset - 1)


def test_ops_that_did_not_change_are_taken_over() -> None:
    model = one_node("AveragePool", 18, kernel_shape=[2, 2])
    before = model.graph.SerializeToString()
    opsets.declare(model, 28)
    assert model.graph.SerializeToString() == before
    assert model.opset_import[0].version == 28
    assert model.ir_version == 14


@pytest.mark.parametrize(("opset", "version"), [(13, 10), (18, 10), (21, 10), (23, 11), (24, 12), (25, 13)])
def test_the_format_is_the_oldest_that_will_do(opset: int, version: int) -> None:
    assert opsets.ir_version(opset) == version
