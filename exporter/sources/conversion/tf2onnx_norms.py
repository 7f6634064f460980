"""Norms and losses over a batch that ONNX has no op for. Importing registers handlers."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper
from tf2onnx import handler
from tf2onnx.graph import Graph, Node
from tf2onnx.graph_builder import GraphBuilder
from tf2onnx.onnx_opset import nn

from exporter.sources.conversion.tf2onnx_arithmetic import constant, numpy_dtype, replace, step


@handler.tf_op(["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"])
class BatchNorm:
    """In training the batch is normalised by its own mean and variance; tf2onnx takes those that are given.

    The other outputs are the mean and variance, which ONNX's op has in training only.
    """

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        result, *others = node.output
        used = {place + 1: name for place, name in enumerate(others) if _is_used(graph, name)}
        if not node.get_attr_value("is_training", True):
            values = dict(zip((1, 2, 3, 4), [*node.input[3:], *node.input[3:]], strict=True))
            node.output = [result]
            _name_outputs(graph, node, {used[place]: values[place] for place in used if place in values})
            nn.BatchNorm.version_9(graph, node, **kwargs)
            return
        shape = graph.get_shape(node.input[0])
        if shape is None:
            raise ValueError("its input has an unknown number of dimensions")
        if 5 in used:
            raise ValueError("its last output is for the gradient")
        values = _trained(graph, node, len(shape))
        node.output = [result]
        _name_outputs(graph, node, {used[place]: values[place] for place in used})
        replace(graph, node, "Cast", [values[0]], to=graph.get_dtype(result))


def _is_used(graph: Graph, name: str) -> bool:
    return name in graph.outputs or bool(graph.find_output_consumers(name))


def _name_outputs(graph: Graph, node: Node, values: dict[str, str]) -> None:
    """Let these outputs, which the node has no more, be these values."""
    for output, value in values.items():
        dtype, shape = graph.get_dtype(output), graph.get_shape(output)
        graph.make_node("Identity", [value], name=node.child_name(), outputs=[output], dtypes=[dtype], shapes=[shape])


def _trained(graph: Graph, node: Node, rank: int) -> dict[int, str]:
    """The outputs by their place, in the type of the mean."""
    builder = GraphBuilder(graph)
    is_last = not node.get_attr_value("data_format", b"NHWC").startswith(b"NC")
    axes = list(range(rank - 1)) if is_last else [0, *range(2, rank)]
    along = constant(graph, node, [-1] + [1] * (0 if is_last else rank - 2), np.int64)
    dtype = graph.get_dtype(node.input[1])
    x = step(graph, node, "Cast", node.input[0], to=dtype)
    mean = builder.make_reduce_mean({"data": x, "axes": axes, "keepdims": 1})
    centred = step(graph, node, "Sub", x, mean)
    squares = step(graph, node, "Mul", centred, centred)
    variance = builder.make_reduce_mean({"data": squares, "axes": axes, "keepdims": 1})
    epsilon = constant(graph, node, node.get_attr_value("epsilon", 1e-4), helper.tensor_dtype_to_np_dtype(dtype))
    deviation = step(graph, node, "Sqrt", step(graph, node, "Add", variance, epsilon))
    scale, offset = (step(graph, node, "Reshape", each, along) for each in node.input[1:3])
    scaled = step(graph, node, "Mul", step(graph, node, "Div", centred, deviation), scale)
    flat = constant(graph, node, [-1], np.int64)
    mean, variance = (step(graph, node, "Reshape", each, flat) for each in (mean, variance))
    moved = _moved(graph, node, mean, _unbiased(graph, node, x, variance))
    return {0: step(graph, node, "Add", scaled, offset), 1: moved[0], 2: moved[1], 3: mean, 4: variance}


def _unbiased(graph: Graph, node: Node, x: str, variance: str) -> str:
    """Of n numbers n ÷ (n - 1) times the variance."""
    dtype, one = graph.get_dtype(variance), constant(graph, node, 1, numpy_dtype(graph, node.input[1]))
    sizes = step(graph, node, "Cast", step(graph, node, "Size", x), to=dtype)
    count = step(graph, node, "Div", sizes, step(graph, node, "Cast", step(graph, node, "Size", variance), to=dtype))
    fewer = step(graph, node, "Max", step(graph, node, "Sub", count, one), one)
    return step(graph, node, "Mul", variance, step(graph, node, "Div", count, fewer))


def _moved(graph: Graph, node: Node, mean: str, variance: str) -> tuple[str, str]:
    """Those of the batch, or as far as `exponential_avg_factor` says from the given ones to them."""
    factor = node.get_attr_value("exponential_avg_factor", 1.0)
    if factor == 1.0:
        return mean, variance
    part, rest = (constant(graph, node, each, numpy_dtype(graph, node.input[1])) for each in (factor, 1 - factor))
    mean, variance = (
        step(graph, node, "Add", step(graph, node, "Mul", new, part), step(graph, node, "Mul", old, rest))
        for new, old in ((mean, node.input[3]), (variance, node.input[4]))
    )
    return mean, variance


@handler.tf_op("L2Loss")
class L2Loss:
    """Half of the sum of the squares."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        half = constant(graph, node, 0.5, numpy_dtype(graph, node.input[0]))
        squares = step(graph, node, "ReduceSumSquare", node.input[0], keepdims=0)
        replace(graph, node, "Mul", [squares, half])


@handler.tf_op("Cross")
class Cross:
    """a₂b₃ - a₃b₂ and so on, along the last axis."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        next_, last = ([1, 2, 0], [2, 0, 1])

        def turned(value: str, order: list[int]) -> str:
            return step(graph, node, "Gather", value, constant(graph, node, order, np.int64), axis=-1)

        a, b = node.input
        first = step(graph, node, "Mul", turned(a, next_), turned(b, last))
        second = step(graph, node, "Mul", turned(a, last), turned(b, next_))
        replace(graph, node, "Sub", [first, second])


@handler.tf_op(["InTopK", "InTopKV2"])
class InTopK:
    """Whether fewer than k predictions are larger than that of the target, which has to be finite."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        predictions, target, k = node.input[0], node.input[1], node.input[2]
        column = constant(graph, node, [1], np.int64)
        place = step(graph, node, "Unsqueeze", step(graph, node, "Cast", target, to=TensorProto.INT64), column)
        own = step(graph, node, "GatherElements", predictions, place, axis=1)
        larger = step(graph, node, "Cast", step(graph, node, "Greater", predictions, own), to=TensorProto.INT64)
        count = GraphBuilder(graph).make_reduce_sum({"data": larger, "axes": [1], "keepdims": 0})
        replace(graph, node, "Less", [count, step(graph, node, "Cast", k, to=TensorProto.INT64)])
