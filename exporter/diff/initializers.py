"""Where each initializer's bytes are in a model's files, found without reading them.

Field numbers are those of `onnx.proto`.
Parsing a model with `onnx.load` would hold all weights that are inside the file.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, StringStringEntryProto, TensorProto, helper

from exporter.errors import SourceError
from exporter.protobuf import fields


@dataclass(frozen=True)
class Place:
    """Elements of a tensor: `dims` and `dtype` as stored, bytes from `offset` on in the file `path`."""

    path: Path
    offset: int
    dims: tuple[int, ...]
    dtype: np.dtype

    def chunks(self, elements: int) -> Iterator[np.ndarray]:
        """The elements in order, so many at a time. Raises SourceError when the file ends before them."""
        left = math.prod(self.dims)
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.offset)
                while left:
                    wanted = min(left, elements)
                    data = stream.read(wanted * self.dtype.itemsize)
                    if len(data) < wanted * self.dtype.itemsize:
                        raise _damaged(self.path, "it ends inside of a weight")
                    yield np.frombuffer(data, self.dtype)
                    left -= wanted
        except OSError as error:
            raise _damaged(self.path, error.strerror or str(error)) from error


def places(path: Path) -> dict[str, Place]:
    """By the initializer's name; those without raw or external bytes are left out. Raises SourceError."""
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return dict(_initializers(path, content))
    except (OSError, ValueError, IndexError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError("cannot be read", where=str(path), why=why, hint="export the model again with --force")


def _initializers(path: Path, content: mmap.mmap) -> Iterator[tuple[str, Place]]:
    for graph_number, graph_start, graph_stop in fields(content, 0, len(content)):
        if graph_number == ModelProto.GRAPH_FIELD_NUMBER:
            for number, start, stop in fields(content, graph_start, graph_stop):
                if number == GraphProto.INITIALIZER_FIELD_NUMBER:
                    yield from _initializer(path, content, start, stop)


def _initializer(path: Path, content: mmap.mmap, start: int, stop: int) -> Iterator[tuple[str, Place]]:
    """The tensor without its bytes is a small message, which onnx parses."""
    header, raw, at = bytearray(), None, start
    for number, first, last in fields(content, start, stop):
        if number == TensorProto.RAW_DATA_FIELD_NUMBER:
            raw = first
        else:
            header += content[at:last]
        at = last
    tensor = TensorProto.FromString(bytes(header))
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if raw is not None:
        yield tensor.name, Place(path, raw, tuple(tensor.dims), dtype)
    elif tensor.data_location == TensorProto.EXTERNAL:
        entries: dict[str, str] = dict(map(_entry, tensor.external_data))
        file = path.parent / os.path.basename(entries["location"])
        yield tensor.name, Place(file, int(entries.get("offset", 0)), tuple(tensor.dims), dtype)


def _entry(entry: StringStringEntryProto) -> tuple[str, str]:
    return entry.key, entry.value
