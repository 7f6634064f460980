"""TensorFlow's checkpoints without TensorFlow: an index (a sorted table) and files with the bytes of the tensors.

The format is that of `tensorflow/core/util/tensor_bundle` and of `tensorflow/core/protobuf/tensor_bundle.proto`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from google_crc32c import extend

from exporter.errors import SourceError
from exporter.lazy import LazyArray
from exporter.protobuf import Field, fields, varint
from exporter.sources.graphs import sorted_table
from exporter.sources.graphs.slice_keys import Slice, slice_key
from exporter.sources.graphs.tensorflow_types import STRING, numpy_dtype
from exporter.sources.h5_values import COPY_AGAIN, Extent

INDEX = ".index"
# Fields of BundleHeaderProto, BundleEntryProto, TensorShapeProto and TensorSliceProto.
NUM_SHARDS, ENDIANNESS = 1, 2
DTYPE, SHAPE, SHARD, OFFSET, SIZE, CHECKSUM, SLICES = 1, 2, 3, 4, 5, 6, 7
DIM, DIM_SIZE, EXTENT, EXTENT_START, EXTENT_LENGTH = 2, 1, 1, 1, 2
WHOLE = -1
# Where TensorFlow 2 keeps the graph of objects that were saved, and how it ends the key of a variable's value.
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclass(frozen=True)
class Entry:
    """A tensor in a checkpoint; `offset` and `nbytes` are in the data file of that `shard`, or else it has `slices`."""

    key: str
    dtype: int
    shape: tuple[int, ...]
    shard: int = 0
    offset: int = 0
    nbytes: int = 0
    checksum: int = 0
    slices: tuple[Slice, ...] = ()


@dataclass
class TensorBundle:
    """A checkpoint by the common start of its files' names; `entries` is by key, parts of tensors left out."""

    prefix: str
    shards: int
    entries: dict[str, Entry]
    parts: dict[bytes, Entry]
    _files: dict[int, int] = field(default_factory=dict)

    def value(self, key: str, part: Slice | None = None) -> LazyArray:
        """The tensor, or a part of it, unread. Raises SourceError for one that is not there, or has no numbers."""
        entry = self.entries.get(key)
        if entry is None:
            raise self.fault(f"no tensor {key} is in it")
        if part is not None and (stored := self.parts.get(slice_key(key, part))):
            return self._stored(stored)
        whole = self._joined(entry) if entry.slices else self._stored(entry)
        if part is None:
            return whole
        taken = tuple(slice(start, None if length == WHOLE else start + length) for start, length in part)
        return whole[taken]

    def text(self, key: str) -> bytes:
        """A scalar of text, such as the graph of objects. Raises SourceError."""
        entry = self.entries.get(key)
        if entry is None or entry.dtype != STRING or entry.shape:
            raise self.fault(f"{key} is no text")
        data = self._read(entry, 0, entry.nbytes).tobytes()
        try:
            length, place = varint(data, 0, len(data))
        except ValueError as error:
            raise self.fault(f"{key}: {error}") from error
        # The checksum of the lengths comes between.
        text = data[place + 4 :]
        if len(text) != length:
            raise self.fault(f"{key} has another length than it says")
        return text

    @cached_property
    def object_names(self) -> dict[str, str]:
        """The name that each variable had in the program, by the key of its value; empty for TensorFlow 1."""
        if OBJECT_GRAPH not in self.entries:
            return {}
        text = self.text(OBJECT_GRAPH)
        try:
            return {key: name for key, name in _object_names(text) if name}
        except (ValueError, UnicodeDecodeError) as error:
            raise self.fault(f"the graph of objects is damaged: {error}") from error

    def fault(self, why: str) -> SourceError:
        where = os.path.basename(self.prefix)
        return SourceError("is truncated or corrupt", where=f"checkpoint {where}", why=why, hint=COPY_AGAIN)

    def data_path(self, shard: int) -> str:
        return f"{self.prefix}.data-{shard:05d}-of-{self.shards:05d}"

    def check_files(self) -> None:
        """Raises SourceError for a data file that is missing or too short for what is in it."""
        for entry in (*self.entries.values(), *self.parts.values()):
            if not entry.slices:
                self._check(entry)

    def _check(self, entry: Entry) -> None:
        path = self.data_path(entry.shard)
        if entry.shard not in self._files:
            try:
                self._files[entry.shard] = os.stat(path).st_size
            except OSError as error:
                why = f"{os.path.basename(path)}: {error.strerror}"
                where = f"checkpoint {os.path.basename(self.prefix)}"
                raise SourceError(
                    "has a data file that cannot be read", where=where, why=why, hint=COPY_AGAIN
                ) from None
        if entry.offset + entry.nbytes > self._files[entry.shard]:
            raise self.fault(f"{os.path.basename(path)} ends before {entry.key}")
        dtype = numpy_dtype(entry.dtype)
        if dtype is not None and math.prod(entry.shape) * dtype.itemsize != entry.nbytes:
            raise self.fault(f"{entry.key} has {entry.nbytes:,} bytes, which is not what {list(entry.shape)} needs")

    def _read(self, entry: Entry, start: int, nbytes: int) -> np.ndarray:
        try:
            with open(self.data_path(entry.shard), "rb", buffering=0) as stream:
                return Extent(stream.fileno()).read(entry.offset + start, nbytes)
        except OSError as error:
            raise self.fault(f"{entry.key}: {error}") from error

    def _stored(self, entry: Entry) -> LazyArray:
        dtype = numpy_dtype(entry.dtype)
        if dtype is None:
            raise self.fault(f"{entry.key} holds no numbers")
        self._check(entry)
        checked, itemsize = _RunningSum(entry), dtype.itemsize

        def part(start: int, stop: int) -> np.ndarray:
            data = self._read(entry, start * itemsize, (stop - start) * itemsize)
            if not checked.fits(start * itemsize, data):
                raise self.fault(f"{entry.key} does not have its checksum")
            return data.view(dtype)

        size = math.prod(entry.shape)
        place = (self.prefix, entry.shard, entry.offset, entry.nbytes)
        return LazyArray(entry.shape, dtype, lambda: part(0, size).reshape(entry.shape), part=part, content=place)

    def _joined(self, entry: Entry) -> LazyArray:
        """A tensor that was saved in parts."""
        dtype = numpy_dtype(entry.dtype)
        pieces = [(part, self.parts.get(slice_key(entry.key, part))) for part in entry.slices]
        if dtype is None or any(piece is None for _, piece in pieces):
            raise self.fault(f"parts of {entry.key} are missing")

        def make() -> np.ndarray:
            whole = np.empty(entry.shape, dtype)
            for part, piece in pieces:
                assert piece is not None
                taken = tuple(slice(start, None if length == WHOLE else start + length) for start, length in part)
                if whole[taken].shape != piece.shape:
                    raise self.fault(f"a part of {entry.key} has another shape than its place")
                whole[taken] = self._stored(piece).real()
            return whole

        return LazyArray(entry.shape, dtype, make)


class _RunningSum:
    """The checksum of a tensor that is read from its start to its end, in pieces; what is read otherwise passes."""

    def __init__(self, entry: Entry) -> None:
        self._entry, self._done, self._sum = entry, 0, 0

    def fits(self, start: int, data: np.ndarray) -> bool:
        if start == 0:
            self._done, self._sum = 0, 0
        if start != self._done:
            return True
        self._sum, self._done = extend(self._sum, data), start + data.nbytes
        return self._done < self._entry.nbytes or self._sum == sorted_table.unmasked(self._entry.checksum)


def read_bundle(prefix: str) -> TensorBundle:
    """The index of a checkpoint; its data files are not touched. Raises SourceError."""
    path = Path(f"{prefix}{INDEX}")
    try:
        found = dict(sorted_table.entries(path.read_bytes()))
        header = _header(found.pop(b"", b""))
        entries = {key: _entry(key, value) for key, value in found.items()}
    except OSError as error:
        raise SourceError(
            "cannot be read", where=str(path), why=error.strerror or str(error), hint=COPY_AGAIN
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        why = f"as a checkpoint's index: {error}"
        raise SourceError("is truncated or corrupt", where=str(path), why=why, hint=COPY_AGAIN) from error
    named = {entry.key: entry for key, entry in entries.items() if not key.startswith(b"\0")}
    return TensorBundle(prefix, header, named, {key: each for key, each in entries.items() if key.startswith(b"\0")})


def _header(value: bytes) -> int:
    """The number of data files."""
    numbers = _numbers(value)
    if not numbers.get(NUM_SHARDS):
        raise ValueError("it has no header")
    if numbers.get(ENDIANNESS):
        raise ValueError("it was written on a big-endian machine")
    return numbers[NUM_SHARDS]


def _entry(key: bytes, value: bytes) -> Entry:
    numbers = _numbers(value)
    shape: tuple[int, ...] = ()
    slices = []
    checksum = 0
    for each in fields(value, 0, len(value)):
        if each.number == SHAPE:
            shape = tuple(_shape(value, each))
        elif each.number == SLICES:
            slices.append(_slice(value, each))
        elif each.number == CHECKSUM:
            checksum = int.from_bytes(value[each.start : each.stop], "little")
    name = key.decode() if not key.startswith(b"\0") else f"a part of {key[1:].partition(bytes(1))[0].decode()}"
    return Entry(
        name,
        numbers.get(DTYPE, 0),
        shape,
        numbers.get(SHARD, 0),
        numbers.get(OFFSET, 0),
        numbers.get(SIZE, 0),
        checksum,
        tuple(slices),
    )


def _numbers(message: bytes) -> dict[int, int]:
    """The fields of a message that are varints, and lengths of the others."""
    return {each.number: _number(message, each) for each in fields(message, 0, len(message)) if each.start < each.stop}


def _number(message: bytes, each: Field) -> int:
    try:
        return varint(message, each.start, each.stop)[0]
    except ValueError:
        return 0


def _shape(message: bytes, around: Field) -> Iterator[int]:
    for dim in fields(message, around.start, around.stop):
        if dim.number == DIM:
            sizes = [_number(message, each) for each in fields(message, dim.start, dim.stop) if each.number == DIM_SIZE]
            size = sizes[0] if sizes else 0
            if size >= 2**63:
                raise ValueError("a tensor has a negative size")
            yield size


def _slice(message: bytes, around: Field) -> Slice:
    extents = []
    for extent in fields(message, around.start, around.stop):
        if extent.number == EXTENT:
            given = {each.number: _number(message, each) for each in fields(message, extent.start, extent.stop)}
            extents.append((given.get(EXTENT_START, 0), given.get(EXTENT_LENGTH, WHOLE)))
    return tuple(extents)


def _object_names(graph: bytes) -> Iterator[tuple[str, str]]:
    """Of `TrackableObjectGraph`: nodes (1) with attributes (2), each with full_name (2) and checkpoint_key (3)."""
    for node in fields(graph, 0, len(graph)):
        if node.number != 1:
            continue
        for attribute in fields(graph, node.start, node.stop):
            if attribute.number == 2:
                texts = {each.number: graph[each.start : each.stop] for each in _parts(graph, attribute)}
                yield texts.get(3, b"").decode(), texts.get(2, b"").decode()


def _parts(message: bytes, around: Field) -> Iterator[Field]:
    yield from fields(message, around.start, around.stop)


def distinct(entries: Mapping[str, Entry]) -> int:
    """How many of the tensors differ, by size and checksum: programs save the same variable under several keys."""
    return len({(entry.nbytes, entry.checksum, entry.shape) for entry in entries.values()})
