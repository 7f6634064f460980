"""Protocol-buffer messages read field by field where they lie in a file, so that no message need be in memory whole.

The wire format (protobuf.dev, "Encoding"): a field is a varint of number and type, then a varint (type 0), eight bytes
(1), a length and so many bytes (2), or four bytes (5).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

Buffer = bytes | memoryview | mmap.mmap
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# A varint of 64 bits has at most so many bytes.
LONGEST_VARINT = 10


@dataclass(frozen=True, slots=True)
class Field:
    """One field; `start` and `stop` enclose its content, `value` is that of a varint."""

    number: int
    kind: int
    start: int
    stop: int
    value: int = 0


def fields(data: Buffer, start: int, stop: int) -> Iterator[Field]:
    """The fields of the message that lies from `start` to `stop`. Raises ValueError where that is none."""
    while start < stop:
        tag, start = varint(data, start, stop)
        number, kind = tag >> 3, tag & 7
        value = 0
        if kind == VARINT:
            value, end = varint(data, start, stop)
        elif kind == BYTES:
            length, start = varint(data, start, stop)
            end = start + length
        elif kind in (FIXED64, FIXED32):
            end = start + (8 if kind == FIXED64 else 4)
        else:
            raise ValueError(f"a field of type {kind} at byte {start}")
        if end > stop or not number:
            raise ValueError(f"field {number} at byte {start} ends beyond its message")
        yield Field(number, kind, start, end, value)
        start = end


def varint(data: Buffer, place: int, stop: int) -> tuple[int, int]:
    """The number at `place`, and where the next thing begins. Raises ValueError."""
    value = shift = 0
    for at in range(place, min(stop, place + LONGEST_VARINT)):
        byte = data[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
        shift += 7
    raise ValueError(f"a number at byte {place} has no end")
