"""Sorted string tables: LevelDB's file of keys and values, of which the index of a TensorFlow checkpoint is one.

The format is that of LevelDB (`doc/table_format.md`), as `tensorflow/core/lib/io/format.cc` reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from google_crc32c import extend

from exporter.protobuf import varint

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
FOOTER_NBYTES, TRAILER_NBYTES = 48, 5
UNCOMPRESSED = 0
MASK_DELTA = 0xA282EAD8


def entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values in the order of the keys. Raises ValueError for what is damaged or no such table."""
    if len(data) < FOOTER_NBYTES or not data.endswith(MAGIC):
        raise ValueError("the end of a table is missing")
    footer = data[-FOOTER_NBYTES:]
    _, place = _handle(footer, 0)
    index, _ = _handle(footer, place)
    for _, value in _block_entries(_block(data, *index)):
        yield from _block_entries(_block(data, *_handle(value, 0)[0]))


def unmasked(checksum: int) -> int:
    """A CRC-32C as it was before it was masked for being stored."""
    rotated = (checksum - MASK_DELTA) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the place after them."""
    offset, place = varint(data, place, len(data))
    nbytes, place = varint(data, place, len(data))
    return (offset, nbytes), place


def _block(data: bytes, offset: int, nbytes: int) -> bytes:
    end = offset + nbytes
    if end + TRAILER_NBYTES > len(data):
        raise ValueError("a block is outside of the file")
    kind, checksum = struct.unpack_from("<BI", data, end)
    if extend(0, data[offset : end + 1]) != unmasked(checksum):
        raise ValueError("a block does not have its checksum")
    if kind != UNCOMPRESSED:
        raise ValueError("a block is compressed, which no checkpoint is")
    return data[offset:end]


def _block_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each key is given by what it shares with the one before, and its rest."""
    if len(block) < 4:
        raise ValueError("a block is too short")
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    stop, place, key = len(block) - 4 * (restarts + 1), 0, b""
    while place < stop:
        shared, place = varint(block, place, stop)
        own, place = varint(block, place, stop)
        nbytes, place = varint(block, place, stop)
        if shared > len(key) or place + own + nbytes > stop:
            raise ValueError("an entry is longer than its block")
        key = key[:shared] + block[place : place + own]
        place += own + nbytes
        yield key, block[place - nbytes : place]
