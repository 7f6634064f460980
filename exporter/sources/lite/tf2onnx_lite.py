"""TensorFlow Lite ops that tf2onnx does not know, or converts into something slightly wrong.

Importing this module registers the handlers, over those of tf2onnx.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from tf2onnx import tfonnx as tfonnx  # Registers its own handlers first.
from tf2onnx.graph import Graph, Node
from tf2onnx.handler import tfl_op
from tf2onnx.tflite_handlers.tfl_math import TflDequantizeOp, separate_fused_activation_function
from tf2onnx.tflite_handlers.tfl_nn import TflTransposeConv

from exporter.sources.conversion.tf2onnx_arithmetic import constant, replace, step


def _const(graph: Graph, node: Node, value: float) -> str:
    dtype = helper.tensor_dtype_to_np_dtype(graph.get_dtype(node.input[0]))
    return graph.make_const(node.child_name(), np.array(value, dtype)).output[0]


@tfl_op("TFL_SOFTMAX", tf_op="Softmax")
class Softmax:
    """tf2onnx multiplies by `beta` behind the softmax, and not before it."""

    @classmethod
    def to_tf(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        beta = node.get_attr_value("beta", 1.0)
        if beta != 1:
            scaled = graph.make_node("Mul", [node.input[0], _const(graph, node, beta)], name=node.child_name())
            scaled.skip_conversion = True
            graph.copy_shape(node.output[0], scaled.output[0])
            graph.copy_dtype(node.output[0], scaled.output[0])
            graph.replace_input(node, node.input[0], scaled.output[0], 0)
        node.attr.pop("beta", None)


@tfl_op("TFL_TRANSPOSE_CONV", tf_op="Conv2DBackpropInput")
class TransposeConv:
    """Since version 3 of the op there may be a bias, which tf2onnx hands on to an op that takes none."""

    @classmethod
    def to_tf(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if len(node.input) == 4:
            bias = node.input[3]
            graph.replace_inputs(node, node.input[:3])
            # The activation goes behind the bias.
            activation = node.get_attr("fused_activation_function")
            node.set_attr("fused_activation_function", b"NONE")
            TflTransposeConv.to_tf(graph, node, **kwargs)
            added = graph.insert_new_node_on_output("Add", node.output[0], inputs=[node.output[0], bias])
            added.skip_conversion = True
            added.set_attr("fused_activation_function", activation.s)
            separate_fused_activation_function(graph, added)
        else:
            TflTransposeConv.to_tf(graph, node, **kwargs)


def _replace(graph: Graph, node: Node, made: str) -> None:
    graph.replace_all_inputs(node.output[0], made)
    graph.remove_node(node.name)


def _make(graph: Graph, like: Node, op: str, *inputs: str) -> str:
    found = graph.make_node(
        op, list(inputs), name=like.child_name(), shapes=[like.output_shapes[0]], dtypes=[like.output_dtypes[0]]
    )
    found.skip_conversion = True
    return found.output[0]


@tfl_op("TFL_GELU")
class Gelu:
    """x · Φ(x), or its approximation by tanh (Hendrycks and Gimpel, 2016)."""

    @classmethod
    def to_tf(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        x = node.input[0]
        if node.get_attr_value("approximate", 0):
            cube = _make(graph, node, "Mul", _make(graph, node, "Mul", x, x), x)
            inner = _make(graph, node, "Add", x, _make(graph, node, "Mul", cube, _const(graph, node, 0.044715)))
            inner = _make(graph, node, "Mul", inner, _const(graph, node, math.sqrt(2 / math.pi)))
            share = _make(graph, node, "Tanh", inner)
        else:
            share = _make(graph, node, "Erf", _make(graph, node, "Mul", x, _const(graph, node, math.sqrt(0.5))))
        half = _make(graph, node, "Mul", x, _const(graph, node, 0.5))
        factor = _make(graph, node, "Add", share, _const(graph, node, 1.0))
        _replace(graph, node, _make(graph, node, "Mul", half, factor))


def _clip(lowest: float, highest: float) -> Any:
    class Clip:
        @classmethod
        def to_tf(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
            bounds = (_const(graph, node, lowest), _const(graph, node, highest))
            _replace(graph, node, _make(graph, node, "Clip", node.input[0], *bounds))

    return Clip


tfl_op("TFL_RELU_N1_TO_1")(_clip(-1.0, 1.0))
tfl_op("TFL_RELU_0_TO_1")(_clip(0.0, 1.0))


@tfl_op("TFL_DENSIFY", tf_op="Identity")
class Densify:
    """Its constant has been read with all its zeros."""

    @classmethod
    def to_tf(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        node.attr.clear()


# What QuantizeLinear and DequantizeLinear take up to opset 18.
QUANTISED = (TensorProto.INT8, TensorProto.UINT8)


@tfl_op("TFL_QUANTIZE", onnx_op="QuantizeLinear")
class Quantize:
    """tf2onnx forgets all scales but the first of a tensor that has one for each channel, and that int16 has no op."""

    @classmethod
    def version_10(cls, graph: Graph, node: Node, dequantize: bool = False, **kwargs: Any) -> None:
        scale, zero_point = node.get_attr_value("scale"), node.get_attr_value("zero_point")
        dtype = graph.get_dtype(node.output[0])
        if dtype not in QUANTISED:
            _round(graph, node, dtype, scale, zero_point)
            return
        kind = helper.tensor_dtype_to_np_dtype(dtype)
        parameters = [np.array(scale, np.float32), np.array(zero_point).astype(kind)]
        if len(scale) > 1:
            node.set_attr("axis", node.get_attr_value("quantized_dimension"))
        else:
            parameters = [each[0] for each in parameters]
        constants = [graph.make_const(node.child_name(), np.asarray(each)).output[0] for each in parameters]
        graph.replace_inputs(node, [node.input[0], *constants])
        for name in ("scale", "zero_point", "quantized_dimension", "min", "max"):
            node.attr.pop(name, None)


def _round(graph: Graph, node: Node, dtype: int, scale: list[float], zero_point: list[int]) -> None:
    """QuantizeLinear as the arithmetic that it stands for."""
    if len(scale) > 1:
        raise ValueError("ONNX quantises to 8 bits where there is a scale for each channel")
    limits = np.iinfo(helper.tensor_dtype_to_np_dtype(dtype))
    value = step(graph, node, "Div", node.input[0], constant(graph, node, scale[0], np.float32))
    value = step(graph, node, "Round", value)
    value = step(graph, node, "Add", value, constant(graph, node, zero_point[0], np.float32))
    ends = (constant(graph, node, limit, np.float32) for limit in (limits.min, limits.max))
    replace(graph, node, "Cast", [step(graph, node, "Clip", value, *ends)], to=dtype)


@tfl_op("TFL_DEQUANTIZE", onnx_op="DequantizeLinear")
class Dequantize:
    """Of int16, and biases of int64, as arithmetic, which tf2onnx makes on demand only."""

    @classmethod
    def version_10(cls, graph: Graph, node: Node, dequantize: bool = False, **kwargs: Any) -> None:
        is_known = graph.get_dtype(node.input[0]) in (*QUANTISED, TensorProto.INT32)
        TflDequantizeOp.version_10(graph, node, dequantize=dequantize or not is_known, **kwargs)
