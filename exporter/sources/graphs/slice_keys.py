"""Under which key a checkpoint keeps a part of a tensor (`tensorflow/core/util/saved_tensor_slice_util.cc`).

Keys are in an encoding that sorts as what it encodes (`tensorflow/core/lib/strings/ordered_code.cc`).
"""

from __future__ import annotations

# Start and length for each axis; a length of -1 is the whole axis.
Slice = tuple[tuple[int, int], ...]


def slice_key(name: str, part: Slice) -> bytes:
    key = _unsigned(0) + _text(name) + _unsigned(len(part))
    return key + b"".join(_signed(start) + _signed(length) for start, length in part)


def parse_slice(text: str) -> Slice | None:
    """`6 3 0,3:-` of a restoring op: the shape, and start and length or `-` for each axis; None for an empty text."""
    if not text:
        return None
    extents = text.split(" ")[-1].split(":")
    return tuple((0, -1) if extent == "-" else _extent(extent) for extent in extents)


def _extent(text: str) -> tuple[int, int]:
    start, _, length = text.partition(",")
    return int(start), int(length)


def _unsigned(value: int) -> bytes:
    """Its number of bytes, and those."""
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(data)]) + data


def _text(text: str) -> bytes:
    escaped = {0: b"\0\xff", 255: b"\xff\0"}
    return b"".join(escaped.get(byte, bytes([byte])) for byte in text.encode()) + b"\0\1"


def _signed(value: int) -> bytes:
    """As many leading ones as there are bytes, inverted for negative numbers."""
    if -64 <= value < 64:
        return bytes([0x80 ^ (value & 0xFF)])
    magnitude = ~value if value < 0 else value
    length = magnitude.bit_length() // 7 + 1
    header = (0xFFFF << (16 - length) & 0xFFFF) if length <= 16 else 0xFFFF
    number = value & ((1 << 8 * length) - 1)
    mask = header << 8 * (length - 2)
    return (number ^ mask).to_bytes(length, "big")
