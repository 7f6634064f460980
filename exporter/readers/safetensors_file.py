"""safetensors files, alone or in shards: a JSON header says where each tensor lies in the bytes behind it.

The format is described in the README of huggingface/safetensors, and its `tensor.rs` says what is to be refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from exporter.errors import SourceError, UnsupportedError
from exporter.lazy import LazyArray
from exporter.readers.described import DescribedModel
from exporter.readers.weight_tree import Tensor, described, natural
from exporter.records import Job
from exporter.sources.h5_values import COPY_AGAIN, Extent
from exporter.sources.safetensors_index import LARGEST_HEADER, is_index, shard_files

# Names as the format has them, and as NumPy and ml_dtypes have them.
DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
# Numbers of less than a byte, which NumPy's arrays cannot hold packed.
PACKED = ("F4", "F6_E2M3", "F6_E3M2")


def read(job: Job, spool_path: str) -> DescribedModel:
    """Raises SourceError, and UnsupportedError for numbers of less than a byte."""
    if not is_index(job.source):
        return described(job.name, _ordered(_tensors(job.source)), "from the file")
    shards = shard_files(job.source)
    tensors: dict[str, Tensor] = {}
    for shard, names in shards.items():
        found = {tensor.name: tensor for tensor in _tensors(str(shard))}
        if missing := sorted(names - found.keys()):
            why = f"{shard.name} has no tensor {missing[0]!r}"
            raise SourceError("is not complete", where=job.source, why=why, hint=COPY_AGAIN)
        tensors |= found
    return described(job.name, _ordered(tensors.values()), f"from {len(shards)} shards")


def _ordered(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The file's order is by dtype and alignment; the names' order is the model's, as far as anything says it."""
    return sorted(tensors, key=lambda tensor: natural(tensor.name))


def _tensors(path: str) -> Iterator[Tensor]:
    header, start, size = _header(path)
    header.pop("__metadata__", None)
    end = 0
    for begin, stop, name, entry in sorted(_places(header, path), key=lambda place: place[:2]):
        if begin != end:
            raise _corrupt(path, f"tensor {name!r} does not start where the one before it ends")
        end = stop
        yield _tensor(name, entry, begin, stop, start, path)
    if end != size:
        raise _corrupt(path, f"its tensors have {end} bytes, and the file has {size} for them")


def _header(path: str) -> tuple[dict[str, Any], int, int]:
    """The header, where the tensors' bytes start, and how many there are. Raises SourceError."""
    try:
        with open(path, "rb") as stream:
            nbytes = os.fstat(stream.fileno()).st_size
            length = int.from_bytes(stream.read(8), "little")
            if length > min(LARGEST_HEADER, nbytes - 8):
                raise _corrupt(path, f"its header claims {length} bytes, and the file has {nbytes}")
            header = json.loads(stream.read(length))
    except OSError as error:
        raise SourceError("cannot be read", where=path, why=error.strerror or str(error), hint=COPY_AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise _corrupt(path, "its header is no JSON object")
    return header, 8 + length, nbytes - 8 - length


def _places(header: dict[str, Any], path: str) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
    for name, entry in header.items():
        offsets = _sizes(entry.get("data_offsets")) if isinstance(entry, dict) else None
        if offsets is None or len(offsets) != 2:
            raise _corrupt(path, f"tensor {name!r} does not say where it is")
        yield offsets[0], offsets[1], name, entry


def _sizes(value: Any) -> list[int] | None:
    """The list, if it is one of sizes."""
    fits = isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)
    return value if fits else None


def _tensor(name: str, entry: dict[str, Any], begin: int, stop: int, start: int, path: str) -> Tensor:
    kind, shape = str(entry.get("dtype")), _sizes(entry.get("shape"))
    if kind in PACKED:
        why = f"tensor {name!r} holds {kind}, numbers of less than a byte"
        raise UnsupportedError("cannot be read", where=path, why=why, hint="save it with another dtype")
    if kind not in DTYPES or shape is None:
        raise _corrupt(path, f"tensor {name!r} has dtype {kind} and shape {entry.get('shape')}"[:300])
    dtype = np.dtype(DTYPES[kind])
    if math.prod(shape) * dtype.itemsize != stop - begin:
        raise _corrupt(path, f"tensor {name!r} is {kind} of shape {shape}, and has {stop - begin} bytes")
    groups = tuple((part, part) for part in name.replace("/", ".").split(".")[:-1] if part)
    return Tensor(name, groups, _value(path, name, tuple(shape), dtype, start + begin), stop - begin)


def _value(path: str, name: str, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> LazyArray:
    """Elements read from the file when they are asked for, which is opened for each read."""

    def part(first: int, last: int) -> np.ndarray:
        try:
            with open(path, "rb", buffering=0) as stream:
                extent = Extent(stream.fileno(), offset)
                return extent.read(first * dtype.itemsize, (last - first) * dtype.itemsize).view(dtype)
        except OSError as error:
            where = f"{os.path.basename(path)}, tensor {name}"
            raise SourceError("cannot be read", where=where, why=str(error), hint=COPY_AGAIN) from error

    size = math.prod(shape)
    return LazyArray(shape, dtype, lambda: part(0, size).reshape(shape), part=part)


def _corrupt(path: str, why: str) -> SourceError:
    return SourceError("is truncated or corrupt", where=path, why=why, hint=COPY_AGAIN)
