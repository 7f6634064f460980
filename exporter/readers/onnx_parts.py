"""An ONNX file as its parts, each parsed by itself: the weights stay in the file, however large it is."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from exporter.protobuf import Field, fields

# Field numbers of onnx.proto.
MODEL_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
GRAPH = {each.name: each.number for each in ModelProto.DESCRIPTOR.fields_by_name["graph"].message_type.fields}
TENSOR = {each.name: each.number for each in TensorProto.DESCRIPTOR.fields}
VALUES = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
BULK = {TENSOR[name] for name in (*VALUES, "raw_data")}


@dataclass(frozen=True, slots=True)
class StoredInitializer:
    """An initializer without its elements. `start` and `stop` enclose its raw bytes in the file, if it has such."""

    proto: TensorProto
    message: tuple[int, int]
    start: int | None
    stop: int | None


@dataclass
class OnnxParts:
    """What an ONNX file holds; `head` is the model without its graph.

    Nodes and `value_info` are parsed one by one, as often as they are asked for.
    """

    path: Path
    head: ModelProto
    name: str = ""
    inputs: list[ValueInfoProto] = field(default_factory=list)
    outputs: list[ValueInfoProto] = field(default_factory=list)
    values: list[tuple[int, int]] = field(default_factory=list)
    initializers: list[StoredInitializer] = field(default_factory=list)
    _places: list[tuple[int, int]] = field(default_factory=list)
    _data: memoryview = field(default_factory=lambda: memoryview(b""))

    def nodes(self) -> Iterator[NodeProto]:
        """Raises TypeError for a name that is no text: protobuf gives its bytes, which nothing can be done with."""
        for start, stop in self._places:
            node = NodeProto.FromString(self._data[start:stop])
            "".join((node.name, node.op_type, node.domain, *node.input, *node.output))
            yield node

    def value_infos(self) -> Iterator[ValueInfoProto]:
        """Raises TypeError as `nodes` does."""
        for start, stop in self.values:
            value = ValueInfoProto.FromString(self._data[start:stop])
            "".join((value.name,))
            yield value

    def initializer(self, stored: StoredInitializer) -> TensorProto:
        """With its elements."""
        return TensorProto.FromString(self._data[slice(*stored.message)])

    @property
    def node_count(self) -> int:
        return len(self._places)


def read_parts(path: Path) -> OnnxParts:
    """Raises OSError, and ValueError, TypeError or protobuf's DecodeError for what is no ONNX file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        data = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)
    graphs = [each for each in fields(data, 0, len(data)) if each.number == MODEL_GRAPH]
    if len(graphs) != 1:
        raise ValueError(f"{len(graphs)} graphs")
    graph = graphs[0]
    head = ModelProto.FromString(bytes(data[: _tag_start(data, graph)]) + bytes(data[graph.stop :]))
    parts = OnnxParts(path, head, _data=data)
    for each in fields(data, graph.start, graph.stop):
        _take(parts, data, each)
    "".join((parts.name, *(value.name for value in (*parts.inputs, *parts.outputs))))
    "".join(stored.proto.name for stored in parts.initializers)
    return parts


def _tag_start(data: memoryview, graph: Field) -> int:
    """Where the field's tag begins: fields before it are whole, so the last one's end is the place."""
    end = 0
    for each in fields(data, 0, len(data)):
        if each.start == graph.start:
            return end
        end = each.stop
    raise ValueError("the graph is not there")


def _take(parts: OnnxParts, data: memoryview, each: Field) -> None:
    place = (each.start, each.stop)
    if each.number == GRAPH["node"]:
        parts._places.append(place)
    elif each.number == GRAPH["initializer"]:
        parts.initializers.append(_header(data, each))
    elif each.number == GRAPH["value_info"]:
        parts.values.append(place)
    elif each.number == GRAPH["name"]:
        parts.name = bytes(data[each.start : each.stop]).decode()
    elif each.number in (GRAPH["input"], GRAPH["output"]):
        values = parts.inputs if each.number == GRAPH["input"] else parts.outputs
        values.append(ValueInfoProto.FromString(data[each.start : each.stop]))


def _header(data: memoryview, tensor: Field) -> StoredInitializer:
    """The tensor's fields but for its elements."""
    kept, end = [], tensor.start
    raw: tuple[int | None, int | None] = (None, None)
    for each in fields(data, tensor.start, tensor.stop):
        if each.number not in BULK:
            kept.append(bytes(data[end : each.stop]))
        elif each.number == TENSOR["raw_data"]:
            raw = (each.start, each.stop)
        end = each.stop
    return StoredInitializer(TensorProto.FromString(b"".join(kept)), (tensor.start, tensor.stop), *raw)
