"""Ops of types that tf2onnx refuses or mixes up: the casts that they need come last, from `kernels`.

Importing registers handlers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
from onnx import TensorProto
from tf2onnx import handler
from tf2onnx.graph import Graph, Node
from tf2onnx.onnx_opset import nn

from exporter.sources.conversion.tf2onnx_arithmetic import computed_in, constant, replace

FLOAT_TYPES = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16))
# Float32 holds all of their numbers.
IN_FLOAT32 = (
    TensorProto.FLOAT16,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT16,
    TensorProto.UINT16,
    TensorProto.BOOL,
)


@handler.tf_op(["Pad", "PadV2", "MirrorPad"], onnx_op="Pad")
class Pad:
    """tf2onnx pads most types in float32, but with a value of the type that it was."""

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        mode = node.get_attr_value("mode", b"constant").decode().lower()
        node.set_attr("mode", mode)
        if node.inputs[1].is_const():
            sizes = node.inputs[1].get_tensor_value(as_list=False).astype(np.int64).transpose().reshape(-1)
            graph.replace_input(node, node.input[1], constant(graph, node, sizes, np.int64), 1)
        else:
            graph.insert_new_node_on_input(node, "Cast", node.input[1], to=TensorProto.INT64)
            graph.insert_new_node_on_input(node, "Transpose", node.input[1])
            flat = constant(graph, node, [-1], np.int64)
            graph.insert_new_node_on_input(node, "Reshape", [node.input[1], flat])
        if mode == "symmetric":
            nn.Pad.convert_symmetric_pads(graph, node)


@handler.tf_op("IsInf", onnx_op="IsInf")
class IsInf:
    """tf2onnx refuses half precision."""

    @classmethod
    def version_10(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        pass


@handler.tf_op("Bitcast")
class Bitcast:
    """ONNX has those that change nothing, and from opset 26 on others."""

    @classmethod
    def version_1(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if graph.get_dtype(node.input[0]) != graph.get_dtype(node.output[0]):
            raise ValueError("ONNX has no cast that keeps the bits")
        replace(graph, node, "Identity", [node.input[0]])


@handler.tf_op("AsString")
class AsString:
    """Whole numbers as digits. tf2onnx writes fractions and truth values too, as ONNX does and TensorFlow does not."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if graph.get_dtype(node.input[0]) in (FLOAT_TYPES | {TensorProto.BOOL}):
            raise ValueError("ONNX writes other digits of fractions and truth values than TensorFlow")
        if node.get_attr_value("width", -1) >= 0 or node.get_attr_value("fill", b""):
            raise ValueError("ONNX does not fill the text of a number up")
        replace(graph, node, "Cast", [node.input[0]], to=TensorProto.STRING)


@handler.tf_op("ExtractImagePatches")
class ExtractImagePatches:
    """A convolution with ones and zeros, which tf2onnx makes of float32 whatever the image is."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        dtype = graph.get_dtype(node.input[0])
        if dtype in IN_FLOAT32:
            computed_in(graph, node, TensorProto.FLOAT)
        elif dtype != TensorProto.FLOAT:
            raise ValueError("its numbers may have more digits than the convolution of ONNX Runtime keeps")
        nn.ExtractImagePatches.version_9(graph, node, **kwargs)


def maybe_cast_input(node: Node, supported: Sequence[Any], type_map: Mapping[int, int]) -> bool:
    """tf2onnx's, without a refusal of types that it has no cast for."""
    did_cast = False
    for place, name in enumerate(node.input):
        dtype = node.graph.get_dtype(name)
        if dtype not in supported[place] and dtype in type_map:
            made = node.graph.insert_new_node_on_input(node, "Cast", name, to=type_map[dtype])
            node.graph.set_dtype(made.output[0], [type_map[dtype]])
            did_cast = True
    return did_cast


@contextmanager
def installed() -> Iterator[None]:
    """Replaces a method of tf2onnx until the block ends."""
    with mock.patch.object(Node, "maybe_cast_input", maybe_cast_input):
        yield
