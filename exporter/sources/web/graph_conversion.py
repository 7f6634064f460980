"""A TensorFlow.js graph model as TensorFlow's graph, with a node without content for each weight."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.python.framework import op_def_registry

from exporter.errors import SourceError, UnsupportedError
from exporter.lazy import LazyArray
from exporter.records import TensorSpec
from exporter.sources.conversion.tracing import OpOwners, TracedModel, inlined
from exporter.sources.rewriting.onnx_graph import replace
from exporter.sources.web.fused_ops import plain_nodes
from exporter.sources.web.graph_layers import GraphLayers
from exporter.sources.web.model_json import COPY_HINT, WebModel

# Whole numbers up to this size are shapes and axes, which are needed to understand the graph.
SMALL_NBYTES = 1024
HOLLOW_OP = "ImmutableConst"


@dataclass(frozen=True)
class WebGraph:
    """`weights` has the values of the nodes without content; `outputs` are tensors that nothing else takes."""

    name: str
    graph_def: tf.compat.v1.GraphDef
    weights: Mapping[str, LazyArray]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def web_graph(
    model: WebModel, layers: GraphLayers, values: Mapping[str, LazyArray], specs: Sequence[TensorSpec]
) -> WebGraph:
    """The graph with inputs of these shapes. Raises SourceError and UnsupportedError."""
    graph_def = _parsed(model)
    given = dict(zip((tensor.split(":")[0] for tensor in layers.inputs), specs, strict=True))
    nodes, weights = [], {}
    for node in graph_def.node:
        if node.name in given:
            _make_input(node, given[node.name])
        elif node.op == "Const" and (array := _value(node, values)) is not None:
            weights[node.name] = array
        nodes += plain_nodes(node)
    for function in graph_def.library.function:
        for node in function.node_def:
            if node.op == "Const":
                _value(node, values, is_inside=True)
        replace(function.node_def, [plain for node in function.node_def for plain in plain_nodes(node)])
    outputs = tuple(f"web_output_{place}" for place in range(len(layers.outputs)))
    nodes += [_identity(name, tensor) for name, tensor in zip(outputs, layers.outputs, strict=True)]
    _finish(nodes)
    replace(graph_def.node, nodes)
    try:
        used = tf.compat.v1.graph_util.extract_sub_graph(graph_def, [*outputs, *given])
    except (AssertionError, KeyError) as error:
        why = f"its graph: an operation takes {str(error)[:200]}"
        raise SourceError("is corrupt", where=model.path, why=why, hint=COPY_HINT) from error
    weights = {node.name: weights[node.name] for node in used.node if node.op == HOLLOW_OP}
    return WebGraph(layers.graph.name, used, weights, layers.inputs, tuple(f"{name}:0" for name in outputs))


def traced(graph: WebGraph, layers: GraphLayers) -> TracedModel:
    try:
        with tf.Graph().as_default():
            tf.import_graph_def(graph.graph_def, name="")
        graph_def = inlined(graph.graph_def, [*graph.inputs, *graph.outputs])
    except (ValueError, TypeError, tf.errors.OpError) as error:
        why, hint = str(error)[:300], "--to parquet,dot,svg describes the model without converting it"
        raise UnsupportedError("is not a graph that TensorFlow takes", where=graph.name, why=why, hint=hint) from error
    return TracedModel(
        graph_def=graph_def,
        input_tensors=graph.inputs,
        output_tensors=graph.outputs,
        output_layers=tuple(layers.rows.get(tensor.split(":")[0]) for tensor in layers.outputs),
        weight_nodes=tuple(graph.weights),
        variables=tuple(graph.weights),
        constants={},
        combinations={},
        owners=OpOwners(by_op=dict(layers.rows)),
    )


def run(graph: WebGraph, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What TensorFlow computes; weights are fed, because a graph that holds them may have 2 GB at most."""
    graph_def = tf.compat.v1.GraphDef()
    graph_def.CopyFrom(graph.graph_def)
    for node in graph_def.node:
        if node.op == HOLLOW_OP:
            node.op = "Placeholder"
            del node.attr["memory_region_name"]
    with tf.Graph().as_default() as made:
        tf.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=made) as session:
            feeds = {f"{name}:0": array.real() for name, array in graph.weights.items()}
            feeds |= dict(zip(graph.inputs, inputs, strict=True))
            found: list[np.ndarray] = session.run(list(graph.outputs), feeds)
            return found


def _parsed(model: WebModel) -> tf.compat.v1.GraphDef:
    topology = {key: value for key, value in model.topology.items() if key in ("node", "library", "versions")}
    try:
        topology["node"] = [_readable(node, model) for node in topology["node"]]
        return json_format.ParseDict(topology, tf.compat.v1.GraphDef(), ignore_unknown_fields=True)
    except (json_format.ParseError, TypeError, ValueError, AttributeError) as error:
        why = f"its graph: {str(error)[:200]}"
        raise SourceError("is corrupt", where=model.path, why=why, hint=COPY_HINT) from error


def _readable(node: Mapping[str, Any], model: WebModel) -> dict[str, Any]:
    """Without the empty values of constants, and with text as newer files have it."""
    attributes = {key: _text_in_base64(value) for key, value in (node.get("attr") or {}).items()}
    if node["op"] == "Const" and node["name"] in model.weights:
        attributes.pop("value", None)
    attributes.pop("_output_shapes", None)
    return {**node, "attr": attributes}


def _text_in_base64(value: Any) -> Any:
    """Files of TensorFlow.js 0.x have text as lists of bytes."""
    if isinstance(value, dict) and isinstance(value.get("s"), list):
        return {**value, "s": base64.b64encode(bytes(value["s"])).decode()}
    if isinstance(value, dict) and isinstance(value.get("list"), dict):
        texts = value["list"].get("s") or ()
        if any(isinstance(text, list) for text in texts):
            return {"list": {"s": [base64.b64encode(bytes(text)).decode() for text in texts]}}
    return value


def _value(node: Any, values: Mapping[str, LazyArray], *, is_inside: bool = False) -> LazyArray | None:
    """Gives small constants their value; others become nodes that have a type and a shape, and are returned.

    The file has numbers of 64 bits as such of 32, and the graph does not. Raises UnsupportedError for text.
    """
    array = values.get(node.name)
    if array is None:
        if "value" not in node.attr:
            raise UnsupportedError("has a constant that is no number", where=node.name, why="it is text")
        return None
    dtype = tf.as_dtype(node.attr["dtype"].type) if node.attr["dtype"].type else tf.as_dtype(array.dtype)
    array = array.astype(dtype.as_numpy_dtype)
    is_small = array.dtype.kind in "iub" and array.nbytes <= SMALL_NBYTES
    node.ClearField("attr")
    node.attr["dtype"].type = dtype.as_datatype_enum
    if is_small or array.size <= 1 or is_inside:
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array.real()))
        return None
    node.op = HOLLOW_OP
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    node.attr["memory_region_name"].s = node.name.encode()
    return array


def _make_input(node: Any, spec: TensorSpec) -> None:
    dtype = tf.as_dtype(spec.dtype or node.attr["dtype"].type or node.attr["T"].type)
    node.op = "Placeholder"
    del node.input[:]
    node.ClearField("attr")
    node.attr["dtype"].type = dtype.as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(spec.shape).as_proto())


def _identity(name: str, tensor: str) -> Any:
    return tf.compat.v1.NodeDef(name=name, op="Identity", input=[tensor])


def _finish(nodes: Sequence[Any]) -> None:
    """No devices, and types for the last nodes, whose makers know them."""
    made = {node.name: node for node in nodes}
    for node in nodes:
        node.device = ""
        if node.op == "Identity" and not node.attr["T"].type:
            maker = made.get(node.input[0].split(":")[0])
            if maker is not None:
                node.attr["T"].type = _output_type(maker)


def _output_type(node: Any) -> int:
    """The type of the first output, as the op's definition and the node's attributes say."""
    definition = op_def_registry.get(node.op)
    first = definition.output_arg[0]
    return first.type or node.attr[first.type_attr].type
