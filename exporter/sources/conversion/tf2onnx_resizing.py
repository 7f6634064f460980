"""Resizes of images that tf2onnx converts into others, or not at all. Importing this module registers handlers.

Those that ONNX or its runtime has not are two products with the matrices of `resize_weights`, for images of known size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from tf2onnx import constants, handler
from tf2onnx.graph import Graph, Node
from tf2onnx.onnx_opset import nn

from exporter.sources.conversion import resize_weights
from exporter.sources.conversion.tf2onnx_arithmetic import constant, replace, step

Sizes = tuple[int, int]
LEGACY_CUBIC = -0.75


@handler.tf_op(["ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic"])
class Resize:
    """tf2onnx gives known sizes to ONNX as scales, and rounding makes some of those miss by a pixel.

    (Nine rows times ¹³⁄₉ are twelve.) Behind an `Identity` it does not know the size that is wanted, and writes sizes.
    """

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if node.type != "ResizeNearestNeighbor" and graph.get_dtype(node.input[0]) != TensorProto.FLOAT:
            # TensorFlow's interpolates in float32 whatever it is given, ONNX's in what it is given.
            graph.insert_new_node_on_input(node, "Cast", node.input[0], to=TensorProto.FLOAT)
        if node.type == "ResizeBicubic":
            _resize_bicubic(graph, node)
            return
        _hide_size(graph, node)
        nn.Resize.version_11(graph, node, **kwargs)


def _hide_size(graph: Graph, node: Node) -> None:
    shape = graph.get_shape(node.input[0])
    if shape and node.inputs[1].is_const():
        wanted = node.inputs[1].get_tensor_value(as_list=True)
        if not all(map(_scale_is_exact, shape[1:3], wanted)):
            hidden = graph.make_node("Identity", [node.input[1]], name=node.child_name()).output[0]
            graph.replace_input(node, node.input[1], hidden, 1)


def _scale_is_exact(size: int, wanted: int) -> bool:
    """The scale is kept in single precision; readers multiply in single or double and round down.

    An unknown size (-1) is never given as a scale.
    """
    if size < 1:
        return True
    scale = np.float32(wanted / size)
    return int(np.float32(size) * scale) == wanted == int(size * float(scale))


def _resize_bicubic(graph: Graph, node: Node) -> None:
    """As products where something gets smaller, which ONNX Runtime 1.32 refuses when it has moved the transposes."""
    options = {key: bool(node.get_attr_value(key, 0)) for key in ("align_corners", "half_pixel_centers")}
    known = _known_sizes(graph, node)
    if known is not None and any(new < old for old, new in zip(*known, strict=True)):
        _as_products(graph, node, [resize_weights.cubic(*sizes, **options) for sizes in zip(*known, strict=True)])
        return
    _hide_size(graph, node)
    maker, output = graph.get_node_by_output, node.output[0]
    nn.Resize.version_11(graph, node)
    if not options["half_pixel_centers"]:
        # TensorFlow's older one; tf2onnx gives both the factor of the newer.
        resize = maker(maker(output).input[0])
        resize.set_attr("cubic_coeff_a", LEGACY_CUBIC)
        resize.set_attr("exclude_outside", 0)


@handler.tf_op("ResizeArea")
class ResizeArea:
    """tf2onnx takes the nearest pixel instead of the mean of an area."""

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        align_corners = bool(node.get_attr_value("align_corners", 0))
        pairs = list(zip(*_sizes(graph, node), strict=True))
        matrices = [resize_weights.area(*sizes, align_corners=align_corners) for sizes in pairs]
        _as_products(graph, node, matrices)


@handler.tf_op("ScaleAndTranslate")
class ScaleAndTranslate:
    """What `tf.image.resize` with `antialias`, or with a Lanczos, Gaussian or Mitchell kernel, becomes."""

    @classmethod
    def version_11(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        kernel = resize_weights.KERNELS[node.get_attr_value("kernel_type", b"lanczos3").decode()]
        antialias = bool(node.get_attr_value("antialias", 1))
        old, new = _sizes(graph, node)
        numbers = zip(old, new, _scale(node, old, new), _constant(node.inputs[3]), strict=True)
        matrices = [
            resize_weights.sampled(size, wanted, float(scale), float(move), kernel, antialias=antialias)
            for size, wanted, scale, move in numbers
        ]
        _as_products(graph, node, matrices)


def _scale(node: Node, old: Sizes, new: Sizes) -> np.ndarray:
    """What `tf.image.resize` divides by the image's own size is known as soon as that is. Raises ValueError."""
    scale = node.inputs[2]
    if scale.type not in ("Div", "RealDiv"):
        return _constant(scale)
    maker = scale.inputs[1]
    while maker.type in ("Cast", "Identity", "Slice", "StridedSlice", "Squeeze"):
        maker = maker.inputs[0]
    if maker.type != "Shape" or maker.input[0] != node.input[0]:
        return _constant(scale)
    return np.array(new, np.float32) / np.array(old, np.float32)


def _constant(node: Node) -> np.ndarray:
    if not node.is_const():
        raise ValueError("its scale is computed, and ONNX has no such resize; give the image a fixed size")
    return np.asarray(node.get_tensor_value(as_list=False))


def _sizes(graph: Graph, node: Node) -> tuple[Sizes, Sizes]:
    """Height and width of the image and of the result. Raises ValueError where they are not known."""
    known = _known_sizes(graph, node)
    if known is None:
        raise ValueError("ONNX has no such resize of an image of unknown size; --input-shape gives it one")
    return known


def _known_sizes(graph: Graph, node: Node) -> tuple[Sizes, Sizes] | None:
    shape = graph.get_shape(node.input[0])
    if shape is None or min(shape[1:3]) < 1 or not node.inputs[1].is_const():
        return None
    height, width = node.inputs[1].get_tensor_value(as_list=True)
    return (shape[1], shape[2]), (height, width)


def _as_products(graph: Graph, node: Node, matrices: list[np.ndarray]) -> None:
    """Along the rows and then along the columns of images NHWC."""
    image = node.input[0]
    if graph.get_dtype(image) != TensorProto.FLOAT:
        image = step(graph, node, "Cast", image, to=TensorProto.FLOAT)
    image = step(graph, node, "Transpose", image, perm=constants.NHWC_TO_NCHW)
    rows, columns = matrices
    image = step(graph, node, "MatMul", constant(graph, node, rows, np.float32), image)
    image = step(graph, node, "MatMul", image, constant(graph, node, columns.T, np.float32))
    replace(graph, node, "Transpose", [image], perm=constants.NCHW_TO_NHWC)


@handler.tf_op("CropAndResize")
class CropAndResize:
    """TensorFlow rounds to the nearest pixel, tf2onnx down where two are as near. The result is always float32."""

    @classmethod
    def version_13(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        if graph.get_dtype(node.input[0]) != TensorProto.FLOAT:
            graph.insert_new_node_on_input(node, "Cast", node.input[0], to=TensorProto.FLOAT)
        output = node.output[0]
        nn.CropAndResize.version_13(graph, node, **kwargs)
        loop = graph.get_node_by_output(output)
        for inner in loop.get_body_graphs()["body"].get_nodes():
            if inner.type == "Resize" and inner.get_attr_value("mode") == b"nearest":
                inner.set_attr("nearest_mode", "round_prefer_ceil")
