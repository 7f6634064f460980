"""The initializers of an ONNX file: type, size and place from their headers, elements when they are asked for."""

from __future__ import annotations

import functools
import math
import os
import stat
from collections.abc import Iterator

import numpy as np
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper
from onnx.checker import ValidationError

from exporter.errors import SourceError
from exporter.graph_limits import LARGEST, check_shape
from exporter.lazy import LazyArray
from exporter.readers.onnx_parts import OnnxParts, StoredInitializer
from exporter.records import StoredTensor
from exporter.sources.h5_values import COPY_AGAIN, Extent

# Bits of the elements that ONNX packs.
BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
# Elements for each byte of a message, at most: a number of one byte may hold four elements of two bits.
MOST_PACKING = 4
# Longer ones no file system has.
LONGEST_NAME = 4096
WIDER = {"int4": "int8", "uint4": "uint8", "int2": "int8", "uint2": "uint8", "float4_e2m1fn": "float32"}


@functools.cache
def dtype_name(data_type: int) -> str | None:
    """NumPy's name of an ONNX type; None for text and for what is not known."""
    if data_type in (TensorProto.UNDEFINED, TensorProto.STRING) or data_type not in TensorProto.DataType.values():
        return None
    return str(helper.tensor_dtype_to_np_dtype(data_type).name)


def initializer_nbytes(proto: TensorProto) -> int:
    """Bytes of the elements as ONNX stores them, small types packed. Text, whose size is not known, counts as none."""
    if dtype_name(proto.data_type) is None:
        return 0
    whole = 8 * helper.tensor_dtype_to_np_dtype(proto.data_type).itemsize
    return -(-math.prod(proto.dims) * BITS.get(TensorProto.DataType.Name(proto.data_type), whole) // 8)


def check_initializers(parts: OnnxParts) -> None:
    """Raises ValueError for what claims more than it has, and SourceError for data that is not beside the file."""
    total = 0
    there: dict[str, int | None] = {}
    for each in parts.initializers:
        proto = each.proto
        check_shape(proto.dims, 8, f"initializer {proto.name!r}")
        nbytes = initializer_nbytes(proto)
        total += nbytes
        if proto.data_location == TensorProto.EXTERNAL:
            _check_place(parts, proto, nbytes, there)
        elif each.start is not None and each.stop is not None:
            if dtype_name(proto.data_type) is not None and each.stop - each.start != nbytes:
                found = each.stop - each.start
                raise ValueError(
                    f"initializer {proto.name!r} of {list(proto.dims)} has {found:,} bytes: not {nbytes:,}"
                )
        elif math.prod(proto.dims) > MOST_PACKING * (each.message[1] - each.message[0]) and _has_numbers(parts, each):
            raise ValueError(f"initializer {proto.name!r} of {list(proto.dims)} has too few elements")
    if total > LARGEST:
        raise ValueError(f"its initializers have {total:,} bytes")


def _has_numbers(parts: OnnxParts, each: StoredInitializer) -> bool:
    """Whether there are any; files that are only looked at come without."""
    return any(field.name.endswith("_data") for field, _ in parts.initializer(each).ListFields())


def _check_place(parts: OnnxParts, proto: TensorProto, nbytes: int, there: dict[str, int | None]) -> None:
    """The data of a file that is there must be in it; a file that is missing is said later.

    `there` has the sizes of the files that have been asked for, by their names.
    """
    place, what = _place(proto), f"the external data of initializer {proto.name!r}"
    name = place.get("location")
    if not name:
        raise ValueError(f"{what} is in no file")
    start, length = (_size(place.get(key, default), what) for key, default in (("offset", "0"), ("length", "")))
    if name not in there:
        path = _path(parts, name)
        there[name] = os.stat(path).st_size if os.path.exists(path) else None
    size, end = there[name], (start or 0) + nbytes
    if size is None or dtype_name(proto.data_type) is None:
        return
    if end > size or length not in (None, nbytes):
        claimed = "" if length is None else f", where {length:,} are said to be"
        raise ValueError(f"{what} needs {nbytes:,} bytes up to byte {end:,} of {size:,}{claimed}")


def _size(text: str, what: str) -> int | None:
    """What is left out is None. Raises ValueError."""
    if text and not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= LARGEST):
        raise ValueError(f"{what} has the size or place {text[:40]!r}")
    return int(text) if text else None


def stored_tensors(parts: OnnxParts) -> Iterator[StoredTensor]:
    """Where the bytes of each initializer are, as the file says."""
    for each in parts.initializers:
        proto = each.proto
        place = _place(proto)
        yield StoredTensor(
            weight=proto.name,
            initializer=proto.name,
            transform="none",
            dtype=dtype_name(proto.data_type) or "object",
            data_file=place.get("location"),
            data_offset=int(place.get("offset", 0)) if place else None,
            data_nbytes=int(place["length"]) if "length" in place else initializer_nbytes(proto),
        )


def missing_files(parts: OnnxParts) -> list[str]:
    """Names of external data files that are not there, or that must not be opened."""
    names = dict.fromkeys(place["location"] for place in map(_place, _protos(parts)) if place.get("location"))
    return [name for name in names if not os.path.isfile(_path(parts, name))]


def lazy_values(parts: OnnxParts) -> Iterator[tuple[str, LazyArray]]:
    """The numbers of each initializer, by its name, unread; text is left out."""
    descriptors: dict[str, int] = {}
    for each in parts.initializers:
        if dtype_name(each.proto.data_type) is not None:
            yield each.proto.name, _lazy(parts, each, descriptors).named(each.proto.name)


def _lazy(parts: OnnxParts, each: StoredInitializer, descriptors: dict[str, int]) -> LazyArray:
    proto, place = each.proto, _place(each.proto)
    dtype, shape = helper.tensor_dtype_to_np_dtype(proto.data_type), tuple(proto.dims)
    name, offset = str(parts.path), each.start
    if place:
        name, offset = _path(parts, place["location"]), int(place.get("offset", 0))
    if TensorProto.DataType.Name(proto.data_type) in BITS or offset is None:
        # Packed, or in a field of numbers: onnx knows how.
        return LazyArray(shape, _wide(dtype), lambda: _parsed(parts, each))
    if name not in descriptors:
        try:
            # For the life of this process.
            descriptors[name] = os.open(name, os.O_RDONLY)
        except OSError as error:
            why = error.strerror or str(error)
            raise SourceError("cannot be read", where=name, why=why, hint=COPY_AGAIN) from error
    return _at(Extent(descriptors[name], offset), shape, dtype, where=name)


def _at(extent: Extent, shape: tuple[int, ...], dtype: np.dtype, where: str) -> LazyArray:
    def part(start: int, stop: int) -> np.ndarray:
        try:
            return extent.read(start * dtype.itemsize, (stop - start) * dtype.itemsize).view(dtype)
        except OSError as error:
            raise SourceError("cannot be read", where=where, why=str(error), hint=COPY_AGAIN) from error

    size = math.prod(shape)
    return LazyArray(shape, dtype, lambda: part(0, size).reshape(shape), part=part)


def _wide(dtype: np.dtype) -> np.dtype:
    """Types of less than a byte count as the numbers that they are."""
    return np.dtype(WIDER.get(dtype.name, dtype))


def _parsed(parts: OnnxParts, each: StoredInitializer) -> np.ndarray:
    """Raises SourceError where the elements are not those of the shape."""
    proto = each.proto
    try:
        found = numpy_helper.to_array(parts.initializer(each), base_dir=str(parts.path.parent))
        return found.astype(_wide(helper.tensor_dtype_to_np_dtype(proto.data_type))).reshape(tuple(proto.dims))
    except (ValueError, TypeError, OSError, DecodeError, ValidationError) as error:
        where = f"{parts.path}, initializer {proto.name}"
        raise SourceError("is corrupt", where=where, why=str(error)[:300], hint=COPY_AGAIN) from error


def _protos(parts: OnnxParts) -> Iterator[TensorProto]:
    return (each.proto for each in parts.initializers)


def _place(proto: TensorProto) -> dict[str, str]:
    """`location`, `offset` and `length` of external data; empty when the elements are in the file."""
    if proto.data_location != TensorProto.EXTERNAL:
        return {}
    return {entry.key: entry.value for entry in proto.external_data}


def _path(parts: OnnxParts, location: str) -> str:
    """Raises SourceError for a name that leads out of the model's folder, or to something that is no file."""
    folder = os.path.realpath(parts.path.parent)
    is_name = "\0" not in location and len(location) < LONGEST_NAME
    path = os.path.realpath(os.path.join(folder, location)) if is_name else ""
    hint = "put the data file beside the model"
    if not path or os.path.commonpath([folder, path]) != folder:
        why = f"its weights are said to be in {location[:200]!r}, outside of its folder"
        raise SourceError("cannot be read", where=str(parts.path), why=why, hint=hint)
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        why = f"its weights are said to be in {location[:200]!r}, which is no file"
        raise SourceError("cannot be read", where=str(parts.path), why=why, hint=hint)
    return path
