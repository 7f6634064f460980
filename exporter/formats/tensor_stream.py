"""Weights as a stream of bytes: pieces are read on one thread and digested on another while one is written."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from exporter.lazy import LazyArray

# Below the size from which the worker's malloc asks the system for each block anew (`child_process`).
PIECE_BYTES = 2**20
# Pieces that may wait to be written, and for their digest; they are in memory as long.
PIECES_AHEAD, PENDING_DIGESTS = 8, 4
# Stand for the end of the stream, and for a moment at which no earlier piece may be in memory any more.
END, ALONE = object(), object()


class TensorStream:
    """Takes arrays to a file. Its threads end with the block; `progress` is told the bytes done."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self._reader, self._digester = ThreadPoolExecutor(1, "reader"), ThreadPoolExecutor(1, "digester")
        self._settled = Semaphore(0)
        self._progress, self._done_bytes = progress, 0

    def __enter__(self) -> TensorStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settled.release()
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

        for piece in self._made_ahead(self._pieces(items), lambda: catch_up(0)):
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

    def _made_ahead(self, pieces: Iterator[Any], settle: Callable[[], None]) -> Iterator[Any]:
        """The same pieces, made while earlier ones are in use; `settle` lets go of all that were given."""
        coming = deque(self._reader.submit(next, pieces, END) for _ in range(PIECES_AHEAD))
        while (piece := coming.popleft().result()) is not END:
            if piece is ALONE:
                settle()
                self._settled.release()
            coming.append(self._reader.submit(next, pieces, END))
            if piece is not ALONE:
                yield piece

    def _pieces(self, items: Iterable[bytes | LazyArray]) -> Iterator[Any]:
        """Pieces of all items; `ALONE`, and a wait until it is heeded, around an array that is made as a whole."""
        for item in items:
            if isinstance(item, bytes):
                yield item
                continue
            alone = item.nbytes > PIECE_BYTES and not item.is_divisible
            if alone:
                yield ALONE
                self._settled.acquire()
            yield from item.pieces(PIECE_BYTES)
            if alone:
                yield ALONE
                self._settled.acquire()
