"""What detectors do with their boxes, and sparse tensors that become dense. Importing registers handlers."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from tf2onnx import handler
from tf2onnx.graph import Graph, Node
from tf2onnx.onnx_opset import tensor

from exporter.sources.conversion.tf2onnx_arithmetic import constant, replace, step


@handler.tf_op(["NonMaxSuppression", "NonMaxSuppressionV2"])
class NonMaxSuppression:
    """The first versions, whose only threshold is that of the overlap: an attribute, then an input."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        boxes, scores, count = node.input[:3]
        if graph.get_dtype(boxes) == TensorProto.INT64:
            # What tf2onnx makes of the later versions is one of ONNX already.
            return
        if node.type == "NonMaxSuppression":
            overlap = constant(graph, node, node.get_attr_value("iou_threshold", 0.5), np.float32)
        else:
            overlap = step(graph, node, "Cast", node.input[3], to=TensorProto.FLOAT)
        boxes, scores = (step(graph, node, "Cast", each, to=TensorProto.FLOAT) for each in (boxes, scores))
        boxes = step(graph, node, "Unsqueeze", boxes, constant(graph, node, [0], np.int64))
        scores = step(graph, node, "Unsqueeze", scores, constant(graph, node, [0, 1], np.int64))
        count = step(graph, node, "Cast", count, to=TensorProto.INT64)
        found = graph.make_node(
            "NonMaxSuppression", [boxes, scores, count, overlap], name=node.child_name(), skip_conversion=True
        ).output[0]
        chosen = step(graph, node, "Gather", found, constant(graph, node, 2, np.int64), axis=1)
        replace(graph, node, "Cast", [chosen], to=TensorProto.INT32)


@handler.tf_op(["NonMaxSuppressionV3", "NonMaxSuppressionV4", "NonMaxSuppressionV5"])
class LaterNonMaxSuppression:
    """tf2onnx takes a sigma below one for none."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        sigma = node.inputs[5] if len(node.input) > 5 else None
        if sigma is not None and not (sigma.is_const() and sigma.get_tensor_value() == 0):
            raise ValueError("it lowers the scores of boxes that overlap (soft_nms_sigma), and ONNX's only drops them")
        tensor.NonMaxSuppression.version_13(graph, node, **kwargs)


@handler.tf_op("SparseToDense")
class SparseToDense:
    """Places are numbers or rows of numbers, and one value may stand for all; tf2onnx takes rows and values only."""

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        places, shape, values, default = node.input
        ranks = [graph.get_shape(each) for each in (places, values)]
        if ranks[0] is None or ranks[1] is None:
            raise ValueError("its indices or values have an unknown number of dimensions")
        places, shape = (step(graph, node, "Cast", each, to=TensorProto.INT64) for each in (places, shape))
        if len(ranks[0]) < 2:
            places = step(graph, node, "Reshape", places, constant(graph, node, [-1, 1], np.int64))
        if not ranks[1]:
            first, next_ = (constant(graph, node, [place], np.int64) for place in (0, 1))
            count = step(graph, node, "Slice", step(graph, node, "Shape", places), first, next_)
            values = step(graph, node, "Expand", values, count)
        replace(graph, node, "ScatterND", [step(graph, node, "Expand", default, shape), places, values])
