"""Arithmetic that tf2onnx converts into something slightly different, or not at all. Importing registers handlers.

What differs are whole numbers below zero, and types that ONNX's op of the same name does not take.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from tf2onnx import handler
from tf2onnx.graph import Graph, Node
from tf2onnx.onnx_opset import math

# Powers up to this are products of whole numbers.
LARGEST_EXPONENT = 64
# What ONNX's `Sum` takes.
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)


def numpy_dtype(graph: Graph, value: str) -> np.dtype:
    return np.dtype(helper.tensor_dtype_to_np_dtype(graph.get_dtype(value)))


def replace(graph: Graph, node: Node, op_type: str, inputs: list[str], **attributes: Any) -> None:
    """The same node name and output, made by another op."""
    shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, node.output
    graph.remove_node(node.name)
    graph.make_node(op_type, inputs, attributes, name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def step(graph: Graph, node: Node, op_type: str, *inputs: str, **attributes: Any) -> str:
    """The output of a further ONNX op on the way to the result of `node`."""
    return str(graph.make_node(op_type, list(inputs), attributes, name=node.child_name()).output[0])


def constant(graph: Graph, node: Node, value: Any, dtype: Any) -> str:
    return str(graph.make_const(node.child_name(), np.array(value, dtype)).output[0])


def computed_in(graph: Graph, node: Node, dtype: int, places: Iterable[int] = (0,)) -> None:
    """Let the node take these inputs in `dtype`, and give its first output in it, between casts."""
    for place in places:
        graph.insert_new_node_on_input(node, "Cast", node.input[place], input_index=place, to=dtype)
    result, own = node.output[0], graph.get_dtype(node.output[0])
    back = graph.insert_new_node_on_output("Cast", result, name=node.child_name(), to=own)
    graph.copy_shape(result, back.output[0])
    graph.set_dtype(back.output[0], own)
    graph.set_dtype(result, dtype)


@handler.tf_op("FloorMod")
class FloorMod:
    """The remainder with the sign of the divisor: ONNX's `Mod` of whole numbers, while tf2onnx divides towards zero.

    Of fractions, tf2onnx subtracts what it has divided and rounded, and misses by a whole divisor near its multiples.
    """

    @classmethod
    def version_10(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        dividend, divisor = node.input
        if numpy_dtype(graph, dividend).kind not in "f":
            replace(graph, node, "Mod", [dividend, divisor])
            return
        rest = step(graph, node, "Mod", dividend, divisor, fmod=1)
        zero = constant(graph, node, 0, numpy_dtype(graph, dividend))
        negative = (step(graph, node, "Less", value, zero) for value in (rest, divisor))
        is_rest = step(graph, node, "Not", step(graph, node, "Equal", rest, zero))
        moves = step(graph, node, "And", is_rest, step(graph, node, "Xor", *negative))
        replace(graph, node, "Where", [moves, step(graph, node, "Add", rest, divisor), rest])


@handler.tf_op("FloorDiv")
class FloorDiv:
    """ONNX's `Div` of whole numbers is towards zero: one too much where its remainder is not that of `//`."""

    @classmethod
    def version_10(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if numpy_dtype(graph, node.input[0]).kind == "i":
            quotient = step(graph, node, "Div", *node.input)
            is_same = step(graph, node, "Equal", *(step(graph, node, "Mod", *node.input, fmod=kind) for kind in (0, 1)))
            one_less = step(graph, node, "Cast", step(graph, node, "Not", is_same), to=graph.get_dtype(node.input[0]))
            replace(graph, node, "Sub", [quotient, one_less])
        else:
            math.FloorDiv.version_6(graph, node, **kwargs)


@handler.tf_op(["Mod", "TruncateMod"])
class TruncateMod:
    """The remainder of a division towards zero; tf2onnx takes ONNX's op of the same name, which rounds down."""

    @classmethod
    def version_10(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        replace(graph, node, "Mod", node.input, fmod=1)


@handler.tf_op(["LeftShift", "RightShift"])
class Shift:
    """ONNX shifts what has no sign. A number below zero is shifted to the right as what it lacks to -1."""

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if numpy_dtype(graph, node.input[0]).kind != "i":
            math.BitShift.version_11(graph, node, **kwargs)
            return
        dtype, name = graph.get_dtype(node.output[0]), node.type
        value, count = node.input
        value = step(graph, node, "Cast", value, to=TensorProto.INT64)
        count = step(graph, node, "Cast", count, to=TensorProto.UINT64)
        if name == "LeftShift":
            replace(graph, node, "Cast", [_shifted(graph, node, value, count, "LEFT")], to=dtype)
            return
        zero, last = (constant(graph, node, number, np.int64) for number in (0, -1))
        negative = step(graph, node, "Less", value, zero)
        magnitude = step(graph, node, "Where", negative, step(graph, node, "Sub", last, value), value)
        shifted = _shifted(graph, node, magnitude, count, "RIGHT")
        result = step(graph, node, "Where", negative, step(graph, node, "Sub", last, shifted), shifted)
        replace(graph, node, "Cast", [result], to=dtype)


def _shifted(graph: Graph, node: Node, value: str, count: str, direction: str) -> str:
    unsigned = step(graph, node, "Cast", value, to=TensorProto.UINT64)
    return step(
        graph, node, "Cast", step(graph, node, "BitShift", unsigned, count, direction=direction), to=TensorProto.INT64
    )


@handler.tf_op("AddN")
class AddN:
    """ONNX's `Sum` is for fractions only."""

    @classmethod
    def version_8(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        first, *others = node.input
        if graph.get_dtype(first) in FLOATS or not others:
            replace(graph, node, "Sum", node.input)
            return
        for other in others[:-1]:
            first = step(graph, node, "Add", first, other)
        replace(graph, node, "Add", [first, others[-1]])


@handler.tf_op("Inv", onnx_op="Reciprocal")
class Inv:
    """What `Reciprocal` was called before."""

    @classmethod
    def version_6(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        pass


@handler.tf_op("Bucketize")
class Bucketize:
    """The number of boundaries that are not above the value: all of them for NaN. Keras's `Discretization`."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        dtype = graph.get_dtype(node.input[0])
        value, computed = node.input[0], dtype if dtype == TensorProto.DOUBLE else TensorProto.FLOAT
        if dtype != computed:
            value = step(graph, node, "Cast", value, to=computed)
        last = constant(graph, node, [-1], np.int64)
        boundaries = np.array(node.get_attr_value("boundaries"), np.float32)
        limits = constant(graph, node, boundaries, helper.tensor_dtype_to_np_dtype(computed))
        below = step(graph, node, "Less", step(graph, node, "Unsqueeze", value, last), limits)
        counted = step(graph, node, "Cast", step(graph, node, "Not", below), to=TensorProto.INT32)
        replace(graph, node, "ReduceSum", [counted, last], keepdims=0)


@handler.tf_op(["LowerBound", "UpperBound"])
class Bound:
    """How many of the sorted numbers of a row are below a value (or not above it): `tf.searchsorted`."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        dtype, is_lower = graph.get_dtype(node.output[0]), node.type == "LowerBound"
        first, last = (constant(graph, node, [axis], np.int64) for axis in (1, 2))
        numbers = step(graph, node, "Unsqueeze", node.input[0], first)
        values = step(graph, node, "Unsqueeze", node.input[1], last)
        if is_lower:
            is_before = step(graph, node, "Less", numbers, values)
        else:
            is_before = step(graph, node, "Not", step(graph, node, "Less", values, numbers))
        counted = step(graph, node, "Cast", is_before, to=dtype)
        replace(graph, node, "ReduceSum", [counted, last], keepdims=0)


@handler.tf_op("Pow")
class Pow:
    """Of whole numbers ONNX Runtime computes in float64, where the result may not wrap around: known ones multiply."""

    @classmethod
    def version_12(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        times = _exponent(graph, node)
        if numpy_dtype(graph, node.input[0]).kind not in "iu" or not 1 <= times <= LARGEST_EXPONENT:
            return
        replace(graph, node, "Identity", [_power(graph, node, node.input[0], times)])


def _exponent(graph: Graph, node: Node) -> int:
    """The one for all numbers; zero where there are several, or it is not known."""
    value, shapes = node.inputs[1], [graph.get_shape(each) for each in node.input]
    if not value.is_const() or shapes[0] is None or len(shapes[0]) < len(shapes[1] or []):
        return 0
    known = np.reshape(value.get_tensor_value(as_list=False), -1)
    return int(known[0]) if known.size == 1 else 0


def _power(graph: Graph, node: Node, value: str, times: int) -> str:
    """By squares: of the thirteenth power five products."""
    if times == 1:
        return value
    root = _power(graph, node, value, times // 2)
    square = step(graph, node, "Mul", root, root)
    return step(graph, node, "Mul", square, value) if times % 2 else square
