"""An ONNX file without its weights, read without reading them: large content is stepped over where it lies."""

from __future__ import annotations

import mmap
from pathlib import Path

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from exporter.errors import SourceError
from exporter.formats.view_model.hollow import CONTENT, SMALL_NBYTES
from exporter.protobuf import field_start, fields

DAMAGED = (OSError, ValueError, IndexError, RecursionError, DecodeError)


def read_hollow(path: Path, *, refer: str = "") -> ModelProto:
    """The model of a file; tensors with more than a little content have none.

    With `refer` those say where in a file of that name their bytes are, as external data. In memory at once: the model
    without its weights, twice. Raises SourceError.
    """
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if hasattr(mmap, "MADV_RANDOM"):
                # The disk need not read on into the weights.
                content.madvise(mmap.MADV_RANDOM)
            stripped = _stripped(content, 0, len(content), ModelProto.DESCRIPTOR, refer)
        model = ModelProto.FromString(stripped)
    except DAMAGED as error:
        raise _unreadable(path, str(error)) from error
    if not model.HasField("graph"):
        raise _unreadable(path, "it holds no graph")
    return model


def _unreadable(path: Path, why: str) -> SourceError:
    hint = "is it an ONNX file, and whole? export or download it again"
    return SourceError("cannot be read as ONNX", where=str(path), why=why, hint=hint)


def _stripped(content: mmap.mmap, start: int, stop: int, kind: Descriptor, location: str) -> bytes:
    """A message without the content of its tensors; `kind` says which fields are messages themselves."""
    out, copied = bytearray(), start
    place = None
    end = start
    for number, first, last in fields(content, start, stop):
        begin, end = end, last
        field = kind.fields_by_number.get(number) if last - first > SMALL_NBYTES else None
        if field is None:
            continue
        if kind.name == "TensorProto" and field.name in CONTENT:
            out += content[copied:begin]
            copied = last
            place = (first, last - first) if field.name == "raw_data" else None
        elif field.message_type is not None:
            out += content[copied:begin]
            copied = last
            inner = _stripped(content, first, last, field.message_type, location)
            out += field_start(number, len(inner)) + inner
    out += content[copied:stop]
    if place and location:
        out += _reference(location, *place)
    return bytes(out)


def _reference(location: str, offset: int, length: int) -> bytes:
    proto = TensorProto(data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        proto.external_data.add(key=key, value=value)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data
