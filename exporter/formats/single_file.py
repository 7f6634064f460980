"""A model with its weights inside, as a stream: protobuf needs the lengths first, and those are known.

`ModelProto.SerializeToString` would hold all weights twice. Field numbers and wire format are those of `onnx.proto`
and of the protobuf encoding (https://protobuf.dev/programming-guides/encoding): a field is its number · 8 + 2, the
length of its content, and the content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, TensorProto

from exporter.lazy import LazyArray
from exporter.protobuf import field_start

# Protobuf messages end at 2 GiB.
LARGEST_NBYTES = 2**31 - 1


def items(model: ModelProto, weights: Mapping[str, LazyArray]) -> tuple[int, Iterator[bytes | LazyArray]]:
    """The file's length and its content. `model` loses the initializers that `weights` has values for."""
    initializers = model.graph.initializer
    headers = {
        proto.name: _header(proto, weights[proto.name].nbytes) for proto in initializers if proto.name in weights
    }
    others = [TensorProto.FromString(proto.SerializeToString()) for proto in initializers if proto.name not in weights]
    del initializers[:]
    initializers.extend(others)
    graph = model.graph.SerializeToString(deterministic=True)
    tensors = [
        (field_start(GraphProto.INITIALIZER_FIELD_NUMBER, len(header) + weights[name].nbytes) + header, weights[name])
        for name, header in headers.items()
    ]
    graph_nbytes = len(graph) + sum(len(header) + array.nbytes for header, array in tensors)
    outside = ModelProto()
    outside.CopyFrom(model)
    outside.ClearField("graph")
    start = (
        outside.SerializeToString(deterministic=True) + field_start(ModelProto.GRAPH_FIELD_NUMBER, graph_nbytes) + graph
    )
    return len(start) - len(graph) + graph_nbytes, _content(start, tensors)


def _content(start: bytes, tensors: list[tuple[bytes, LazyArray]]) -> Iterator[bytes | LazyArray]:
    yield start
    for header, array in tensors:
        yield header
        yield array


def _header(proto: TensorProto, nbytes: int) -> bytes:
    """A tensor's fields up to its bytes, which come last."""
    plain = TensorProto(name=proto.name, data_type=proto.data_type, dims=proto.dims)
    return plain.SerializeToString(deterministic=True) + field_start(TensorProto.RAW_DATA_FIELD_NUMBER, nbytes)
