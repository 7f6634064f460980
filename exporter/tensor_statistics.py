"""Numbers about the elements of one tensor, from pieces that are seen once and then forgotten.

Elements are counted in buckets, as DDSketch does (Masson, Rim, Lee, VLDB 2019): a bucket is the elements with the same
sign, exponent and leading bits of the mantissa, so that its number is a part of their bit pattern. Types of 8 and 16
bits have a bucket for each value, and all numbers about them are exact up to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from exporter.records import TensorStatistics

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
HISTOGRAM_BINS = 32
DISTINCT_LIMIT = 256
NEAR_ZERO = 1e-6
# Leading bits of the mantissa that a bucket keeps. Its middle differs from any element by at most 2^-8 of that, 0.4 %.
KEPT_MANTISSA_BITS = 7
# Squares of elements beyond 2^±300 would leave the range of float64 too soon; they are scaled.
SAFE_EXPONENT = 300


class Buckets:
    """How many elements lie in each bucket."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype, self.bits = dtype, np.dtype(f"<u{dtype.itemsize}")
        self.shift = 0 if dtype.itemsize <= 2 else np.finfo(dtype).nmant - KEPT_MANTISSA_BITS
        # Used anew for each piece: blocks of this size are slow to get from the system.
        self._codes = np.empty(0, np.intp)
        self.counts = np.zeros(1 << (8 * dtype.itemsize - self.shift), np.int64)

    def add(self, piece: np.ndarray) -> np.ndarray:
        """The piece's own counts."""
        if len(self._codes) < len(piece):
            self._codes = np.empty(len(piece), np.intp)
        codes = self._codes[: len(piece)]
        np.right_shift(piece.view(self.bits), self.bits.type(self.shift), out=codes, casting="unsafe")
        counts = np.bincount(codes, minlength=len(self.counts))
        self.counts += counts
        return counts

    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """Middles (float64, ascending, finite) and counts of the buckets that are not empty."""
        codes = np.flatnonzero(self.counts)
        patterns = (codes.astype(np.uint64) << np.uint64(self.shift)).astype(self.bits)
        lower = patterns.view(self.dtype).astype(np.float64)
        finite = np.isfinite(lower)
        half = self.bits.type((1 << self.shift) >> 1)
        middle = np.where(lower == 0, 0.0, (patterns | half).view(self.dtype).astype(np.float64))[finite]
        order = np.argsort(middle, kind="stable")
        return middle[order], self.counts[codes[finite]][order]


class Moments:
    """Mean and sum of squared differences from it, in float64 (Chan, Golub, LeVeque 1979), scaled by 2^-exponent."""

    def __init__(self) -> None:
        self.count, self.exponent = 0, 0
        self.mean = self.squares = 0.0

    def add(self, values: np.ndarray, magnitude: float, counts: np.ndarray | None = None) -> None:
        """Finite float64 values up to `magnitude`, each once or `counts` times; `values` is overwritten."""
        number = len(values) if counts is None else int(counts.sum())
        if not number:
            return
        self._scale(math.frexp(magnitude)[1])
        if self.exponent:
            np.ldexp(values, -self.exponent, out=values)
        mean = float(values.sum() if counts is None else (values * counts).sum()) / number
        values -= mean
        np.multiply(values, values, out=values)
        squares = float(values.sum() if counts is None else (values * counts).sum())
        total, apart = self.count + number, mean - self.mean
        self.squares += squares + apart * apart * (self.count * number / total)
        self.mean += apart * (number / total)
        self.count = total

    def _scale(self, exponent: int) -> None:
        """Make room for elements of that binary exponent."""
        if not self.count:
            self.exponent = exponent if abs(exponent) > SAFE_EXPONENT else 0
        elif exponent > self.exponent + SAFE_EXPONENT:
            down = self.exponent - exponent
            self.mean, self.squares = math.ldexp(self.mean, down), math.ldexp(self.squares, 2 * down)
            self.exponent = exponent

    def results(self) -> tuple[float | None, float | None, float | None]:
        """Mean, standard deviation and L2 norm; the first two are None without elements. Infinite when too large."""
        if not self.count:
            return None, None, 0.0
        norm = math.sqrt(self.squares + self.count * self.mean * self.mean)
        return tuple(map(self._unscaled, (self.mean, math.sqrt(self.squares / self.count), norm)))  # type: ignore[return-value]

    def _unscaled(self, value: float) -> float:
        return float(np.ldexp(value, self.exponent))


class Filters:
    """Which output channels (the last axis of two or more) have an element other than zero."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.alive = np.zeros(shape[-1], bool) if len(shape) >= 2 and 0 not in shape else None
        self.seen, self.searching = 0, self.alive is not None

    def add(self, piece: np.ndarray, zeros: int) -> None:
        if self.alive is not None and self.searching:
            reach = min(len(piece), len(self.alive)) if not zeros else len(piece)
            places = np.flatnonzero(piece[:reach]) if zeros else np.arange(reach)
            self.alive[(places + self.seen) % len(self.alive)] = True
            self.searching = bool((~self.alive).any())
        self.seen += len(piece)

    def dead(self) -> int | None:
        return None if self.alive is None else len(self.alive) - int(self.alive.sum())


class Distinct:
    """The distinct elements up to a limit; 0 and -0 are one, all NaN are one."""

    def __init__(self) -> None:
        self.values: np.ndarray | None = None
        self.few = True

    def add(self, piece: np.ndarray, counts: np.ndarray) -> None:
        if not self.few:
            return
        # A bucket holds at least one; only the two zeros, and those of NaN, may be one element in several buckets.
        if np.count_nonzero(counts) > DISTINCT_LIMIT and not np.isnan(piece).any():
            self.few = bool(np.count_nonzero(counts) <= DISTINCT_LIMIT + 1)
        if self.few:
            found = np.unique(piece)
            self.values = found if self.values is None else np.unique(np.concatenate([self.values, found]))
            self.few = len(self.values) <= DISTINCT_LIMIT

    def number(self) -> int | None:
        if not self.few:
            return None
        return 0 if self.values is None else len(self.values)


@dataclass
class Counts:
    """What is counted exactly, and the exact extremes of the finite elements."""

    zeros: int = 0
    nans: int = 0
    infs: int = 0
    low: float | None = None
    high: float | None = None

    def extend(self, values: np.ndarray) -> float:
        """Finite elements, in any type that NumPy knows; the largest magnitude among them."""
        if not len(values):
            return 0.0
        low, high = float(values.min()), float(values.max())
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        return max(-low, high)


def summed_up(
    counted: Counts,
    moments: Moments,
    filled: tuple[np.ndarray, np.ndarray],
    distinct: int | None,
    dead_filters: int | None,
    sha256: str,
) -> TensorStatistics:
    """`filled` are the middles and counts of the buckets; they give what is approximate."""
    mean, std, norm = moments.results()
    low, high = counted.low, counted.high
    always = TensorStatistics(
        l2_norm=norm,
        zeros=counted.zeros,
        near_zeros=0,
        nans=counted.nans,
        infs=counted.infs,
        dead_filters=dead_filters,
        distinct=distinct,
        sha256=sha256,
    )
    if low is None or high is None:
        return always
    middles, counts = np.clip(filled[0], low, high), filled[1]
    small = int(counts[np.abs(middles) <= NEAR_ZERO * max(-low, high)].sum())
    edges, heights = _histogram(middles, counts, low, high)
    return replace(
        always,
        min=low,
        max=high,
        mean=mean,
        std=std,
        near_zeros=max(0, small - counted.zeros),
        quantiles=_quantiles(middles, counts),
        histogram_edges=edges,
        histogram_counts=heights,
    )


def _quantiles(middles: np.ndarray, counts: np.ndarray) -> tuple[float, ...]:
    """Of the elements in order, those at the place ⌊q · (n - 1)⌋ (NumPy's method `lower`)."""
    ends = np.cumsum(counts)
    places = [math.floor(q * (int(ends[-1]) - 1)) for q in QUANTILES]
    return tuple(middles[np.searchsorted(ends, places, side="right")].tolist())


def _histogram(
    middles: np.ndarray, counts: np.ndarray, low: float, high: float
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Bins of the same width; one without width when all elements are the same."""
    if low == high:
        return (low, high), (int(counts.sum()),)
    parts = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    # Not low + part · (high - low), which may be infinite.
    edges = low * (1 - parts) + high * parts
    bins = np.clip(np.searchsorted(edges, middles, side="right") - 1, 0, HISTOGRAM_BINS - 1)
    heights = np.zeros(HISTOGRAM_BINS, np.int64)
    np.add.at(heights, bins, counts)
    return tuple(edges.tolist()), tuple(heights.tolist())
