"""FlatBuffers from strangers: each offset and size is checked before anything behind it is read.

The format is that of https://flatbuffers.dev/internals: a table starts with the distance to its vtable, which says
where each field is; strings, vectors and tables are behind distances of 32 bits. In a sound file nothing is in two
places, so that more is never read of it than there is: offsets that share or enclose each other end in ValueError
instead of work without end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

# Strings and vectors of equal content may be shared by whoever writes a file; tables hardly are.
MOST_SHARING = 4
NUMBERS = {name: struct.Struct(f"<{name}") for name in ("b", "B", "?", "H", "i", "I", "q", "Q")}


class FlatBytes:
    """The bytes of a file, and how much may still be read of them."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.size = data, len(data)
        self._left = MOST_SHARING * self.size + 1024

    def number(self, kind: str, place: int) -> int:
        number = NUMBERS[kind]
        if not 0 <= place <= self.size - number.size:
            raise ValueError(f"byte {place} is not in the file")
        return int(number.unpack_from(self.data, place)[0])

    def spend(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._left < 0:
            raise ValueError("what it holds is larger than the file: its offsets lie in each other")

    def target(self, place: int) -> int:
        """Where the distance at a place leads."""
        return place + self.number("I", place)

    def vector(self, place: int, itemsize: int) -> tuple[int, int]:
        """First byte and number of elements of the vector behind the distance at a place."""
        start = self.target(place)
        count = self.number("I", start)
        if count * itemsize > self.size - start - 4:
            raise ValueError(f"{count:,} elements at byte {start} go beyond the end of the file")
        return start + 4, count

    def root(self) -> FlatTable:
        return FlatTable(self, self.target(0))


class FlatTable:
    """A table; fields are asked for by their number in the schema and have a default where they are left out."""

    __slots__ = ("_bytes", "_end", "_fields", "_vtable", "place")

    def __init__(self, data: FlatBytes, place: int) -> None:
        vtable = place - data.number("i", place)
        nbytes = data.number("H", vtable)
        self._fields = (nbytes - 4) // 2
        self._end = place + data.number("H", vtable + 2)
        if nbytes < 4 or nbytes % 2 or vtable + nbytes > data.size or self._end > data.size or vtable == place:
            raise ValueError(f"there is no table at byte {place}")
        data.spend(4)
        self._bytes, self._vtable, self.place = data, vtable, place

    def _field(self, number: int, nbytes: int) -> int | None:
        offset = self._bytes.number("H", self._vtable + 4 + 2 * number) if number < self._fields else 0
        if not offset:
            return None
        if offset < 4 or self.place + offset + nbytes > self._end:
            raise ValueError(f"field {number} of the table at byte {self.place} is not in it")
        return self.place + offset

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """`kind` is a format of `struct`."""
        place = self._field(field, NUMBERS[kind].size)
        return default if place is None else self._bytes.number(kind, place)

    def has(self, field: int) -> bool:
        return self._field(field, 1) is not None

    def table(self, field: int) -> FlatTable | None:
        place = self._field(field, 4)
        return None if place is None else FlatTable(self._bytes, self._bytes.target(place))

    def tables(self, field: int) -> Iterator[FlatTable]:
        place = self._field(field, 4)
        start, count = (0, 0) if place is None else self._bytes.vector(place, 4)
        for index in range(count):
            yield FlatTable(self._bytes, self._bytes.target(start + 4 * index))

    def extent(self, field: int) -> tuple[int, int] | None:
        """First byte and length of a vector of bytes, which are not read."""
        place = self._field(field, 4)
        return None if place is None else self._bytes.vector(place, 1)

    def content(self, field: int) -> bytes:
        start, nbytes = self.extent(field) or (0, 0)
        self._bytes.spend(nbytes)
        return bytes(self._bytes.data[start : start + nbytes])

    def text(self, field: int) -> str:
        return self.content(field).decode("utf-8", "replace")

    def array(self, field: int, dtype: str) -> np.ndarray | None:
        """A vector of numbers of a little-endian NumPy type."""
        place = self._field(field, 4)
        if place is None:
            return None
        kind = np.dtype(dtype)
        start, count = self._bytes.vector(place, kind.itemsize)
        self._bytes.spend(count * kind.itemsize)
        return np.frombuffer(self._bytes.data, kind, count, start)
