"""What tf2onnx gets wrong about the borders of convolutions. Importing this module registers a handler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from onnx import ModelProto, helper
from tf2onnx import handler, rewriter, tfonnx
from tf2onnx.graph import Graph, Node
from tf2onnx.onnx_opset import nn

from exporter.sources.rewriting.onnx_graph import graphs, replace


@handler.tf_op(["Conv2DBackpropInput", "Conv3DBackpropInputV2"])
class ConvTranspose:
    """Where a kernel is smaller than its stride, tf2onnx writes negative `pads`, which ONNX does not have.

    TensorFlow's convolution over the result pads by max(0, …) on both sides together; so its transposed one adds all
    that is missing, zeros where no kernel reaches, at the end. That is ONNX's `output_padding`.
    """

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        nn.ConvTranspose.version_11(graph, node, **kwargs)
        pads = list(node.get_attr("pads").ints) if "pads" in node.attr else []
        if min(pads, default=0) < 0:
            sides = list(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True))
            kept = [(start, end) if start + end > 0 else (0, 0) for start, end in sides]
            node.set_attr("pads", [start for start, _ in kept] + [end for _, end in kept])
            node.set_attr("output_padding", [max(0, -start - end) for start, end in sides])


def pad_by_numbers(model: ModelProto) -> None:
    """`same` padding as numbers where they do not depend on the size: ONNX Runtime refuses `auto_pad` if dilated.

    A stride of one has the output as large as the input, so that it is what the kernel covers less one pixel.
    """
    for graph in graphs(model.graph):
        for node in graph.node:
            if node.op_type != "Conv":
                continue
            found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            if found.get("auto_pad") != b"SAME_UPPER" or "kernel_shape" not in found:
                continue
            sizes = found["kernel_shape"]
            if max(found.get("strides", [1])) > 1:
                continue
            missing = [
                (size - 1) * by for size, by in zip(sizes, found.get("dilations", [1] * len(sizes)), strict=True)
            ]
            kept = [each for each in node.attribute if each.name not in ("auto_pad", "pads")]
            replace(node.attribute, kept)
            pads = [each // 2 for each in missing] + [each - each // 2 for each in missing]
            node.attribute.append(helper.make_attribute("pads", pads))


def rewrite_conv2d_with_pad(graph: Graph, ops: list[Node]) -> list[Node]:
    """tf2onnx's, without the convolutions that have explicit padding, which it would replace by that of the `Pad`.

    Dilated ones with `same` padding have. `fusion_linear.fold_padding` adds the two later.
    """
    rewriter.rewrite_conv2d_with_pad(graph, [op for op in ops if op.type != "Conv2D" or not _pads_itself(op)])
    return graph.get_nodes()


def _pads_itself(conv: Node) -> bool:
    return conv.get_attr_value("padding") == b"EXPLICIT"


@contextmanager
def installed() -> Iterator[None]:
    """Replaces tf2onnx's rewriter until the block ends."""
    with mock.patch.object(tfonnx, "rewrite_conv2d_with_pad", rewrite_conv2d_with_pad):
        yield
