"""The CRC-32 of a file from pieces that are read in any order, so that checking it does not read them again."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any

# The generator polynomial without its highest power; here and below, the highest bit stands for 1, the lowest for x³¹.
POLYNOMIAL, ONE, X_TO_THE_8TH = 0xEDB88320, 1 << 31, 1 << 23
# Combining two sums takes some microseconds. Smaller pieces are read again, together with their neighbours.
LEAST_NBYTES = 2**16
READ_NBYTES = 2 * 2**20


class PiecewiseCrc:
    """Sums of the pieces that were read, by where they start. Any thread may add one."""

    def __init__(self) -> None:
        self._pieces: dict[int, tuple[int, int]] = {}

    def add(self, start: int, data: Any) -> None:
        """A bytes-like piece that begins at byte `start`; of pieces that overlap, only one counts."""
        nbytes = memoryview(data).nbytes
        if nbytes >= LEAST_NBYTES and start not in self._pieces:
            self._pieces[start] = nbytes, zlib.crc32(data)

    def total(self, nbytes: int, read: Callable[[int, int], Any]) -> int:
        """The sum of all `nbytes` bytes. `read(start, count)` gives those that no piece covers."""
        done, found = 0, 0
        for start, (count, piece) in [*sorted(self._pieces.items()), (nbytes, (0, 0))]:
            if start < done:
                continue
            while done < start:
                gap = read(done, min(start - done, READ_NBYTES))
                found, done = zlib.crc32(gap, found), done + len(gap)
            found, done = combined(found, piece, count), done + count
        return found


def combined(first: int, second: int, second_nbytes: int) -> int:
    """The CRC-32 of two pieces of data, one after the other, from theirs (as zlib's `crc32_combine` has it)."""
    return _product(_shift(second_nbytes), first) ^ second


@functools.lru_cache(maxsize=1024)
def _shift(nbytes: int) -> int:
    """x to the power of 8 · nbytes, modulo the polynomial."""
    result, power = ONE, X_TO_THE_8TH
    while nbytes:
        if nbytes & 1:
            result = _product(result, power)
        power, nbytes = _product(power, power), nbytes >> 1
    return result


def _product(first: int, second: int) -> int:
    """Of two polynomials over GF(2), modulo the polynomial."""
    result = 0
    for bit in range(31, -1, -1):
        if first >> bit & 1:
            result ^= second
        second = second >> 1 ^ (POLYNOMIAL if second & 1 else 0)
    return result
