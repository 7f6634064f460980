"""Weights as a stream of bytes: the next piece is read on one thread and digested on another while one is written."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from exporter.lazy import LazyArray

PIECE_BYTES = 4 * 2**20
# Pieces that may wait for their digest; they are in memory as long.
PENDING_DIGESTS = 2
# Stand for the end of the stream, and for a moment at which no earlier piece may be in memory any more.
END, ALONE = object(), object()


class TensorStream:
    """Takes arrays to a file. Its threads end with the block; `progress` is told the bytes done."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self._reader, self._digester = ThreadPoolExecutor(1, "reader"), ThreadPoolExecutor(1, "digester")
        self._progress, self._done_bytes = progress, 0

    def __enter__(self) -> TensorStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.shutdown(cancel_futures=True)
        self._digester.shutdown(cancel_futures=True)

    def write(self, items: Iterable[bytes | LazyArray], stream: BinaryIO) -> str:
        """Write bytes and the arrays' elements (C order, little-endian) one after the other; the SHA-256 in hex.

        In memory at once: a few pieces, or one array that is not divisible and what making it takes.
        """
        digest = hashlib.sha256()
        pending: deque[Future[None]] = deque()

        def catch_up(count: int) -> None:
            while len(pending) > count:
                pending.popleft().result()

        for piece in self._one_ahead(_pieces(items), lambda: catch_up(0)):
            data = piece if isinstance(piece, bytes) else piece.view(np.uint8).data
            pending.append(self._digester.submit(digest.update, data))
            stream.write(data)
            catch_up(PENDING_DIGESTS)
            if not isinstance(piece, bytes):
                self._done_bytes += piece.nbytes
                self._progress(self._done_bytes)
            # Nothing may hold on to a whole array while the next one is made.
            del piece, data
        catch_up(0)
        return digest.hexdigest()

    def _one_ahead(self, pieces: Iterator[Any], settle: Callable[[], None]) -> Iterator[Any]:
        """The same pieces, each made while the one before is in use; `settle` lets go of all that were given."""
        following = self._reader.submit(next, pieces, END)
        while (piece := following.result()) is not END:
            if piece is ALONE:
                settle()
            following = self._reader.submit(next, pieces, END)
            if piece is not ALONE:
                yield piece


def _pieces(items: Iterable[bytes | LazyArray]) -> Iterator[Any]:
    """Pieces of all items; around an array that is made as a whole, `ALONE`."""
    for item in items:
        if isinstance(item, bytes):
            yield item
            continue
        alone = item.nbytes > PIECE_BYTES and not item.is_divisible
        if alone:
            yield ALONE
        yield from item.pieces(PIECE_BYTES)
        if alone:
            yield ALONE
