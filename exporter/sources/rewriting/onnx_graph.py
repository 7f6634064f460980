"""Small facts about ONNX graphs that the steps of the conversion share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from exporter.lazy import LazyArray


def stub(name: str, array: LazyArray) -> TensorProto:
    """An initializer with dims and a data type, marked as external, without bytes."""
    return TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
        data_location=TensorProto.EXTERNAL,
    )


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of a `Loop`, `Scan` or `If`."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all graphs inside it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def used_names(node: NodeProto) -> Iterator[str]:
    """The values that a node refers to, those that its subgraphs take from outside included."""
    yield from node.input
    for graph in subgraphs(node):
        for inner in graph.node:
            yield from used_names(inner)
        yield from (output.name for output in graph.output)


def replace(field: Any, messages: Iterable[Any]) -> None:
    """Give a repeated protobuf field new content, which may be some of the messages that it holds now."""
    copies = [type(message).FromString(message.SerializeToString()) for message in messages]
    del field[:]
    field.extend(copies)
