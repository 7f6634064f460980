"""TensorBoard's file format: records with checksums, each one `Event` message; long ones are written as a stream.

A record is its length (8 bytes), the masked CRC-32C of these, the data, and the masked CRC-32C of the data
(`tensorflow/core/lib/io/record_writer.cc`). In a long message the last field of each message in it is written by hand:
its number, its length, and then the bytes as they are made.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import BinaryIO

from google_crc32c import extend

from exporter.protobuf import field_start

MASK_DELTA = 0xA282EAD8

# Makes the bytes of a field, in pieces; called twice, because the length comes first.
Pieces = Callable[[], Iterable[bytes]]


class RecordStream:
    """Writes records one after the other."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        self.write_pieces(data, 0, ())

    def write_pieces(self, head: bytes, nbytes: int, pieces: Iterable[bytes]) -> None:
        """A record of `head` and of the pieces, which have `nbytes` bytes in all."""
        length = struct.pack("<Q", len(head) + nbytes)
        self._stream.write(length + _masked(extend(0, length)) + head)
        checksum = extend(0, head)
        for piece in pieces:
            self._stream.write(piece)
            checksum = extend(checksum, piece)
        self._stream.write(_masked(checksum))

    def write_nested(self, around: Iterable[tuple[bytes, int]], pieces: Pieces) -> None:
        """A message in messages, from the outermost in: the fields before, and the number of the field that goes on."""
        nbytes = sum(map(len, pieces()))
        head = b""
        for before, number in reversed(list(around)):
            head = before + field_start(number, len(head) + nbytes) + head
        self.write_pieces(head, nbytes, pieces())


def _masked(checksum: int) -> bytes:
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + MASK_DELTA) & 0xFFFFFFFF)
