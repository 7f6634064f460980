"""What follows or precedes a matrix product, a convolution or a pooling, taken into it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from exporter.lazy import LazyArray
from exporter.sources.conversion.precision import is_cast
from exporter.sources.rewriting.onnx_editor import Constant, Editor, Node
from exporter.sources.rewriting.patterns import discard, is_unused, put, reduced_axes, scalar_of, step

# ONNX Runtime has kernels for these.
GEMM_DTYPES = ("float32", "float16", "float64")
NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softplus", "Softmax")


def fold_scale(editor: Editor, product: Node, opset: int) -> bool:
    """`(x·W + b) · s + t` is `x·(W·s) + (b·s + t)`, for vectors along the last axis: a norm behind a dense layer."""
    weight = editor.constant(product.inputs[1])
    if not isinstance(weight, LazyArray) or is_cast(weight) or weight.ndim != 2:
        return False
    units, bias, folded = weight.shape[1], None, []
    last = product
    while (following := _follower(editor, last, units)) is not None:
        node, constant = following
        if node.op_type == "Mul":
            weight = np.multiply(weight, constant)
            bias = None if bias is None else np.multiply(bias, constant)
        else:
            shift = np.negative(constant) if node.op_type == "Sub" else constant
            bias = shift if bias is None else np.add(bias, shift)
        folded.append(node)
        last = node
    # Only a scale is worth it: a bias alone is what is there already.
    if not any(node.op_type == "Mul" for node in folded):
        return False
    _put_product(editor, product, weight, bias, last)
    return True


def _follower(editor: Editor, node: Node, units: int) -> tuple[Node, Any] | None:
    """The single consumer and its constant, as [units] or [1], when the product can take it in."""
    output = node.outputs[0]
    consumer = editor.sole_consumer(output)
    if consumer is None or consumer.op_type not in ("Mul", "Add", "Sub") or consumer.inputs.count(output) != 1:
        return None
    if consumer.op_type == "Sub" and consumer.inputs[0] != output:
        return None
    constant = editor.constant(consumer.inputs[1] if consumer.inputs[0] == output else consumer.inputs[0])
    shape = editor.shape(output)
    if constant is None or shape is None or len(constant.shape) > len(shape):
        return None
    if constant.size not in (1, units) or (constant.size > 1 and constant.shape[-1] != units):
        return None
    return consumer, constant.reshape([constant.size])


def _put_product(editor: Editor, product: Node, weight: Constant, bias: Any, last: Node) -> None:
    inputs = [product.inputs[0], editor.add_constant(weight, product.inputs[1])]
    if bias is None:
        editor.add_node("MatMul", inputs, like=product, outputs=last.outputs)
    else:
        multiplied = step(editor, "MatMul", inputs, product, product.outputs[0])
        bias = bias if bias.shape == (weight.shape[1],) else np.add(bias, np.zeros(weight.shape[1], bias.dtype))
        editor.add_node("Add", [multiplied, editor.add_constant(bias, last.name)], like=product, outputs=last.outputs)
    discard(editor, last)


def move_bias_before_heads(editor: Editor, add: Node, opset: int) -> bool:
    """`reshape(x·W) + b` is `reshape(x·W + b)` where the reshape splits the last axis into those of `b`.

    The projections of attention layers: next to its product, a bias is what runtimes take into it.
    """
    for value, other in (add.inputs, add.inputs[::-1]):
        reshape, bias = editor.producer(value), editor.constant(other)
        if reshape is None or reshape.op_type != "Reshape" or bias is None or editor.sole_consumer(value) is not add:
            continue
        product = editor.producer(reshape.inputs[0])
        if product is None or product.op_type != "MatMul" or editor.sole_consumer(reshape.inputs[0]) is not reshape:
            continue
        before, after = editor.shape(reshape.inputs[0]), editor.shape(value)
        if not _splits_last_axis(before, after, bias.shape) or editor.constant(reshape.inputs[1]) is None:
            continue
        flat = editor.add_constant(bias.reshape([bias.size]), other)
        biased = step(editor, "Add", [reshape.inputs[0], flat], add, reshape.inputs[0])
        put(editor, add, "Reshape", [biased, reshape.inputs[1]])
        return True
    return False


def _splits_last_axis(
    before: tuple[int | None, ...] | None, after: tuple[int | None, ...] | None, split: tuple[int, ...]
) -> bool:
    if before is None or after is None or not split or before[-1] != math.prod(split):
        return False
    return after[-len(split) :] == split and after[1 : -len(split)] == before[1:-1] and len(before) > 1


def fuse_gemm(editor: Editor, add: Node, opset: int) -> bool:
    """`A·B + c` with matrices and a constant vector is `Gemm`."""
    for value, other in (add.inputs, add.inputs[::-1]):
        product, bias = editor.producer(value), editor.constant(other)
        if product is None or product.op_type != "MatMul" or bias is None or editor.sole_consumer(value) is not add:
            continue
        shapes = [editor.shape(name) for name in product.inputs]
        if any(shape is None or len(shape) != 2 for shape in shapes) or str(editor.dtype(value)) not in GEMM_DTYPES:
            continue
        if len(bias.shape) == 1 and bias.shape == (editor.shape(product.inputs[1]) or ())[1:]:
            put(editor, add, "Gemm", [*product.inputs, other])
            return True
    return False


def mean_before_transpose(editor: Editor, mean: Node, opset: int) -> bool:
    """A mean over axes of a transposed value is one over other axes of the value, if what is left is in its order."""
    transpose = editor.producer(mean.inputs[0])
    if transpose is None or transpose.op_type != "Transpose" or mean.get("keepdims", 1):
        return False
    axes, order = reduced_axes(editor, mean), transpose.get("perm")
    if not axes or not order:
        return False
    left = [place for axis, place in enumerate(order) if axis not in axes]
    if left != sorted(left):
        return False
    _reduce(editor, mean, transpose.inputs[0], sorted(order[axis] for axis in axes), keepdims=0)
    return True


def keep_dims(editor: Editor, reshape: Node, opset: int) -> bool:
    """`reshape(mean(x), [0, c, 1, 1])` is the mean that keeps its axes: what squeeze-and-excite blocks begin with."""
    mean, wanted = editor.producer(reshape.inputs[0]), editor.constant(reshape.inputs[1])
    if mean is None or mean.op_type != "ReduceMean" or mean.get("keepdims", 1) or not isinstance(wanted, np.ndarray):
        return False
    shape, axes = editor.shape(mean.inputs[0]), reduced_axes(editor, mean)
    if shape is None or not axes or editor.sole_consumer(reshape.inputs[0]) is not reshape:
        return False
    kept = [1 if axis in axes else size for axis, size in enumerate(shape)]
    # The first dimension, which is the only one that may be unknown, is copied by a 0 and found by a -1.
    sizes = [kept[0] if place == 0 and size in (0, -1) else size for place, size in enumerate(wanted.tolist())]
    if sizes != kept or None in kept[1:]:
        return False
    _reduce(editor, reshape, mean.inputs[0], axes, keepdims=1, reduction=mean)
    return True


def _reduce(
    editor: Editor, root: Node, value: str, axes: list[int], keepdims: int, reduction: Node | None = None
) -> None:
    """A `ReduceMean` in the place of `root`; its axes are where `reduction`, or else `root`, has them."""
    if len((reduction or root).inputs) > 1:
        names = [value, editor.add_constant(np.array(axes, np.int64), f"{root.name}/axes")]
        put(editor, root, "ReduceMean", names, keepdims=keepdims)
    else:
        put(editor, root, "ReduceMean", [value], keepdims=keepdims, axes=axes)


def fuse_global_average(editor: Editor, mean: Node, opset: int) -> bool:
    """The mean over both axes of an image is `GlobalAveragePool`, which stays in the layout that runtimes block."""
    shape = editor.shape(mean.inputs[0])
    if shape is None or len(shape) != 4 or not mean.get("keepdims", 1) or reduced_axes(editor, mean) != [2, 3]:
        return False
    if str(editor.dtype(mean.inputs[0])) not in ("float32", "float16"):
        return False
    put(editor, mean, "GlobalAveragePool", [mean.inputs[0]])
    return True


def fold_padding(editor: Editor, node: Node, opset: int) -> bool:
    """Zeros put around an image before a convolution are its padding, before a maximum if nothing is below zero."""
    pad = editor.producer(node.inputs[0])
    if pad is None or pad.op_type != "Pad" or len(pad.inputs) > 3 or pad.get("mode", b"constant") != b"constant":
        return False
    given = [name for name in pad.inputs[2:] if name]
    amounts, filling = editor.constant(pad.inputs[1]), scalar_of(editor, given[0]) if given else 0
    if not isinstance(amounts, np.ndarray) or filling is None or filling != 0:
        return False
    if node.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return False
    begins, ends = np.split(amounts, 2)
    if any(begins[:2]) or any(ends[:2]) or min(*begins, *ends) < 0:
        return False
    around = [*begins[2:], *ends[2:]]
    own = node.get("pads") or [0] * len(around)
    node.attributes.pop("auto_pad", None)
    pads = [int(a + b) for a, b in zip(around, own, strict=True)]
    if node.op_type == "MaxPool" and not _may_pool(editor, pad, node, pads):
        return False
    node.attributes.pop("auto_pad", None)
    node.set("pads", pads)
    editor.set_inputs(node, [pad.inputs[0], *node.inputs[1:]])
    if is_unused(editor, pad):
        discard(editor, pad)
    return True


def _may_pool(editor: Editor, pad: Node, pool: Node, pads: list[int]) -> bool:
    """A maximum ignores its own padding: the same as zeros where nothing is negative and no window is all padding."""
    producer = editor.producer(pad.inputs[0])
    if producer is None or producer.op_type not in NEVER_NEGATIVE or len(pool.outputs) != 1 or pool.get("ceil_mode"):
        return False
    return all(size < side for size, side in zip(pads, 2 * list(pool.get("kernel_shape")), strict=True))
