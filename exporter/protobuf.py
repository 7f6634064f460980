"""Protobuf messages in a file, field by field, without reading what is in the fields.

The wire format is that of https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
# A number of 64 bits has at most so many bytes.
LONGEST_VARINT = 10
Content = bytes | memoryview | mmap.mmap


class Field(NamedTuple):
    """A field whose content lies from `start` to `stop`; the content of a number is the number itself."""

    number: int
    start: int
    stop: int


def fields(content: Content, start: int, stop: int) -> Iterator[Field]:
    """The fields of the message that lies from `start` to `stop`. Raises ValueError where there is none."""
    place = start
    while place < stop:
        tag, place = varint(content, place, stop)
        end = place
        if tag & 7 == VARINT:
            _, end = varint(content, place, stop)
        elif tag & 7 == BYTES:
            nbytes, place = varint(content, place, stop)
            end = place + nbytes
        elif tag & 7 in (FIXED_64, FIXED_32):
            end = place + (8 if tag & 7 == FIXED_64 else 4)
        else:
            raise ValueError(f"no protobuf field starts at byte {place}")
        if end > stop or not tag >> 3:
            raise ValueError(f"the field at byte {place} is longer than what it is in")
        yield Field(tag >> 3, place, end)
        place = end


def varint(content: Content, place: int, stop: int) -> tuple[int, int]:
    """The number at a place, and the place after it. Raises ValueError where it has no end."""
    value = shift = 0
    for at in range(place, min(stop, place + LONGEST_VARINT)):
        byte = content[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise ValueError(f"the number at byte {place} has no end")


def field_start(number: int, nbytes: int) -> bytes:
    """The start of a field whose content has so many bytes."""
    return encoded(number << 3 | BYTES) + encoded(nbytes)


def encoded(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
