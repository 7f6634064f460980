"""TensorFlow ops that tf2onnx does not know, or converts into something slightly wrong.

Importing this module registers the handlers; `REWRITERS` is for `process_graphs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from tf2onnx import handler
from tf2onnx.graph import Graph, Node
from tf2onnx.graph_matcher import GraphMatcher, OpTypePattern
from tf2onnx.onnx_opset import controlflow, math, nn

# These register their handlers.
from exporter.sources.conversion import tf2onnx_convolutions as tf2onnx_convolutions
from exporter.sources.conversion import tf2onnx_einsum as tf2onnx_einsum
from exporter.sources.conversion.tf2onnx_tables import rewrite_equal_text, rewrite_one_bucket


@handler.tf_op("Erfc")
class Erfc:
    """erfc(x) = 1 - erf(x); Keras's exact `gelu` uses it."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        erf = graph.make_node("Erf", node.input, name=node.child_name()).output[0]
        _replace(graph, node, "Sub", [_one_like(graph, node), erf])


@handler.tf_op("Expm1")
class Expm1:
    """expm1(x) = exp(x) - 1; Keras's `celu` uses it."""

    @classmethod
    def version_6(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        exp = graph.make_node("Exp", node.input, name=node.child_name()).output[0]
        _replace(graph, node, "Sub", [exp, _one_like(graph, node)])


# What both ONNX's `Where` and ONNX Runtime's take.
SELECTABLE = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64)


@handler.tf_op(["Select", "SelectV2"])
class Select:
    """tf2onnx adds up products with the condition, six nodes in which an infinity that is not chosen makes a NaN."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        ranks = [len(shape) if (shape := graph.get_shape(name)) is not None else None for name in node.input[:2]]
        # The older op lets a vector choose rows.
        broadcasts = node.type == "SelectV2" or (ranks[0] is not None and ranks[0] == ranks[1])
        if broadcasts and graph.get_dtype(node.output[0]) in SELECTABLE:
            node.type = "Where"
        else:
            controlflow.Select.version_9(graph, node, **kwargs)


@handler.tf_op("FloorMod")
class FloorMod:
    """Of whole numbers, ONNX's `Mod` has the sign of the divisor too; tf2onnx divides towards zero."""

    @classmethod
    def version_10(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if np.dtype(helper.tensor_dtype_to_np_dtype(graph.get_dtype(node.input[0]))).kind == "i":
            _replace(graph, node, "Mod", node.input)
        else:
            math.FloorMod.version_7(graph, node, **kwargs)


def _one_like(graph: Graph, node: Node) -> str:
    dtype = helper.tensor_dtype_to_np_dtype(graph.get_dtype(node.output[0]))
    return graph.make_const(node.child_name(), np.array(1, dtype)).output[0]


def _replace(graph: Graph, node: Node, op_type: str, inputs: list[str]) -> None:
    """The same node name and output, made by another op."""
    shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, node.output
    graph.remove_node(node.name)
    graph.make_node(op_type, inputs, name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)


@handler.tf_op(["ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic"])
class Resize:
    """tf2onnx gives known sizes to ONNX as scales, and rounding makes some of those miss by a pixel.

    (Nine rows times ¹³⁄₉ are twelve.) Behind an `Identity` it does not know the size that is wanted, and writes sizes.
    """

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if node.type != "ResizeNearestNeighbor" and graph.get_dtype(node.input[0]) != TensorProto.FLOAT:
            # TensorFlow's interpolates in float32 whatever it is given, ONNX's in what it is given.
            graph.insert_new_node_on_input(node, "Cast", node.input[0], to=TensorProto.FLOAT)
        shape = graph.get_shape(node.input[0])
        if shape and node.inputs[1].is_const():
            wanted = node.inputs[1].get_tensor_value(as_list=True)
            if not all(map(_scale_is_exact, shape[1:3], wanted)):
                hidden = graph.make_node("Identity", [node.input[1]], name=node.child_name()).output[0]
                graph.replace_input(node, node.input[1], hidden, 1)
        nn.Resize.version_11(graph, node, **kwargs)


def _scale_is_exact(size: int, wanted: int) -> bool:
    """The scale is kept in single precision; readers multiply in single or double and round down.

    An unknown size (-1) is never given as a scale.
    """
    if size < 1:
        return True
    scale = np.float32(wanted / size)
    return int(np.float32(size) * scale) == wanted == int(size * float(scale))


def rewrite_sign_bit(graph: Graph, ops: list[Node]) -> list[Node]:
    """`bitcast(x) & int32.min < 0`, by which Keras's `argmax` finds negative zeros, without a bit cast.

    The sign of a number is that of the number, for a zero that of its reciprocal.
    """
    pattern = OpTypePattern(
        "Less",
        name="less",
        inputs=[OpTypePattern("BitwiseAnd", inputs=[OpTypePattern("Bitcast", name="cast"), "Const"]), "Const"],
    )
    for match in GraphMatcher(pattern).match_ops(ops):
        less, value = match.get_op("less"), match.get_op("cast").input[0]
        dtype, shape = graph.get_dtype(value), graph.get_shape(value)
        zero = graph.make_const(less.child_name(), np.zeros((), helper.tensor_dtype_to_np_dtype(dtype))).output[0]

        def make(op: str, *inputs: str, scope: Node = less, like: Any = (dtype, shape)) -> str:
            dtype, shape = like
            return graph.make_node(
                op, inputs, name=scope.child_name(), dtypes=[dtype], shapes=[shape], skip_conversion=False
            ).output[0]

        is_zero = make("Equal", value, zero, like=(TensorProto.BOOL, shape))
        signed = make("SelectV2", is_zero, make("Reciprocal", value), value)
        graph.replace_inputs(less, [signed, zero])
    return graph.get_nodes()


REWRITERS: list[Callable[[Graph, list[Node]], list[Node]]] = [rewrite_sign_bit, rewrite_equal_text, rewrite_one_bucket]
