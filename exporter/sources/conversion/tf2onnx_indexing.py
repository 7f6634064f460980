"""Slices, gathers and scatters that tf2onnx converts into something else. Importing registers handlers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from onnx import TensorProto
from tf2onnx import handler, rewriter, tfonnx
from tf2onnx.graph import Graph, Node
from tf2onnx.onnx_opset import nn, tensor

from exporter.sources.conversion.tf2onnx_arithmetic import computed_in, constant, replace, step

END = np.iinfo(np.int64).max


@handler.tf_op("ScatterNd", onnx_op="ScatterND")
class ScatterNd:
    """Updates of the same place add up; tf2onnx's last one wins."""

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if not _are_distinct(node.inputs[0]):
            raise ValueError("its indices may name a place twice, which ONNX adds up from --opset 16 on")
        tensor.ScatterND.version_11(graph, node, **kwargs)

    @classmethod
    def version_16(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        adds = not _are_distinct(node.inputs[0])
        if adds and graph.get_dtype(node.input[1]) == TensorProto.BOOL:
            computed_in(graph, node, TensorProto.INT32, (1,))
        tensor.ScatterND.version_11(graph, node, **kwargs)
        if adds:
            node.set_attr("reduction", "add")


def _are_distinct(indices: Node) -> bool:
    """Whether they are known, and none is there twice."""
    if not indices.is_const():
        return False
    rows = np.asarray(indices.get_tensor_value(as_list=False))
    rows = rows.reshape(-1, rows.shape[-1]) if rows.ndim and rows.shape[-1] else rows.reshape(0, 1)
    return len(np.unique(rows, axis=0)) == len(rows)


@handler.tf_op("GatherV2")
class GatherV2:
    """With batch dimensions, tf2onnx takes what is counted from the end as it is: their number, and the axis."""

    @classmethod
    def version_12(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        batch_dims = node.get_attr_value("batch_dims", 0)
        if batch_dims < 0:
            node.set_attr("batch_dims", batch_dims + _rank(graph, node.input[1]))
        axis = node.inputs[2].get_tensor_value() if node.inputs[2].is_const() else 0
        if batch_dims and axis < 0:
            counted = constant(graph, node, axis + _rank(graph, node.input[0]), np.int32)
            graph.replace_input(node, node.input[2], counted, 2)
        tensor.GatherV2.version_12(graph, node, **kwargs)


def _rank(graph: Graph, value: str) -> int:
    shape = graph.get_shape(value)
    if shape is None:
        raise ValueError("it counts dimensions from the end, and how many there are is unknown")
    return len(shape)


@handler.tf_op("Slice")
class Slice:
    """A size of -1 reaches to the end; of sizes that are computed, tf2onnx adds the largest number to the start."""

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if node.inputs[1].is_const() and node.inputs[2].is_const():
            tensor.Slice.version_11(graph, node, **kwargs)
            return
        value, start, size = node.input
        start, size = (step(graph, node, "Cast", each, to=TensorProto.INT64) for each in (start, size))
        all_of_it = step(graph, node, "Equal", size, constant(graph, node, -1, np.int64))
        stop = step(graph, node, "Add", start, size)
        stop = step(graph, node, "Where", all_of_it, constant(graph, node, END, np.int64), stop)
        replace(graph, node, "Slice", [value, start, stop])


@handler.tf_op("StridedSlice")
class StridedSlice:
    """Where `begin_mask` says that a start does not count, tf2onnx lets it count if the stride is positive."""

    @classmethod
    def version_10(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        _without_masked_starts(graph, node)
        tensor.StridedSlice.version_10(graph, node, **kwargs)

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        _without_masked_starts(graph, node)
        tensor.StridedSlice.version_13(graph, node, **kwargs)


def _without_masked_starts(graph: Graph, node: Node) -> None:
    mask, shape = node.get_attr_value("begin_mask", 0), graph.get_shape(node.input[1])
    if not mask or not shape or shape[0] < 0:
        return
    kept = np.array([not mask >> place & 1 for place in range(shape[0])])
    dtype = tensor.utils.map_onnx_to_numpy_type(graph.get_dtype(node.input[1]))
    if not node.inputs[1].is_const():
        start = step(graph, node, "Mul", node.input[1], constant(graph, node, kept, dtype))
        graph.replace_input(node, node.input[1], start, 1)
    elif np.any(start := node.inputs[1].get_tensor_value(as_list=False) * ~kept):
        known = node.inputs[1].get_tensor_value(as_list=False) - start
        graph.replace_input(node, node.input[1], constant(graph, node, known, dtype), 1)


@handler.tf_op("ReverseSequence")
class ReverseSequence:
    """ONNX's has the batch and the time in the first two axes."""

    @classmethod
    def version_10(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        axes = [node.get_attr_value("batch_dim", 0), node.get_attr_value("seq_dim")]
        shape = graph.get_shape(node.input[0])
        if sorted(axes) == [0, 1] or shape is None:
            tensor.ReverseSequence.version_10(graph, node, **kwargs)
            return
        order = axes + [axis for axis in range(len(shape)) if axis not in axes]
        value = step(graph, node, "Transpose", node.input[0], perm=order)
        lengths = step(graph, node, "Cast", node.input[1], to=TensorProto.INT64)
        reversed_ = step(graph, node, "ReverseSequence", value, lengths, batch_axis=0, time_axis=1)
        replace(graph, node, "Transpose", [reversed_], perm=[order.index(axis) for axis in range(len(order))])


@handler.tf_op("MatrixBandPart")
class MatrixBandPart:
    """tf2onnx multiplies by ones and zeros, and NaN or infinity times zero is NaN."""

    @classmethod
    def version_14(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        is_known = node.inputs[1].is_const() and node.inputs[2].is_const()
        if not is_known or graph.get_dtype(node.input[0]) not in (TensorProto.FLOAT, TensorProto.DOUBLE):
            nn.MatrixBandPart.version_11(graph, node, **kwargs)
            return
        value = node.input[0]
        below, above = (int(side.get_tensor_value()) for side in node.inputs[1:])
        if below >= 0:
            value = step(graph, node, "Trilu", value, constant(graph, node, -below, np.int64), upper=1)
        if above >= 0:
            value = step(graph, node, "Trilu", value, constant(graph, node, above, np.int64), upper=0)
        replace(graph, node, "Identity", [value])


@handler.tf_op("OneHot")
class OneHot:
    """A number that is no class, such as -1, has no one; ONNX's op counts such numbers from the end."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        index, depth, one, zero = node.input
        rank, axis, dtype = _rank(graph, index), node.get_attr_value("axis", -1), graph.get_dtype(node.output[0])
        axis = rank if axis < 0 else axis
        index = step(graph, node, "Cast", index, to=TensorProto.INT64)
        index = step(graph, node, "Unsqueeze", index, constant(graph, node, [axis], np.int64))
        depth = step(graph, node, "Cast", depth, to=TensorProto.INT64)
        first, next_ = (constant(graph, node, number, np.int64) for number in (0, 1))
        classes = step(graph, node, "Range", first, depth, next_)
        along = constant(graph, node, [-1] + [1] * (rank - axis), np.int64)
        is_class = step(graph, node, "Equal", index, step(graph, node, "Reshape", classes, along))
        values = [each.get_tensor_value() if each.is_const() else None for each in node.inputs[2:]]
        if values == [1, 0]:
            replace(graph, node, "Cast", [is_class], to=dtype)
        else:
            replace(graph, node, "Where", [is_class, one, zero])


@handler.tf_op("InvertPermutation")
class InvertPermutation:
    """Where each number is: the order in which they are sorted. tf2onnx says that ONNX's int64 is the op's int32."""

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        value, dtype = node.input[0], graph.get_dtype(node.output[0])
        count = step(graph, node, "Shape", value)
        attributes = {"axis": 0, "largest": 0}
        order = graph.make_node("TopK", [value, count], attributes, name=node.child_name(), output_count=2).output[1]
        replace(graph, node, "Cast", [order], to=dtype)


@handler.tf_op(["DynamicStitch", "ParallelDynamicStitch"])
class DynamicStitch:
    """tf2onnx makes as many rows as it is given, which is right where no place is filled twice."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        places = node.inputs[: len(node.input) // 2]
        if all(each.is_const() for each in places):
            known = np.concatenate([np.reshape(each.get_tensor_value(as_list=False), -1) for each in places])
            if not np.array_equal(np.sort(known), np.arange(len(known))):
                raise ValueError("it fills a place twice, or leaves one out, and has no ONNX form then")
        tensor.DynamicStitch.version_13(graph, node, **kwargs)


def rewrite_eye(graph: Graph, ops: list[Node]) -> list[Node]:
    """tf2onnx's, without the identity matrices of a batch, of which it would make a single one."""
    rewriter.rewrite_eye(graph, [op for op in ops if not op.type.startswith("Matrix") or _is_matrix(graph, op)])
    return list(graph.get_nodes())


def _is_matrix(graph: Graph, node: Node) -> bool:
    shape = graph.get_shape(node.output[0])
    return shape is not None and len(shape) == 2


@contextmanager
def installed() -> Iterator[None]:
    """Replaces tf2onnx's rewriter until the block ends."""
    with mock.patch.object(tfonnx, "rewrite_eye", rewrite_eye):
        yield
