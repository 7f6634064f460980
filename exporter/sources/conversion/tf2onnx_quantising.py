"""Training with quantisation in mind: what tf2onnx leaves unasked before it writes 8 bits and the whole range.

`QuantizeLinear` and `DequantizeLinear` stay, because runtimes look for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from tf2onnx import handler, rewriter, tfonnx
from tf2onnx.graph import Graph, Node

from exporter.errors import UnsupportedError
from exporter.sources.conversion.tf2onnx_arithmetic import constant, replace, step

ROUND_TRIPS = ("QuantizeAndDequantizeV2", "QuantizeAndDequantizeV3", "QuantizeAndDequantizeV4")


def rewrite_quantize_and_dequantize(graph: Graph, ops: list[Node]) -> list[Node]:
    """tf2onnx's, after a look at the bits, the rounding and the range. Raises UnsupportedError."""
    for node in ops:
        if node.type in ROUND_TRIPS:
            _refuse_others(node)
            _fill_range(graph, node)
            if node.get_attr_value("signed_input", 1) and node.get_attr_value("narrow_range", 0):
                _limit(graph, node)
    rewriter.rewrite_quantize_and_dequantize(graph, graph.get_nodes())
    return list(graph.get_nodes())


def _refuse_others(node: Node) -> None:
    bits: int | None = node.get_attr_value("num_bits", 8)
    if node.type == "QuantizeAndDequantizeV3":
        bits = int(node.inputs[3].get_tensor_value()) if node.inputs[3].is_const() else None
    if bits != 8:
        raise _refusal(node, f"it rounds to {bits or 'any number of'} bits, ONNX's QuantizeLinear to 8")
    if node.get_attr_value("round_mode", b"HALF_TO_EVEN") != b"HALF_TO_EVEN":
        raise _refusal(node, "it rounds halves up, ONNX's QuantizeLinear to even numbers")


def _refusal(node: Node, why: str) -> UnsupportedError:
    hint = "--to parquet,dot,svg describes the model without converting it"
    return UnsupportedError(f"no ONNX form is known for {node.type}", where=node.name, why=why, hint=hint)


def _fill_range(graph: Graph, node: Node) -> None:
    """tf2onnx looks for the numbers in the bytes of the constants, which large or lazy ones do not have."""
    for place in (1, 2):
        if node.inputs[place].is_const():
            values = np.array(node.inputs[place].get_tensor_value(as_list=False), np.float32)
            graph.replace_input(node, node.input[place], graph.make_const(node.child_name(), values).output[0], place)


def _limit(graph: Graph, node: Node) -> None:
    """-128 is no value of a narrow range, but one of ONNX's int8: what is below -127 is cut off before."""
    is_known = node.inputs[1].is_const() and node.inputs[2].is_const()
    if not node.get_attr_value("range_given", 0) or not is_known:
        return
    low, high = (np.asarray(node.inputs[place].get_tensor_value(as_list=False), np.float32) for place in (1, 2))
    limit = -np.maximum(-low, high)
    axis, shape = node.get_attr_value("axis", -1), graph.get_shape(node.input[0])
    if axis >= 0 and shape is not None:
        limit = limit.reshape([-1] + [1] * (len(shape) - axis - 1))
    bound = graph.make_const(node.child_name(), limit).output[0]
    above = graph.make_node("Max", [node.input[0], bound], name=node.child_name(), skip_conversion=True)
    graph.copy_dtype(node.input[0], above.output[0])
    graph.copy_shape(node.input[0], above.output[0])
    graph.replace_input(node, node.input[0], above.output[0], 0)


@dataclass(frozen=True)
class Steps:
    """Whole multiples of a step, as TensorFlow moves a range that is asked for until zero is one of them.

    float32 each, numbers or one per channel. `zero` is how many steps the lowest is below zero, and `count` the op
    and operand that make steps of a number: per channel TensorFlow multiplies, otherwise it divides.
    """

    low: Any
    high: Any
    size: Any
    zero: Any
    count: tuple[str, Any]

    @classmethod
    def of(cls, low: np.ndarray, high: np.ndarray, bits: int, *, is_narrow: bool) -> Steps:
        half, first, last = np.float32(0.5), np.float32(is_narrow), np.float32(2**bits - 1)
        size, inverse = (high - low) / (last - first), (last - first) / (high - low)
        place = np.clip(np.floor(first - low / size + half), first, last)
        low, high = (first - place) * size, (last - place) * size
        if np.ndim(size):
            return cls(low, high, size, np.floor(-low * inverse + half), ("Mul", inverse))
        return cls(low, high, size, np.floor(-low / size + half), ("Div", size))


@handler.tf_op(["FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"])
class FakeQuant:
    """TensorFlow rounds halves up, ONNX's QuantizeLinear to even numbers: it gets what has been rounded already."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        low, high = _range(node)
        bits = node.get_attr_value("num_bits", 8)
        steps = Steps.of(low, high, bits, is_narrow=bool(node.get_attr_value("narrow_range", 0)))
        value = _rounded(graph, node, steps)
        if bits != 8:
            replace(graph, node, "Identity", [value])
            return
        rank = len(graph.get_shape(node.input[0]) or [None])
        axis = {"axis": rank - 1} if np.ndim(low) else {}
        parameters = constant(graph, node, steps.size, np.float32), constant(graph, node, steps.zero, np.uint8)
        whole = step(graph, node, "QuantizeLinear", value, *parameters, **axis)
        replace(graph, node, "DequantizeLinear", [whole, *parameters], **axis)


def _range(node: Node) -> tuple[np.ndarray, np.ndarray]:
    if node.type == "FakeQuantWithMinMaxArgs":
        ends: Any = node.get_attr_value("min", -6.0), node.get_attr_value("max", 6.0)
    elif node.inputs[1].is_const() and node.inputs[2].is_const():
        ends = (node.inputs[place].get_tensor_value(as_list=False) for place in (1, 2))
    else:
        raise ValueError("its range is computed, and ONNX's QuantizeLinear has a constant one")
    low, high = (np.asarray(end, np.float32) for end in ends)
    return low, high


def _rounded(graph: Graph, node: Node, steps: Steps) -> str:
    """In the order in which TensorFlow computes, which decides about what is near a half."""
    value, half = node.input[0], np.float32(0.5)
    operations = ("Min", steps.high), ("Max", steps.low), ("Sub", steps.low), steps.count, ("Sub", steps.zero)
    for op, operand in (*operations, ("Add", half)):
        value = step(graph, node, op, value, constant(graph, node, operand, np.float32))
    value = step(graph, node, "Floor", value)
    return step(graph, node, "Mul", value, constant(graph, node, steps.size, np.float32))


@contextmanager
def installed() -> Iterator[None]:
    """Replaces tf2onnx's rewriter until the block ends."""
    with mock.patch.object(tfonnx, "rewrite_quantize_and_dequantize", rewrite_quantize_and_dequantize):
        yield
