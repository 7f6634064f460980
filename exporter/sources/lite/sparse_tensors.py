"""Constants of which a `.tflite` file has the elements that are not zero.

The dimensions, and those of blocks inside of them, are walked in `traversal_order`; each is dense, or has for every
element before it a segment of indices (compressed sparse rows). `tensorflow/compiler/mlir/lite/kernels/internal/utils/
sparsity_format_converter.h` is the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from exporter.sources.lite.flat_tables import FlatTable

# Of the union `SparseIndexVector`.
INDEX_TYPES = {1: "<i4", 2: "<u2", 3: "<u1"}
# A file may not claim more elements than this for each byte of the values that it has.
MOST_INFLATION = 1000
# The converter makes no sparse tensor of more values than this.
MOST_ELEMENTS = 2**31


@dataclass(frozen=True, slots=True)
class Dimension:
    """Dense, with `size`, or with `segments` of `indices`."""

    size: int
    segments: np.ndarray | None
    indices: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Sparsity:
    """`order` has the dimensions of the tensor, then those of blocks; `blocks` the dimension that each block cuts."""

    order: tuple[int, ...]
    blocks: tuple[int, ...]
    dimensions: tuple[Dimension, ...]


def sparsity(table: FlatTable | None) -> Sparsity | None:
    """Raises ValueError."""
    if table is None:
        return None
    order, blocks = (table.array(field, "<i4") for field in (0, 1))
    dimensions = tuple(_dimension(each) for each in table.tables(2))
    found = Sparsity(_numbers(order), _numbers(blocks), dimensions)
    if sorted(found.order) != list(range(len(dimensions))):
        raise ValueError(f"the order of dimensions is {list(found.order)[:8]}")
    return found


def _numbers(array: np.ndarray | None) -> tuple[int, ...]:
    return () if array is None else tuple(array.tolist())


def _dimension(table: FlatTable) -> Dimension:
    if not table.number(0, "b"):
        return Dimension(table.number(1, "i"), None, None)
    return Dimension(0, _indices(table, 2), _indices(table, 4))


def _indices(table: FlatTable, field: int) -> np.ndarray:
    """A union: its type, and then a table with one vector."""
    kind, inner = INDEX_TYPES.get(table.number(field, "B")), table.table(field + 1)
    found = inner.array(0, kind) if kind and inner is not None else None
    if found is None:
        raise ValueError("a sparse dimension without indices")
    return found.astype(np.int64)


def places(found: Sparsity, shape: tuple[int, ...], count: int) -> np.ndarray:
    """Where each of `count` values is in the dense tensor, in C order. Raises ValueError where they do not fit."""
    rank = len(shape)
    sizes = dict(zip(range(rank, rank + len(found.blocks)), _block_sizes(found, rank), strict=True))
    if any(not 0 <= axis < rank for axis in found.blocks) or len(found.order) != rank + len(found.blocks):
        raise ValueError("blocks of dimensions that are not there")
    coordinates = dict(zip(found.order, _walk(found, count), strict=True))
    dense = []
    for axis in range(rank):
        place = coordinates[axis]
        for block, cut in enumerate(found.blocks):
            if cut == axis:
                place = place * sizes[rank + block] + coordinates[rank + block]
        if place.size and (place.min() < 0 or place.max() >= shape[axis]):
            raise ValueError(f"a value beyond dimension {axis}")
        dense.append(place)
    return np.ravel_multi_index(tuple(dense), shape) if dense else np.zeros(count, np.int64)


def _block_sizes(found: Sparsity, rank: int) -> Iterator[int]:
    for block in range(rank, rank + len(found.blocks)):
        dimension = found.dimensions[found.order.index(block)]
        if dimension.segments is not None or dimension.size < 1:
            raise ValueError("a block that is not dense")
        yield dimension.size


def _walk(found: Sparsity, count: int) -> list[np.ndarray]:
    """The coordinate of every value in each dimension, in the order in which they are walked."""
    walked: list[np.ndarray] = []
    number = 1
    for dimension in found.dimensions:
        repeats, own = _step(dimension, number)
        number = int(repeats.sum())
        if number > count:
            raise ValueError(f"{number:,} places for {count:,} values")
        walked = [np.repeat(each, repeats) for each in walked]
        walked.append(own)
    if number != count:
        raise ValueError(f"{number:,} places for {count:,} values")
    return walked


def _step(dimension: Dimension, number: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of so many elements how many there are in this dimension, and the coordinates of all of them."""
    segments, indices = dimension.segments, dimension.indices
    if segments is None or indices is None:
        size = max(dimension.size, 0)
        if size * number > MOST_ELEMENTS:
            raise ValueError(f"a dimension of {size:,}")
        return np.full(number, size, np.int64), np.tile(np.arange(size), number)
    repeats = np.diff(segments)
    is_sound = len(segments) == number + 1 and not segments[0] and segments[-1] == len(indices)
    if not is_sound or (repeats < 0).any():
        raise ValueError("segments that do not fit their indices")
    return repeats, indices


def check_size(shape: tuple[int, ...], nbytes: int) -> None:
    """Raises ValueError for a tensor that a few bytes would make huge."""
    if math.prod(shape) > MOST_INFLATION * max(nbytes, 1):
        raise ValueError(f"a sparse tensor of {list(shape)} in {nbytes:,} bytes")
