"""Writes models of TensorFlow.js as its converter does: `model.json` and files of weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict

Graph = tuple[Any, dict[str, np.ndarray]]


def graph_of(build: Callable[[], Any]) -> Any:
    """The definition of the graph that a function makes."""
    with tf.Graph().as_default() as graph:
        build()
        return graph.as_graph_def()


def without_constants(graph_def: Any) -> Graph:
    """The graph and the values of its constants, which the converter keeps apart."""
    weights = {}
    for node in [*graph_def.node, *(inner for each in graph_def.library.function for inner in each.node_def)]:
        if node.op == "Const":
            weights[node.name] = tf.make_ndarray(node.attr["value"].tensor)
            node.attr["value"].tensor.ClearField("tensor_content")
            for field in ("float_val", "int_val", "bool_val"):
                node.attr["value"].tensor.ClearField(field)
    return graph_def, weights


def write_graph(folder: Path, graph_def: Any, **options: Any) -> Path:
    """`options` are those of `write`."""
    graph_def, weights = without_constants(graph_def)
    return write(folder, MessageToDict(graph_def), weights, "graph-model", **options)


def write(
    folder: Path,
    topology: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    kind: str,
    *,
    shard_nbytes: int = 2**22,
    quantised: Mapping[str, str] | None = None,
    **content: Any,
) -> Path:
    """`quantised` has the type that a weight is stored in, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    entries, data = [], b""
    for name, value in weights.items():
        value = value.astype({"int64": "int32", "float64": "float32"}.get(value.dtype.name, value.dtype))
        entry: dict[str, Any] = {"name": name, "shape": list(value.shape), "dtype": value.dtype.name}
        stored = (quantised or {}).get(name)
        if stored == "float16":
            entry["quantization"], value = {"dtype": stored, "original_dtype": "float32"}, value.astype(np.float16)
        elif stored:
            lowest, steps = float(value.min()), np.iinfo(stored).max
            scale = (float(value.max()) - lowest) / steps
            entry["quantization"] = {"dtype": stored, "scale": scale, "min": lowest}
            value = np.rint((value - lowest) / scale).astype(stored)
        entries.append(entry)
        data += value.tobytes()
    shards = [data[start : start + shard_nbytes] for start in range(0, len(data), shard_nbytes)]
    paths = [f"group1-shard{number + 1}of{len(shards)}.bin" for number in range(len(shards))]
    for path, shard in zip(paths, shards, strict=True):
        (folder / path).write_bytes(shard)
    manifest = [{"paths": paths, "weights": entries}]
    model = {"format": kind, "modelTopology": topology, "weightsManifest": manifest, **content}
    (folder / "model.json").write_text(json.dumps(model))
    return folder / "model.json"


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def image() -> None:
    """An image through a convolution, a mean and a matrix product."""
    x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 3), name="x")
    kernel, bias = tf.constant(normal(3, 3, 3, 8), name="net/conv/kernel"), tf.constant(normal(8), name="net/conv/bias")
    y = tf.nn.conv2d(x, kernel, 1, "SAME", name="net/conv/Conv2D")
    y = tf.nn.relu(tf.nn.bias_add(y, bias, name="net/conv/BiasAdd"), name="net/conv/Relu")
    y = tf.reduce_mean(y, tf.constant([1, 2], name="net/pool/axes"), name="net/pool/Mean")
    tf.matmul(y, tf.constant(normal(8, 4, seed=2), name="net/head/kernel"), name="net/head/MatMul")


def loop() -> None:
    """A number that is doubled while it is below 100, with the body and the condition as functions."""
    x = tf.compat.v1.placeholder(tf.float32, (), name="x")
    tf.compat.v1.enable_control_flow_v2()
    tf.identity(tf.while_loop(lambda value: value < 100.0, lambda value: [value * 2.0], [x], name="loop")[0], name="y")


def fused(op: str, steps: list[str], arguments: list[np.ndarray], **attributes: Any) -> Any:
    """One of the converter's joined operations on an image; `arguments` are the kernel and what the steps take."""
    graph_def = tf.compat.v1.GraphDef()
    x = graph_def.node.add(name="x", op="Placeholder")
    x.attr["dtype"].type = tf.float32.as_datatype_enum
    for number, argument in enumerate(arguments):
        node = graph_def.node.add(name=f"w{number}", op="Const")
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(argument))
    node = graph_def.node.add(name="y", op=op, input=["x", *(f"w{number}" for number in range(len(arguments)))])
    node.attr["T"].type = tf.float32.as_datatype_enum
    node.attr["num_args"].i = len(arguments) - 1
    node.attr["fused_ops"].list.s.extend(step.encode() for step in steps)
    if op == "_FusedConv2D":
        node.attr["TArgs"].list.type.extend([tf.float32.as_datatype_enum] * (len(arguments) - 1))
    if "MatMul" not in op:
        node.attr["strides"].list.i.extend([1, 1, 1, 1])
        node.attr["padding"].s = b"SAME"
        node.attr["data_format"].s = b"NHWC"
    for key, value in attributes.items():
        node.attr[key].f = value
    return graph_def


def run(graph_def: Any, feeds: Mapping[str, np.ndarray], output: str) -> np.ndarray:
    """What TensorFlow computes."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            found: np.ndarray = session.run(output, dict(feeds))
            return found
