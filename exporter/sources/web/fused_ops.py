"""Operations that TensorFlow.js has and TensorFlow, or tf2onnx, has not, taken apart into plain ones.

Its converter joins a convolution or a matrix product with what comes behind it: `fused_ops` names that, and each takes
the next of the further inputs (`tfjs-converter/python/tensorflowjs/converters/fuse_*.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from exporter.errors import UnsupportedError

PRODUCTS = {
    "_FusedConv2D": "Conv2D",
    "FusedConv2D": "Conv2D",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedMatMul": "MatMul",
}
PRELU = "Prelu"
ACTIVATIONS = ("Relu", "Relu6", "Elu", "Sigmoid", "Tanh", "Selu", "Softplus")
BATCH_NORM = ("FusedBatchNorm", "FusedBatchNormV3")


def plain_nodes(node: Any) -> list[Any]:
    """The nodes that compute what this one does; the last has its name. Raises UnsupportedError."""
    if node.op == PRELU:
        return list(_prelu(node, node.input[0], node.input[1], node.name))
    if node.op in PRODUCTS:
        return list(_product(node))
    return [node]


def _product(node: Any) -> Iterator[Any]:
    steps = [step.decode() for step in node.attr["fused_ops"].list.s]
    arguments = list(node.input[2:])
    current = node.name if not steps else f"{node.name}/product"
    yield _node(node, PRODUCTS[node.op], current, node.input[:2])
    for place, step in enumerate(steps):
        name = node.name if place == len(steps) - 1 else f"{node.name}/{step}"
        if step == "BiasAdd":
            yield _node(node, "BiasAdd", name, [current, arguments.pop(0)])
        elif step == PRELU:
            yield from _prelu(node, current, arguments.pop(0), name)
        elif step in BATCH_NORM:
            yield _batch_norm(node, name, [current, *(arguments.pop(0) for _ in range(4))])
        elif step == "LeakyRelu":
            found = _node(node, step, name, [current])
            found.attr["alpha"].f = node.attr["leakyrelu_alpha"].f
            yield found
        elif step in ACTIVATIONS:
            yield _node(node, step, name, [current])
        else:
            why = f"it is joined with {step}, for which no plain form is known"
            raise UnsupportedError(f"cannot take {node.op} apart", where=node.name, why=why)
        current = name


def _batch_norm(node: Any, name: str, inputs: list[str]) -> Any:
    found = _node(node, "FusedBatchNormV3", name, inputs)
    found.attr["U"].type = tf.float32.as_datatype_enum
    found.attr["is_training"].b = False
    return found


def _prelu(node: Any, x: str, alpha: str, name: str) -> Iterator[Any]:
    """max(x, 0) + (−alpha) · max(−x, 0), as Keras writes it."""
    parts = {part: f"{name}/{part}" for part in ("positive", "negated", "negative", "slope", "scaled")}
    yield _node(node, "Relu", parts["positive"], [x])
    yield _node(node, "Neg", parts["negated"], [x])
    yield _node(node, "Relu", parts["negative"], [parts["negated"]])
    yield _node(node, "Neg", parts["slope"], [alpha])
    yield _node(node, "Mul", parts["scaled"], [parts["slope"], parts["negative"]])
    yield _node(node, "AddV2", name, [parts["positive"], parts["scaled"]])


def _node(like: Any, op: str, name: str, inputs: Any) -> Any:
    """With those of the other's attributes that the op has."""
    found = tf.compat.v1.NodeDef(name=name, op=op, input=inputs)
    for attribute in op_def_registry.get(op).attr:
        if attribute.name in like.attr:
            found.attr[attribute.name].CopyFrom(like.attr[attribute.name])
    if not found.attr["T"].type:
        found.attr["T"].type = tf.float32.as_datatype_enum
    return found
