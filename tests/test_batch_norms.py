"""Batch norms are traced as a multiplication and an addition, and compute what Keras computes."""

from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from conversion import Converted, convert, filled, hollow_twin, run_onnx

from exporter.sources.conversion.tracing import trace
from exporter.sources.keras_models.describe import describe, layer_namespaces

WIDTH = 8


def norm_model(**settings: Any) -> Callable[[], Any]:
    def build() -> Any:
        inputs = keras.Input((4, 6, WIDTH), name="x")
        # Not behind a convolution, which would take the norm in.
        x = keras.layers.Activation("tanh", name="before")(inputs)
        outputs = keras.layers.BatchNormalization(name="norm", **settings)(x)
        return keras.Model(inputs, keras.layers.Activation("tanh", name="after")(outputs))

    return build


def compared(build: Callable[[], Any], tolerance: float = 1e-5) -> Converted:
    keras.utils.clear_session(free_memory=False)
    real = filled(build())
    converted = convert(build, real)
    values = np.random.default_rng(3).standard_normal((2, *real.inputs[0].shape[1:])).astype(real.inputs[0].dtype)
    expected = np.asarray(real(keras.ops.convert_to_tensor(values), training=False))
    (found,) = run_onnx(converted, [values])
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    return converted


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"axis": 1},
        {"axis": 2},
        {"axis": 3},
        {"scale": False},
        {"center": False},
        {"scale": False, "center": False},
        {"epsilon": 0.5},
        {"renorm": True},
        {"dtype": "float64"},
        {"trainable": False},
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_batch_norm_is_two_operations(settings: dict[str, Any]) -> None:
    ops = Counter(compared(norm_model(**settings)).ops)
    assert (ops["Mul"], ops["Add"], ops["Sub"], ops["Div"], ops["Sqrt"], ops["Reshape"]) == (1, 1, 0, 0, 0, 0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_batch_norms_in_half_precision_compute_in_single(policy: str) -> None:
    with hollow_twin(norm_model(dtype=policy)) as model:
        traced = trace(model, describe(model, "m").inputs, layer_namespaces(model))
    nodes = {node.name: node for node in traced.graph_def.node}
    assert len(traced.combinations) == 2
    assert {nodes[name].attr["dtype"].type for name in traced.combinations} == {onnx.TensorProto.FLOAT}


def test_tracing_a_batch_norm_leaves_the_combining_of_its_weights_out() -> None:
    with hollow_twin(norm_model()) as model:
        traced = trace(model, describe(model, "m").inputs, layer_namespaces(model))
    ops = Counter(node.op for node in traced.graph_def.node)
    assert (ops["Mul"], ops["AddV2"], ops["Rsqrt"], ops["Sub"]) == (1, 1, 0, 0)
    assert {traced.owners.find(name)[0] for name in traced.combinations} == {"norm"}


def test_a_shared_batch_norm_is_applied_at_each_place() -> None:
    def build() -> Any:
        inputs = keras.Input((5, WIDTH), name="x")
        norm = keras.layers.BatchNormalization(name="norm")
        return keras.Model(inputs, norm(keras.ops.tanh(norm(inputs))))

    assert Counter(compared(build).ops)["Mul"] == 2


@pytest.mark.slow
def test_a_batch_norm_inside_of_a_loop_is_left_to_keras() -> None:
    def build() -> Any:
        class Cell(keras.layers.SimpleRNNCell):
            def __init__(self, **settings: Any) -> None:
                super().__init__(WIDTH, **settings)
                self.norm = keras.layers.BatchNormalization(name="norm")

            def build(self, shape: Any) -> None:
                super().build(shape)
                self.norm.build(shape)

            def call(self, sequence: Any, states: Any, training: bool = False) -> Any:
                return super().call(self.norm(sequence, training=training), states, training=training)

        inputs = keras.Input((5, WIDTH), name="x")
        return keras.Model(inputs, keras.layers.RNN(Cell(), name="rnn")(inputs))

    assert "Loop" in compared(build, 1e-4).ops
