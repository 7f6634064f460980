"""TensorFlow's graphs in files, read without their large constants, which stay in the file.

Frozen graphs carry their weights in `Const` nodes. In the message that is parsed, each of more than a few bytes is an
`ImmutableConst`, an op that has a shape and a dtype and no content, and whose `memory_region_name` is the key under
which `constants` has the value. The numbers of fields are those of `graph.proto`, `node_def.proto`, `tensor.proto`,
`function.proto`, `meta_graph.proto` and `saved_model.proto` in `tensorflow/core`.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2

from exporter.errors import SourceError
from exporter.lazy import LazyArray
from exporter.protobuf import Field, encoded, field_start, fields
from exporter.sources.graphs.tensorflow_types import numpy_dtype
from exporter.sources.h5_values import COPY_AGAIN, Extent

NODE_OP, NODE_ATTRIBUTE, ENTRY_KEY, ENTRY_VALUE, VALUE_TENSOR = 2, 5, 1, 2, 8
TENSOR_DTYPE, TENSOR_SHAPE, TENSOR_CONTENT = 1, 2, 4
# Where nodes are in a message: the numbers of the fields on the way, None for a node itself.
Way = Mapping[int, Any]
GRAPH: Way = {1: None, 2: {1: {3: None}}}
META_GRAPH: Way = {2: GRAPH}
SAVED_MODEL: Way = {2: META_GRAPH}
# Constants that are no weights (shapes, axes, scalars) are smaller, and are needed to understand the graph.
SMALL_NBYTES = 1024
HOLLOW_OP = "ImmutableConst"


@dataclass
class GraphFile:
    """The bytes of a message without its large constants, and those, unread, by key."""

    content: bytes
    constants: dict[str, LazyArray]


@dataclass
class _Reading:
    data: mmap.mmap
    extent: Extent
    constants: dict[str, LazyArray] = field(default_factory=dict)


def read_graph_file(path: str, way: Way) -> GraphFile:
    """Raises SourceError for what cannot be read or is no such message."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise SourceError("cannot be read", where=path, why=error.strerror or str(error), hint=COPY_AGAIN) from error
    # The file stays open as long as its constants may be asked for.
    stream = os.fdopen(descriptor, "rb", buffering=0)
    try:
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
            reading = _Reading(data, Extent(descriptor, owner=stream))
            return GraphFile(b"".join(_hollow(reading, way, 0, len(data))), reading.constants)
    except (ValueError, OSError, DecodeError, TypeError) as error:
        raise damaged(path, error) from error


def damaged(path: str, error: Exception) -> SourceError:
    why = f"as a TensorFlow graph: {str(error)[:200]}"
    return SourceError("is truncated or corrupt", where=path, why=why, hint=COPY_AGAIN)


def _hollow(reading: _Reading, way: Way, start: int, stop: int) -> Iterator[bytes]:
    """The message with hollow nodes, in pieces."""
    place = start
    for each in fields(reading.data, start, stop):
        if each.number not in way:
            yield reading.data[place : each.stop]
        else:
            inner = way[each.number]
            parts = _node(reading, each) if inner is None else b"".join(_hollow(reading, inner, each.start, each.stop))
            yield field_start(each.number, len(parts)) + parts
        place = each.stop


def _node(reading: _Reading, node: Field) -> bytes:
    if node.stop - node.start > SMALL_NBYTES:
        found = list(fields(reading.data, node.start, node.stop))
        op = b"".join(reading.data[each.start : each.stop] for each in found if each.number == NODE_OP)
        value = next((each for each in map(_tensor(reading), found) if each), None) if op == b"Const" else None
        array = _lazy(reading, value) if value else None
        if array is not None:
            kept = [_kept(reading, each) for each in found if each.number not in (NODE_OP, NODE_ATTRIBUTE)]
            return b"".join(kept) + _hollow_rest(reading, array)
    return reading.data[node.start : node.stop]


def _kept(reading: _Reading, each: Field) -> bytes:
    return field_start(each.number, each.stop - each.start) + reading.data[each.start : each.stop]


def _tensor(reading: _Reading) -> Any:
    """Finds the tensor in the attribute `value` of a constant."""

    def find(attribute: Field) -> Field | None:
        if attribute.number != NODE_ATTRIBUTE:
            return None
        entry = {each.number: each for each in fields(reading.data, attribute.start, attribute.stop)}
        key, value = entry.get(ENTRY_KEY), entry.get(ENTRY_VALUE)
        if key is None or value is None or reading.data[key.start : key.stop] != b"value":
            return None
        inner = fields(reading.data, value.start, value.stop)
        return next((each for each in inner if each.number == VALUE_TENSOR), None)

    return find


def _lazy(reading: _Reading, tensor: Field) -> LazyArray | None:
    """None for text, which is no weight. Raises ValueError where the size is not that of the shape."""
    header, content, others = tensor_pb2.TensorProto(), None, 0
    for each in fields(reading.data, tensor.start, tensor.stop):
        if each.number in (TENSOR_DTYPE, TENSOR_SHAPE):
            header.MergeFromString(_field(reading, each))
        elif each.number == TENSOR_CONTENT:
            content = each
        else:
            others += each.stop - each.start
    dtype = numpy_dtype(header.dtype)
    shape = tuple(dim.size for dim in header.tensor_shape.dim)
    if dtype is None or dtype.itemsize * 8 != _bits(header.dtype):
        return None
    if any(size < 0 for size in shape):
        raise ValueError(f"a constant has the shape {list(shape)}")
    if content is None:
        return _from_values(reading, tensor, shape, dtype, others)
    if math.prod(shape) * dtype.itemsize != content.stop - content.start:
        raise ValueError(f"a constant of {dtype}{list(shape)} has {content.stop - content.start:,} bytes")
    return _from_content(reading.extent, content.start, shape, dtype)


def _bits(number: int) -> int:
    """Of one element in `tensor_content`: types of less than a byte are packed there, and left to TensorFlow."""
    dtype = numpy_dtype(number)
    return 0 if dtype is None or "int4" in dtype.name or "int2" in dtype.name else dtype.itemsize * 8


def _field(reading: _Reading, each: Field) -> bytes:
    """A field of TensorProto again; the only number among those that are wanted is the dtype."""
    if each.number == TENSOR_DTYPE:
        return encoded(TENSOR_DTYPE << 3) + reading.data[each.start : each.stop]
    return _kept(reading, each)


def _from_content(extent: Extent, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> LazyArray:
    def part(start: int, stop: int) -> np.ndarray:
        try:
            data = extent.read(offset + start * dtype.itemsize, (stop - start) * dtype.itemsize)
        except OSError as error:
            raise SourceError("cannot be read", where="a constant", why=str(error), hint=COPY_AGAIN) from error
        return data.view(dtype)

    size = math.prod(shape)
    return LazyArray(shape, dtype, lambda: part(0, size).reshape(shape), part=part, content=(id(extent), offset))


def _from_values(
    reading: _Reading, tensor: Field, shape: tuple[int, ...], dtype: np.dtype, nbytes: int
) -> LazyArray | None:
    """A constant as a list of numbers, of which the last stands for all that follow; TensorFlow knows the ways."""
    # Small in the file, however large the shape says that it is: the message is kept, and a graph that fills it.
    if nbytes <= SMALL_NBYTES:
        return None
    extent = reading.extent
    start, length = tensor.start, tensor.stop - tensor.start

    def make() -> np.ndarray:
        proto = tensor_pb2.TensorProto.FromString(extent.read(start, length).tobytes())
        return np.asarray(tf.make_ndarray(proto))

    return LazyArray(shape, dtype, make, content=(id(extent), start))


def _hollow_rest(reading: _Reading, array: LazyArray) -> bytes:
    key = f"constant/{len(reading.constants)}"
    reading.constants[key] = array
    return hollow_node("", key, array).SerializeToString()


def hollow_node(name: str, key: str, array: LazyArray) -> tf.compat.v1.NodeDef:
    """A node that stands for the value of that key, of which it has the shape and the dtype."""
    node = tf.compat.v1.NodeDef(name=name, op=HOLLOW_OP)
    node.attr["dtype"].type = tf.dtypes.as_dtype(array.dtype).as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    node.attr["memory_region_name"].s = key.encode()
    return node
