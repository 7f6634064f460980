"""Arithmetic that only combines weights, done lazily before the graph is converted.

Two thirds of a traced ResNet prepare batch norms from their four vectors. Folding such ops into lazy arrays leaves
one placeholder for each value that the rest of the graph really uses, which makes everything after it cheaper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from exporter.lazy import LazyArray
from exporter.sources.conversion.precision import value_grows
from exporter.sources.rewriting.onnx_graph import replace

Operand = LazyArray | np.ndarray


def _squeeze(node: Any, array: LazyArray) -> Operand:
    axes = tuple(node.attr["squeeze_dims"].list.i)
    return np.squeeze(array, axes or None)


def _cast(node: Any, array: LazyArray) -> Operand:
    return array.astype(tf.dtypes.as_dtype(node.attr["DstT"].type).as_numpy_dtype)


# TensorFlow op → its meaning on (lazy) arrays, given the node and its operands.
FOLDERS: dict[str, Callable[..., Operand]] = {
    "Add": lambda node, a, b: np.add(a, b),
    "AddV2": lambda node, a, b: np.add(a, b),
    "Cast": _cast,
    "ExpandDims": lambda node, array, axis: np.expand_dims(array, int(axis)),
    "Identity": lambda node, array: array,
    "Maximum": lambda node, a, b: np.maximum(a, b),
    "Mul": lambda node, a, b: np.multiply(a, b),
    "Neg": lambda node, array: np.negative(array),
    "RealDiv": lambda node, a, b: np.true_divide(a, b),
    "Reshape": lambda node, array, shape: array.reshape(list(shape)),
    "Rsqrt": lambda node, array: np.true_divide(array.dtype.type(1), np.sqrt(array)),
    "Sqrt": lambda node, array: np.sqrt(array),
    "Square": lambda node, array: np.multiply(array, array),
    "Squeeze": _squeeze,
    "StopGradient": lambda node, array: array,
    "Sub": lambda node, a, b: np.subtract(a, b),
    "Transpose": lambda node, array, axes: array.transpose([int(axis) for axis in axes]),
}


def fold(
    graph_def: tf.compat.v1.GraphDef, weights: Mapping[str, LazyArray], kept: Iterable[str]
) -> dict[str, LazyArray]:
    """Fold in place and return the value of every placeholder that stands for weights afterwards, by node name.

    `weights` has the value of each node that stands for a weight. Such a node, and one that is folded, becomes a
    placeholder of the same name. `kept` names the graph's true inputs and outputs, which stay what they are.
    """
    kept = {_node_name(tensor) for tensor in kept}
    nodes = {node.name: node for node in graph_def.node}
    values: dict[str, Operand] = {name: value for name, value in weights.items() if name in nodes}
    for name in _ordered(nodes):
        value = None if name in kept else _folded(nodes[name], values)
        if value is not None:
            values[name] = value
    for name, value in values.items():
        if isinstance(value, LazyArray):
            nodes[name].CopyFrom(_placeholder(name, value))
    used = _prune(graph_def, nodes, kept)
    return {name: value for name, value in values.items() if isinstance(value, LazyArray) and name in used}


def _folded(node: Any, values: Mapping[str, Operand]) -> Operand | None:
    """The node's value when it only depends on weights and constants, and does not grow by being computed."""
    if node.op == "Const":
        return tf.make_ndarray(node.attr["value"].tensor)
    operands = [values.get(_producer(tensor)) for tensor in node.input]
    folder = FOLDERS.get(node.op)
    if folder is None or not isinstance(next(iter(operands), None), (LazyArray, np.ndarray)):
        return None
    if any(operand is None for operand in operands) or not any(isinstance(o, LazyArray) for o in operands):
        return None
    value = folder(node, *operands)
    if not isinstance(value, LazyArray) or value_grows(value, operands):
        return None
    return value


def _producer(tensor: str) -> str:
    """The key of a tensor in the table of values: control inputs and second outputs have none, by their spelling."""
    return tensor.removesuffix(":0")


def _node_name(tensor: str) -> str:
    """`^a`, `a` and `a:1` come from node `a`."""
    return tensor.removeprefix("^").partition(":")[0]


def _ordered(nodes: Mapping[str, Any]) -> list[str]:
    """Node names, producers first (an iterative depth-first walk: graphs can be 100,000 nodes deep)."""
    order: list[str] = []
    state: dict[str, bool] = {}
    for root in nodes:
        stack = [root]
        while stack:
            name = stack[-1]
            if name in state:
                stack.pop()
                if not state[name]:
                    state[name] = True
                    order.append(name)
                continue
            state[name] = False
            producers = map(_node_name, nodes[name].input)
            stack.extend(producer for producer in producers if producer not in state)
    return order


def _placeholder(name: str, value: LazyArray) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = tf.dtypes.as_dtype(value.dtype).as_datatype_enum
    shape = tf.TensorShape(value.shape).as_proto()
    node.attr["shape"].shape.CopyFrom(shape)
    node.attr["_output_shapes"].list.shape.append(shape)
    return node


def _prune(graph_def: tf.compat.v1.GraphDef, nodes: Mapping[str, Any], kept: Iterable[str]) -> set[str]:
    """Drop the nodes that nothing kept depends on; return the names of those that stay."""
    stack = list(kept)
    used: set[str] = set()
    while stack:
        name = stack.pop()
        if name not in used:
            used.add(name)
            stack.extend(map(_node_name, nodes[name].input))
    replace(graph_def.node, [node for node in graph_def.node if node.name in used])
    return used
