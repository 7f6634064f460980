"""Sums, products, maxima and means of the rows of each segment. Importing this module registers handlers.

tf2onnx sorts the rows, takes negative numbers of segments, whose rows do not count, from the end, and makes NaN or
infinity of segments without rows. Here each row is scattered to its segment, which ONNX's reductions take in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from tf2onnx import handler
from tf2onnx.graph import Graph, Node

from exporter.sources.conversion.tf2onnx_arithmetic import constant, numpy_dtype, replace, step

REDUCTIONS = {"Sum": "add", "Mean": "add", "SqrtN": "add", "Prod": "mul", "Max": "max", "Min": "min"}
UNSORTED = [f"UnsortedSegment{kind}" for kind in ("Sum", "Prod", "Max", "Min")]
SORTED = [f"Segment{kind}" for kind in ("Sum", "Mean", "Prod", "Max", "Min")]
SPARSE = [f"SparseSegment{kind}{ending}" for kind in ("Sum", "Mean", "SqrtN") for ending in ("", "WithNumSegments")]


@handler.tf_op([*UNSORTED, *SORTED, *SPARSE])
class Segments:
    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        raise ValueError("ONNX reduces what is scattered from --opset 18 on")

    @classmethod
    def version_18(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        kind = next(kind for kind in REDUCTIONS if kind in node.type)
        data, numbers = node.input[0], node.input[1]
        if node.type in SPARSE:
            data, numbers = step(graph, node, "Gather", data, numbers), node.input[2]
        numbers = step(graph, node, "Cast", numbers, to=TensorProto.INT64)
        count = _count(graph, node, numbers)
        if node.type in UNSORTED:
            data = step(graph, node, "Reshape", data, _flat_shape(graph, node, data, numbers))
            numbers = step(graph, node, "Reshape", numbers, constant(graph, node, [-1], np.int64))
        rows = step(graph, node, "Slice", step(graph, node, "Shape", data), *_ends(graph, node, 1, None))
        numbers = _nobody_for_negative(graph, node, numbers, count)
        start = constant(graph, node, _start(kind, dtype := numpy_dtype(graph, node.input[0])), dtype)
        result = _scattered(graph, node, (start, rows), numbers, count, data, REDUCTIONS[kind])
        if node.type not in UNSORTED and kind not in ("Prod", "Sum"):
            result = _of_their_number(graph, node, result, numbers, count, kind)
        replace(graph, node, "Identity", [result])


def _ends(graph: Graph, node: Node, start: int, stop: int | None) -> tuple[str, str]:
    """The inputs of a `Slice` along the first axis."""
    last = np.iinfo(np.int64).max if stop is None else stop
    return constant(graph, node, [start], np.int64), constant(graph, node, [last], np.int64)


def _count(graph: Graph, node: Node, numbers: str) -> str:
    """How many segments there are, as a vector of one."""
    one = constant(graph, node, [1], np.int64)
    if len(node.input) > 2 + (node.type in SPARSE):
        wanted = step(graph, node, "Cast", node.input[-1], to=TensorProto.INT64)
        return step(graph, node, "Reshape", wanted, one)
    largest = step(graph, node, "ReduceMax", numbers, keepdims=0)
    return step(graph, node, "Reshape", step(graph, node, "Add", largest, one), one)


def _flat_shape(graph: Graph, node: Node, data: str, numbers: str) -> str:
    """Of the data with all axes that the numbers have too as one."""
    shape = graph.get_shape(numbers)
    if shape is None:
        raise ValueError("the numbers of its segments have an unknown number of dimensions")
    rest = step(graph, node, "Slice", step(graph, node, "Shape", data), *_ends(graph, node, len(shape), None))
    if not shape:
        return step(graph, node, "Concat", constant(graph, node, [1], np.int64), rest, axis=0)
    together = step(graph, node, "ReduceProd", step(graph, node, "Shape", numbers), keepdims=1)
    return step(graph, node, "Concat", together, rest, axis=0)


def _nobody_for_negative(graph: Graph, node: Node, numbers: str, count: str) -> str:
    """One segment more, which is cut off later, gets the rows that belong to none."""
    negative = step(graph, node, "Less", numbers, constant(graph, node, 0, np.int64))
    return step(graph, node, "Where", negative, count, numbers)


def _scattered(
    graph: Graph, node: Node, empty: tuple[str, str], numbers: str, count: str, data: str, reduction: str
) -> str:
    """`empty` are the value and the shape of a segment without rows."""
    start, rows = empty
    one, zero = constant(graph, node, [1], np.int64), constant(graph, node, [0], np.int64)
    shape = step(graph, node, "Concat", step(graph, node, "Add", count, one), rows, axis=0)
    places = step(graph, node, "Unsqueeze", numbers, constant(graph, node, [-1], np.int64))
    nothing = step(graph, node, "Expand", start, shape)
    filled = step(graph, node, "ScatterND", nothing, places, data, reduction=reduction)
    return step(graph, node, "Slice", filled, zero, count, zero)


def _start(kind: str, dtype: np.dtype) -> Any:
    """What a segment without rows has."""
    if kind in ("Max", "Min"):
        limits: Any = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        return limits.min if kind == "Max" else limits.max
    return int(kind == "Prod")


def _of_their_number(graph: Graph, node: Node, result: str, numbers: str, count: str, kind: str) -> str:
    """Means are divided by it; of sorted segments those without rows are zero."""
    dtype = graph.get_dtype(node.input[0])
    ones = step(graph, node, "Expand", constant(graph, node, 1, np.int64), step(graph, node, "Shape", numbers))
    nothing = constant(graph, node, 0, np.int64), constant(graph, node, [], np.int64)
    sizes = _scattered(graph, node, nothing, numbers, count, ones, "add")
    rank = graph.get_shape(node.input[0])
    if rank is None:
        raise ValueError("its data have an unknown number of dimensions")
    sizes = step(graph, node, "Reshape", sizes, constant(graph, node, [-1] + [1] * (len(rank) - 1), np.int64))
    one = constant(graph, node, 1, np.int64)
    if kind in ("Max", "Min"):
        is_empty = step(graph, node, "Less", sizes, one)
        return step(graph, node, "Where", is_empty, constant(graph, node, 0, numpy_dtype(graph, node.input[0])), result)
    divisor = step(graph, node, "Cast", step(graph, node, "Max", sizes, one), to=dtype)
    return step(graph, node, "Div", result, step(graph, node, "Sqrt", divisor) if kind == "SqrtN" else divisor)
