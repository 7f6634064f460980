"""From the bytes of a `.tflite` file to its records.

Field numbers are those of TensorFlow's `compiler/mlir/lite/schema/schema.fbs`.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exporter.errors import SourceError
from exporter.records import Shape
from exporter.sources.lite.flat_tables import FlatBytes, FlatTable
from exporter.sources.lite.lite_model import (
    OPTIONAL,
    LiteGraph,
    LiteModel,
    LiteOperator,
    LiteTensor,
    Quantization,
    Signature,
)
from exporter.sources.lite.operator_options import builtin_name, options_of
from exporter.sources.lite.sparse_tensors import check_size, sparsity

COPY_AGAIN = "copy or download it again"
IDENTIFIER = b"TFL3"
# Of TensorType, by number: NumPy's name and the bits of an element. Text has no size of its own.
DTYPES: tuple[tuple[str | None, int], ...] = (
    ("float32", 32), ("float16", 16), ("int32", 32), ("uint8", 8), ("int64", 64), ("string", 0), ("bool", 8),
    ("int16", 16), ("complex64", 64), ("int8", 8), ("float64", 64), ("complex128", 128), ("uint64", 64), (None, 0),
    (None, 0), ("uint32", 32), ("uint16", 16), ("int4", 4), ("bfloat16", 16), ("int2", 2), ("uint4", 4),
)  # fmt: skip
# TensorFlow Lite itself knows no tensors of more axes than this.
MOST_AXES = 64


def read_model(path: str) -> LiteModel:
    """Raises SourceError."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # Closed when nothing refers to it any more.
            data = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        finally:
            os.close(descriptor)
        return Reading(data).model()
    except (ValueError, IndexError, OverflowError) as error:
        why = f"as a TensorFlow Lite file: {error}"
        raise SourceError("is truncated or corrupt", where=path, why=why, hint=COPY_AGAIN) from error
    except OSError as error:
        raise SourceError("cannot be read", where=path, why=error.strerror or str(error)) from error


@dataclass(frozen=True, slots=True)
class Code:
    op: str
    is_custom: bool


class Reading:
    """One file. Its methods raise ValueError where it is not sound."""

    def __init__(self, data: memoryview) -> None:
        if bytes(data[4:8]) != IDENTIFIER:
            raise ValueError(f"{IDENTIFIER.decode()} is missing at byte 4")
        self.bytes = FlatBytes(data)

    def model(self) -> LiteModel:
        root = self.bytes.root()
        self.codes = [_code(table) for table in root.tables(1)]
        self.buffers = [self._buffer(table) for table in root.tables(4)]
        graphs = tuple(self._graph(table, number) for number, table in enumerate(root.tables(2)))
        if not graphs:
            raise ValueError("it has no graph")
        _check_graphs(graphs)
        return LiteModel(graphs, tuple(_signature(table, graphs) for table in root.tables(7)))

    def _buffer(self, table: FlatTable) -> tuple[int, int] | None:
        """Where its bytes are. Files above 2 GB have them behind the tables, at an offset of their own."""
        start, nbytes = table.number(1, "Q"), table.number(2, "Q")
        if start <= 1:
            inside = table.extent(0)
            return inside if inside and inside[1] else None
        if nbytes > self.bytes.size - start:
            raise ValueError(f"a buffer of {nbytes:,} bytes at byte {start:,} goes beyond the end of the file")
        return start, nbytes

    def _graph(self, table: FlatTable, number: int) -> LiteGraph:
        tensors = tuple(self._tensor(each, place) for place, each in enumerate(table.tables(0)))
        operators = tuple(self._operator(each, len(tensors)) for each in table.tables(3))
        inputs, outputs = (_numbers(table, field, len(tensors), lowest=0) for field in (1, 2))
        return LiteGraph(table.text(4) or f"graph_{number}", tensors, operators, inputs, outputs)

    def _tensor(self, table: FlatTable, number: int) -> LiteTensor:
        buffer, kind = table.number(2, "I"), table.number(1, "b")
        if buffer >= max(1, len(self.buffers)) or kind < 0:
            raise ValueError(f"tensor {number} has the type {kind} and the buffer {buffer}, which is not there")
        extent = self.buffers[buffer] if buffer else None
        dtype, bits = DTYPES[kind] if kind < len(DTYPES) else (None, 0)
        shape = _shape(table, is_constant=extent is not None)
        tensor = LiteTensor(
            name=table.text(3) or f"tensor_{number}",
            shape=shape,
            dtype=dtype,
            bits=bits,
            buffer=buffer,
            extent=extent,
            is_variable=bool(table.number(5, "?")),
            sparsity=sparsity(table.table(6)),
            is_elsewhere=bool(table.number(10, "I")),
            quantization=_quantization(table.table(4)),
        )
        if extent and tensor.is_sparse:
            check_size(tuple(size or 0 for size in shape or ()), extent[1])
        if extent and bits and not tensor.is_sparse and not tensor.is_whole:
            raise ValueError(f"tensor {tensor.name} of {dtype}{list(shape or ())} has {extent[1]:,} bytes")
        return tensor

    def _operator(self, table: FlatTable, tensors: int) -> LiteOperator:
        code = table.number(0, "I")
        if code >= len(self.codes):
            raise ValueError(f"the operator code {code} is not there")
        inputs, outputs = (_numbers(table, field, tensors, lowest=OPTIONAL) for field in (1, 2))
        return LiteOperator(
            op=self.codes[code].op,
            is_custom=self.codes[code].is_custom,
            inputs=inputs,
            outputs=outputs,
            options=options_of(table, self.bytes.data),
            custom_options=table.content(5) if self.codes[code].is_custom else b"",
        )


def _code(table: FlatTable) -> Code:
    # The older field of one byte says 127 for larger codes.
    number = max(table.number(0, "b"), table.number(3, "i"))
    name, custom = builtin_name(number), table.text(1)
    return Code(custom or "CUSTOM", True) if name == "CUSTOM" else Code(name, False)


def _numbers(table: FlatTable, field: int, limit: int, *, lowest: int) -> tuple[int, ...]:
    """Numbers of tensors."""
    found = table.array(field, "<i4")
    if found is None or not found.size:
        return ()
    if found.min() < lowest or found.max() >= limit:
        raise ValueError(f"tensor {found.max()} is not there")
    return tuple(found.tolist())


def _shape(table: FlatTable, *, is_constant: bool) -> Shape | None:
    """The signature says which dimensions are dynamic; a shape that is left out is that of a scalar or not known."""
    plain, signature = table.array(0, "<i4"), table.array(7, "<i4")
    found = plain if is_constant or signature is None or not signature.size else signature
    if found is None:
        return () if is_constant or table.number(8, "?") else None
    if found.size > MOST_AXES:
        raise ValueError(f"a tensor of {found.size:,} axes")
    sizes = tuple(None if size < 0 else size for size in found.tolist())
    if is_constant and None in sizes:
        raise ValueError("a constant without a fixed shape")
    return sizes


def _quantization(table: FlatTable | None) -> Quantization | None:
    scale = table.array(2, "<f4") if table is not None else None
    if table is None or scale is None or not scale.size:
        return None
    zero_point = table.array(3, "<i8")
    if zero_point is None or zero_point.size not in (1, scale.size):
        zero_point = np.zeros(1, np.int64)
    return Quantization(scale.copy(), zero_point.copy(), table.number(6, "i"))


def _signature(table: FlatTable, graphs: Sequence[LiteGraph]) -> Signature:
    graph = table.number(4, "I")
    if graph >= len(graphs):
        raise ValueError(f"the graph {graph} is not there")
    sides = [{each.number(1, "I"): each.text(0) for each in table.tables(field)} for field in (0, 1)]
    return Signature(table.text(2), graph, *sides)


def _check_graphs(graphs: Sequence[LiteGraph]) -> None:
    """Operators run other graphs; that none runs itself, at any distance, is found from the leaves on."""
    runs = [{number for each in graph.operators for number in each.graphs.values()} for graph in graphs]
    if any(not 0 <= number < len(graphs) for inner in runs for number in inner):
        raise ValueError("an operator runs a graph that is not there")
    finished: set[int] = set()
    while len(finished) < len(graphs):
        ready = {number for number, inner in enumerate(runs) if inner <= finished} - finished
        if not ready:
            raise ValueError("a graph runs itself")
        finished |= ready
