"""What detectors do with boxes and colours, and sparse tensors. Importing registers handlers."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from tf2onnx import handler
from tf2onnx.graph import Graph, Node
from tf2onnx.onnx_opset import tensor

from exporter.sources.conversion.tf2onnx_arithmetic import constant, numpy_dtype, replace, step


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


@handler.tf_op("SparseFillEmptyRows")
class SparseFillEmptyRows:
    """In the order of the rows; tf2onnx has those that are filled at the end."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        places, values = node.output[:2]
        used = {each: graph.find_output_consumers(each) for each in (places, values)}
        first, next_ = (constant(graph, node, [number], np.int64) for number in (0, 1))
        rows = step(graph, node, "Slice", places, first, next_, next_)
        rows = step(graph, node, "Reshape", rows, constant(graph, node, [-1], np.int64))
        count, attributes = step(graph, node, "Shape", rows), {"axis": 0, "largest": 0}
        order = graph.make_node("TopK", [rows, count], attributes, name=node.child_name(), output_count=2).output[1]
        for value, consumers in used.items():
            graph.replace_all_inputs(value, step(graph, node, "Gather", value, order), consumers)
        tensor.SparseFillEmptyRows.version_13(graph, node, **kwargs)


@handler.tf_op("AdjustSaturation")
class AdjustSaturation:
    """The distance of a colour to its largest part grows by the factor, until its smallest part is zero.

    tf2onnx lets it grow beyond that.
    """

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        image, dtype = node.input[0], numpy_dtype(graph, node.input[0])
        factor = step(graph, node, "Cast", node.input[1], to=graph.get_dtype(image))
        three = constant(graph, node, [3], np.int64)
        ordered = graph.make_node("TopK", [image, three], name=node.child_name(), output_count=2).output[0]
        largest, smallest = (
            step(graph, node, "Gather", ordered, constant(graph, node, [place], np.int64), axis=-1) for place in (0, 2)
        )
        zero = constant(graph, node, 0, dtype)
        limit = step(graph, node, "Div", largest, step(graph, node, "Sub", largest, smallest))
        is_gray = step(graph, node, "Equal", largest, smallest)
        growth = step(graph, node, "Where", is_gray, zero, step(graph, node, "Min", factor, limit))
        # Without light there is no colour.
        growth = step(graph, node, "Where", step(graph, node, "Greater", largest, zero), growth, zero)
        distance = step(graph, node, "Mul", step(graph, node, "Sub", largest, image), growth)
        replace(graph, node, "Sub", [largest, distance])
