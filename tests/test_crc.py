"""Sums of pieces against zlib's sum of the whole."""

from __future__ import annotations

import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.graphs.crc import LEAST_NBYTES, PiecewiseCrc, combined

CONTENT = np.random.default_rng(0).bytes(5 * LEAST_NBYTES + 77)


@given(st.binary(), st.binary())
def test_two_sums_combine_to_that_of_both(first: bytes, second: bytes) -> None:
    assert combined(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


@given(st.lists(st.tuples(st.integers(0, len(CONTENT)), st.integers(0, 2 * LEAST_NBYTES)), max_size=8))
def test_pieces_in_any_order_and_number_give_the_sum_of_the_whole(pieces: list[tuple[int, int]]) -> None:
    crc = PiecewiseCrc()
    for start, nbytes in pieces:
        crc.add(start, CONTENT[start : start + nbytes])
    assert crc.total(len(CONTENT), lambda start, nbytes: CONTENT[start : start + nbytes]) == zlib.crc32(CONTENT)


def test_what_pieces_cover_is_not_read_again() -> None:
    crc, read = PiecewiseCrc(), []

    def gap(start: int, nbytes: int) -> bytes:
        read.append((start, nbytes))
        return CONTENT[start : start + nbytes]

    crc.add(0, CONTENT[:LEAST_NBYTES])
    crc.add(2 * LEAST_NBYTES, memoryview(CONTENT)[2 * LEAST_NBYTES :])
    assert crc.total(len(CONTENT), gap) == zlib.crc32(CONTENT)
    assert read == [(LEAST_NBYTES, LEAST_NBYTES)]


def test_a_changed_piece_changes_the_sum() -> None:
    crc = PiecewiseCrc()
    crc.add(0, b"\0" + CONTENT[1:])
    assert crc.total(len(CONTENT), lambda start, nbytes: b"") != zlib.crc32(CONTENT)
