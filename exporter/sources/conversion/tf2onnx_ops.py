"""TensorFlow ops that tf2onnx does not know, or converts into something slightly wrong.

Importing this module registers the handlers; `REWRITERS` is for `process_graphs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from tf2onnx import handler
from tf2onnx.graph import Graph, Node
from tf2onnx.graph_matcher import GraphMatcher, OpTypePattern
from tf2onnx.onnx_opset import controlflow

# These register their handlers.
from exporter.sources.conversion import tf2onnx_convolutions as tf2onnx_convolutions
from exporter.sources.conversion import tf2onnx_detection as tf2onnx_detection
from exporter.sources.conversion import tf2onnx_einsum as tf2onnx_einsum
from exporter.sources.conversion import tf2onnx_indexing as tf2onnx_indexing
from exporter.sources.conversion import tf2onnx_norms as tf2onnx_norms
from exporter.sources.conversion import tf2onnx_quantising, tf2onnx_types
from exporter.sources.conversion import tf2onnx_resizing as tf2onnx_resizing
from exporter.sources.conversion import tf2onnx_segments as tf2onnx_segments
from exporter.sources.conversion.tf2onnx_arithmetic import constant, replace, step
from exporter.sources.conversion.tf2onnx_tables import rewrite_equal_text, rewrite_one_bucket


@handler.tf_op("Erfc")
class Erfc:
    """erfc(x) = 1 - erf(x); Keras's exact `gelu` uses it."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        erf = graph.make_node("Erf", node.input, name=node.child_name()).output[0]
        replace(graph, node, "Sub", [_one_like(graph, node), erf])


@handler.tf_op("Log1p")
class Log1p:
    """log1p(x) = log(1 + x), exact to 6e-8, not relative to x."""

    @classmethod
    def version_6(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        more = graph.make_node("Add", [node.input[0], _one_like(graph, node)], name=node.child_name()).output[0]
        replace(graph, node, "Log", [more])


@handler.tf_op("Expm1")
class Expm1:
    """expm1(x) = exp(x) - 1; Keras's `celu` uses it."""

    @classmethod
    def version_6(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        exp = graph.make_node("Exp", node.input, name=node.child_name()).output[0]
        replace(graph, node, "Sub", [exp, _one_like(graph, node)])


# What both ONNX's `Where` and ONNX Runtime's take.
SELECTABLE = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64)


@handler.tf_op(["Select", "SelectV2"])
class Select:
    """tf2onnx adds up products with the condition, six nodes in which an infinity that is not chosen makes a NaN."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        shapes = [graph.get_shape(name) for name in node.input[:2]]
        ranks = [len(shape) if shape is not None else None for shape in shapes]
        if graph.get_dtype(node.output[0]) not in SELECTABLE:
            controlflow.Select.version_9(graph, node, **kwargs)
        elif node.type == "SelectV2" or ranks[0] == 0 or (ranks[0] is not None and ranks[0] == ranks[1]):
            node.type = "Where"
        elif ranks[0] == 1 and shapes[1] is not None:
            # The older op lets a vector choose rows.
            per_row = constant(graph, node, [-1] + [1] * (len(shapes[1]) - 1), np.int64)
            graph.replace_input(node, node.input[0], step(graph, node, "Reshape", node.input[0], per_row), 0)
            node.type = "Where"
        else:
            controlflow.Select.version_9(graph, node, **kwargs)


def _one_like(graph: Graph, node: Node) -> str:
    dtype = helper.tensor_dtype_to_np_dtype(graph.get_dtype(node.output[0]))
    return graph.make_const(node.child_name(), np.array(1, dtype)).output[0]


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


@contextmanager
def corrected() -> Iterator[None]:
    """Without the faults of tf2onnx's own rewriters until the block ends."""
    with ExitStack() as stack:
        for part in (tf2onnx_convolutions, tf2onnx_indexing, tf2onnx_quantising, tf2onnx_types):
            stack.enter_context(part.installed())
        yield
