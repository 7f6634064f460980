"""A traced TensorFlow graph that computes in another float dtype: types, constants and casts, functions included."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import types_pb2

FLOAT = types_pb2.DT_FLOAT
# What tf2onnx has no name for.
UNKNOWN_DTYPES = {
    value: name.removeprefix("DT_").lower()
    for name, value in types_pb2.DataType.items()
    if "FLOAT8" in name or "INT4" in name
}


def to_float32(graph_def: tf.compat.v1.GraphDef, kinds: Container[int]) -> None:
    """Let everything that has one of the `DT_…` types be float32, in place.

    A cast between two types that are one now becomes an `Identity`.
    """
    for node in graph_def.node:
        _retype(node, kinds)
        if _is_idle(node):
            _make_identity(node)
    for function in graph_def.library.function:
        _retype_function(function, kinds)


def users_of(graph_def: tf.compat.v1.GraphDef, kinds: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    """The dtype and the name of each node, those of functions included, with an attribute that is one of `kinds`."""
    functions = (function.node_def for function in graph_def.library.function)
    for node in (*graph_def.node, *(node for nodes in functions for node in nodes)):
        for value in node.attr.values():
            if value.WhichOneof("value") == "type" and value.type in kinds:
                yield kinds[value.type], node.name


def _retype_function(function: Any, kinds: Container[int]) -> None:
    for argument in (*function.signature.input_arg, *function.signature.output_arg):
        if argument.type in kinds:
            argument.type = FLOAT
    for node in function.node_def:
        _retype(node, kinds)
    idle = [node for node in function.node_def if _is_idle(node)]
    for node in idle:
        _make_identity(node)
    # Inside of a function a tensor is named after its op's output, which `Cast` calls y.
    renamed = {f"{node.name}:y:0": f"{node.name}:output:0" for node in idle}
    if renamed:
        for node in function.node_def:
            node.input[:] = [renamed.get(name, name) for name in node.input]
        for name, tensor in function.ret.items():
            function.ret[name] = renamed.get(tensor, tensor)


def _retype(node: Any, kinds: Container[int]) -> None:
    for value in node.attr.values():
        which = value.WhichOneof("value")
        if which == "type" and value.type in kinds:
            value.type = FLOAT
        elif which == "list" and any(kind in kinds for kind in value.list.type):
            value.list.type[:] = [FLOAT if kind in kinds else kind for kind in value.list.type]
        elif which == "tensor" and value.tensor.dtype in kinds:
            array = tf.make_ndarray(value.tensor).astype("float32")
            value.tensor.CopyFrom(tf.make_tensor_proto(array, tf.float32, array.shape))


def _is_idle(node: Any) -> bool:
    return node.op == "Cast" and node.attr["SrcT"].type == node.attr["DstT"].type


def _make_identity(node: Any) -> None:
    node.op, kind = "Identity", node.attr["DstT"].type
    for name in set(node.attr) - {"_output_shapes"}:
        del node.attr[name]
    node.attr["T"].type = kind
