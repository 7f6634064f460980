"""Transposed convolutions whose kernel is smaller than their stride. Importing this module registers the handler."""

from __future__ import annotations

from typing import Any

from tf2onnx import handler
from tf2onnx.graph import Graph, Node
from tf2onnx.onnx_opset import nn


@handler.tf_op(["Conv2DBackpropInput", "Conv3DBackpropInputV2"])
class ConvTranspose:
    """tf2onnx makes up for a result that is too small by negative `pads`, which ONNX does not have.

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
