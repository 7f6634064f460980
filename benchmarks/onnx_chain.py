"""ONNX files with any number of nodes, written node by node: residual blocks, each in a scope of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

NODES_PER_BLOCK = 5
WIDTH = 8


def write(path: Path, count: int) -> None:
    """A valid model of about `count` nodes; the shapes of all tensors are given."""
    with open(path, "wb") as stream:
        head = helper.make_model(helper.make_graph([], "chain", [], []), opset_imports=[helper.make_opsetid("", 18)])
        head.ClearField("graph")
        stream.write(head.SerializeToString())
        graph = b"".join(graph_parts(count // NODES_PER_BLOCK))
        stream.write(_tag(ModelProto, "graph") + _length(graph) + graph)


def graph_parts(blocks: int) -> Iterator[bytes]:
    kinds = ModelProto.DESCRIPTOR.fields_by_name["graph"].message_type

    def part(name: str, message: object) -> bytes:
        data = message.SerializeToString()
        return bytes([kinds.fields_by_name[name].number << 3 | 2]) + _length(data) + data

    yield bytes([kinds.fields_by_name["name"].number << 3 | 2, 5]) + b"chain"
    for number in range(blocks):
        for node in block(number):
            yield part("node", node)
    yield part("initializer", numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "weight"))
    for place, name in (("input", "x0"), ("output", f"x{blocks}")):
        yield part(place, helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]))
    for number in range(1, blocks):
        yield part("value_info", helper.make_tensor_value_info(f"x{number}", TensorProto.FLOAT, ["batch", WIDTH]))


def block(number: int) -> Iterator[NodeProto]:
    """`x → MatMul → Relu → MatMul → Add(x) → Relu`."""
    scope, before = f"/stage{number // 1000}/block{number}", f"x{number}"
    for op, name, inputs in (
        ("MatMul", "first/MatMul", [before, "weight"]),
        ("Relu", "first/Relu", [f"{scope}/first/MatMul:0"]),
        ("MatMul", "second/MatMul", [f"{scope}/first/Relu:0", "weight"]),
        ("Add", "Add", [f"{scope}/second/MatMul:0", before]),
    ):
        yield helper.make_node(op, inputs, [f"{scope}/{name}:0"], name=f"{scope}/{name}")
    yield helper.make_node("Relu", [f"{scope}/Add:0"], [f"x{number + 1}"], name=f"{scope}/Relu")


def _tag(message: type, name: str) -> bytes:
    return bytes([message.DESCRIPTOR.fields_by_name[name].number << 3 | 2])  # type: ignore[attr-defined]


def _length(data: bytes) -> bytes:
    """As a varint."""
    size, found = len(data), bytearray()
    while size > 127:
        found.append(size & 127 | 128)
        size >>= 7
    return bytes([*found, size])
