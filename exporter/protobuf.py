"""Protobuf messages in a file, field by field, without reading what is in the fields.

The wire format is that of https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5


def fields(content: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field's content; the content of a number is the number itself.

    Raises ValueError and IndexError where there is no message.
    """
    place = start
    while place < stop:
        tag, place = varint(content, place)
        end = place
        if tag & 7 == VARINT:
            _, end = varint(content, place)
        elif tag & 7 == BYTES:
            nbytes, place = varint(content, place)
            end = place + nbytes
        elif tag & 7 in (FIXED_64, FIXED_32):
            end = place + (8 if tag & 7 == FIXED_64 else 4)
        else:
            raise ValueError(f"no protobuf field starts at byte {place}")
        if end > stop:
            raise ValueError(f"the field at byte {place} is longer than what it is in")
        yield tag >> 3, place, end
        place = end


def varint(content: mmap.mmap, place: int) -> tuple[int, int]:
    """The number at a place, and the place after it."""
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def field_start(number: int, nbytes: int) -> bytes:
    """The start of a field whose content has so many bytes."""
    return encoded(number << 3 | BYTES) + encoded(nbytes)


def encoded(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
