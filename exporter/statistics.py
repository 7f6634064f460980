"""Statistics of a tensor in one pass: the numbers on this thread, the SHA-256 beside it on another."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol

import ml_dtypes
import numpy as np

from exporter.records import TensorStatistics, Weight
from exporter.tensor_statistics import DISTINCT_LIMIT, Buckets, Counts, Distinct, Filters, Moments, summed_up

# With its copy in float64 and its bucket numbers it stays in the processor's cache.
PIECE_BYTES = 2**20
# Pieces that may wait for the digest; they are in memory as long.
PENDING_DIGESTS = 4


class Tensor(Protocol):
    """What `exporter.lazy.LazyArray` is, as far as it matters here."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def pieces(self, nbytes: int) -> Iterable[np.ndarray]: ...


def measure_all(
    weights: Sequence[Weight], values: Mapping[str, Tensor], progress: Callable[[int, int], None]
) -> dict[str, TensorStatistics]:
    """By the weight's name; `progress` is told the bytes done and those of all weights."""
    found: dict[str, TensorStatistics] = {}
    done, total = 0, sum(weight.nbytes for weight in weights)
    with Surveyor() as surveyor:
        for weight in weights:
            value = values[weight.name]
            found[weight.name] = surveyor.measure(value.pieces(PIECE_BYTES), value.shape, value.dtype)
            done += weight.nbytes
            progress(done, total)
    return found


class Surveyor:
    """Measures tensors one after the other; its thread ends with the block."""

    def __init__(self) -> None:
        self._digester = ThreadPoolExecutor(1, "statistics-digest")

    def __enter__(self) -> Surveyor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._digester.shutdown(cancel_futures=True)

    def measure(self, pieces: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> TensorStatistics:
        """Statistics of the tensor whose elements in C order are the flat `pieces`, in any division.

        The result depends on the order and, by rounding, on the division of the pieces, never on threads. In memory at
        once are a few pieces.
        """
        # Casting a NaN that signals is no fault here, nor is a norm that float64 cannot hold.
        with np.errstate(invalid="ignore", over="ignore"):
            numbers, digest = summary(shape, dtype), hashlib.sha256()
            pending: deque[Future[None]] = deque()
            for piece in pieces:
                whole = np.ascontiguousarray(piece)
                pending.append(self._digester.submit(digest.update, whole.view(np.uint8).data))
                numbers.add(whole)
                while len(pending) > PENDING_DIGESTS:
                    pending.popleft().result()
                # Nothing may hold on to a whole array while the next one is made.
                del piece, whole
            for future in pending:
                future.result()
            return numbers.finish(digest.hexdigest())


class NarrowSummary:
    """Of a type of 8 or 16 bits: everything follows from how often each value occurs."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        # Booleans are 0 and 1.
        self.dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype
        self.buckets, self.filters = Buckets(self.dtype), Filters(shape)
        self.values = np.arange(len(self.buckets.counts)).astype(self.buckets.bits).view(self.dtype).astype(np.float64)
        self.is_zero = np.flatnonzero(self.values == 0)

    def add(self, piece: np.ndarray) -> None:
        counts = self.buckets.add(piece.view(self.dtype))
        # Bit patterns other than 0 and -0 tell alive elements too, faster than ml_dtypes' own comparison.
        zeros = int(counts[self.is_zero].sum())
        if self.filters.searching:
            self.filters.add(self._magnitudes(piece), zeros)

    def _magnitudes(self, piece: np.ndarray) -> np.ndarray:
        patterns = piece.view(self.buckets.bits)
        return patterns << self.buckets.bits.type(1) if len(self.is_zero) > 1 else patterns

    def finish(self, sha256: str) -> TensorStatistics:
        counts, counted, moments = self.buckets.counts, Counts(), Moments()
        middles, numbers = self.buckets.filled()
        counted.zeros = int(counts[self.is_zero].sum())
        counted.nans, counted.infs = (int(counts[which(self.values)].sum()) for which in (np.isnan, np.isinf))
        magnitude = counted.extend(middles)
        different = len(np.unique(self.values[np.flatnonzero(counts)]))
        moments.add(middles.copy(), magnitude, numbers)
        distinct = different if different <= DISTINCT_LIMIT else None
        return summed_up(counted, moments, (middles, numbers), distinct, self.filters.dead(), sha256)


class WideSummary:
    """Of a real type of 32 or 64 bits. Integers go into the buckets of float64."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.is_integer = dtype.kind in "iu"
        self._wide = np.empty(0)
        self.buckets = Buckets(np.dtype(np.float64) if self.is_integer else dtype)
        self.filters, self.counted, self.moments, self.distinct = Filters(shape), Counts(), Moments(), Distinct()
        infinity = np.array([np.inf], self.buckets.dtype).view(self.buckets.bits)[0] >> self.buckets.shift
        sign = len(self.buckets.counts) // 2
        # NaN with few bits set are in the bucket of infinity.
        self.suspects = (slice(int(infinity), sign), slice(sign + int(infinity), 2 * sign))
        self.zero_codes = [0, sign]

    def add(self, piece: np.ndarray) -> None:
        if len(self._wide) < len(piece):
            self._wide = np.empty(len(piece))
        values = self._wide[: len(piece)]
        np.copyto(values, piece)
        counts = self.buckets.add(values if self.is_integer else piece)
        # The bucket around zero also has the smallest denormal numbers.
        zeros = piece.size - int(np.count_nonzero(piece)) if counts[self.zero_codes].any() else 0
        self.counted.zeros += zeros
        self.filters.add(piece, zeros)
        self.distinct.add(piece, counts)
        if any(counts[codes].any() for codes in self.suspects):
            finite = np.isfinite(piece)
            self.counted.nans += int(np.isnan(piece).sum())
            self.counted.infs += int(np.isinf(piece).sum())
            piece, values = piece[finite], values[finite]
        self.moments.add(values, self.counted.extend(piece))

    def finish(self, sha256: str) -> TensorStatistics:
        filled = self.buckets.filled()
        return summed_up(self.counted, self.moments, filled, self.distinct.number(), self.filters.dead(), sha256)


class ComplexSummary:
    """Of complex numbers, which have no order: only what is counted. One with a part that is NaN is NaN."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.counted, self.filters = Counts(), Filters(shape)

    def add(self, piece: np.ndarray) -> None:
        nan = np.isnan(piece)
        zeros = piece.size - int(np.count_nonzero(piece))
        self.counted.zeros += zeros
        self.counted.nans += int(nan.sum())
        self.counted.infs += int((np.isinf(piece) & ~nan).sum())
        self.filters.add(piece, zeros)

    def finish(self, sha256: str) -> TensorStatistics:
        counted = self.counted
        return TensorStatistics(
            zeros=counted.zeros, nans=counted.nans, infs=counted.infs, dead_filters=self.filters.dead(), sha256=sha256
        )


class OpaqueSummary:
    """Of a dtype that is not known here (8-bit floats): only the digest."""

    def add(self, piece: np.ndarray) -> None:
        pass

    def finish(self, sha256: str) -> TensorStatistics:
        return TensorStatistics(sha256=sha256)


def summary(shape: tuple[int, ...], dtype: np.dtype) -> NarrowSummary | WideSummary | ComplexSummary | OpaqueSummary:
    """An empty summary for a tensor."""
    if dtype.kind == "c":
        return ComplexSummary(shape, dtype)
    if dtype.kind in "biuf" or dtype == ml_dtypes.bfloat16 or dtype.name.startswith("float8_"):
        return (NarrowSummary if dtype.itemsize <= 2 else WideSummary)(shape, dtype)
    return OpaqueSummary()
