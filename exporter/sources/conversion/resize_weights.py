"""How TensorFlow's resizes weigh the pixels of a row, as matrices (new size, old size): for those that ONNX has not.

The formulas are those of `resize_area_op.cc`, `resize_bicubic_op.cc`, `scale_and_translate_op.cc` and
`sampling_kernels.h` in `tensorflow/core/kernels/image`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# TensorFlow looks the coefficients of cubics up in a table.
CUBIC_STEPS = 1024


@dataclass(frozen=True)
class Sampling:
    """`weight` of a distance; it is zero beyond `radius`."""

    radius: float
    weight: Callable[[float], float]


def area(old: int, new: int, *, align_corners: bool) -> np.ndarray:
    """Each new pixel is the mean of what it covers."""
    found = np.zeros((new, old), np.float64)
    scale = _scale(old, new, align_corners=align_corners)
    for row in range(new):
        start, stop = row * scale, (row + 1) * scale
        for place in range(math.floor(start), math.ceil(stop)):
            covered = min(place + 1, stop) - max(place, start)
            found[row, min(max(place, 0), old - 1)] += covered / scale
    return found.astype(np.float32)


def cubic(old: int, new: int, *, align_corners: bool, half_pixel_centers: bool) -> np.ndarray:
    """Keys's with a = -0.5 where centres count and what is outside does not, else with -0.75 and repeated borders."""
    found = np.zeros((new, old), np.float64)
    scale = _scale(old, new, align_corners=align_corners)
    for row in range(new):
        place = (row + 0.5) * scale - 0.5 if half_pixel_centers else row * scale
        first = math.floor(place)
        offset = round((place - first) * CUBIC_STEPS) / CUBIC_STEPS
        for source in range(first - 1, first + 3):
            weight = _cubic_weight(abs(source - first - offset), -0.5 if half_pixel_centers else -0.75)
            if 0 <= source < old or not half_pixel_centers:
                found[row, min(max(source, 0), old - 1)] += weight
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


def _cubic_weight(x: float, a: float) -> float:
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a if x < 2 else 0.0


def sampled(old: int, new: int, scale: float, translation: float, kernel: Sampling, *, antialias: bool) -> np.ndarray:
    """Where a new pixel comes from outside of the old ones, it is zero."""
    found = np.zeros((new, old), np.float64)
    wide = max(1 / scale, 1.0) if antialias else 1.0
    for row in range(new):
        place = (row + 0.5 - translation) / scale
        if not 0 <= place <= old:
            continue
        start = min(max(math.ceil(place - kernel.radius * wide - 0.5), 0), old - 1)
        stop = min(max(math.floor(place + kernel.radius * wide - 0.5), 0), old - 1) + 1
        weights = np.array([kernel.weight(abs(source + 0.5 - place) / wide) for source in range(start, stop)])
        total = weights.sum()
        found[row, start:stop] = weights / total if abs(total) > 1000 * np.finfo(np.float32).tiny else 0
    return found.astype(np.float32)


def _lanczos(radius: float) -> Sampling:
    def weight(x: float) -> float:
        if x > radius:
            return 0.0
        angle = math.pi * x
        return 1.0 if x <= 1e-3 else radius * math.sin(angle) * math.sin(angle / radius) / angle**2

    return Sampling(radius, weight)


def _gaussian(x: float) -> float:
    """A third of the radius of 1.5 is its deviation."""
    return math.exp(-(x**2) / (2 * 0.5**2)) if x < 1.5 else 0.0


def _mitchell(x: float) -> float:
    if x >= 2:
        return 0.0
    return ((-7 / 18 * x + 2) * x - 10 / 3) * x + 16 / 9 if x >= 1 else (7 / 6 * x - 2) * x * x + 8 / 9


KERNELS = {
    "lanczos1": _lanczos(1.0),
    "lanczos3": _lanczos(3.0),
    "lanczos5": _lanczos(5.0),
    "gaussian": Sampling(1.5, _gaussian),
    "box": Sampling(0.5, lambda x: 1.0 if x < 0.5 else 0.5 if x == 0.5 else 0.0),
    "triangle": Sampling(1.0, lambda x: max(0.0, 1.0 - x)),
    "keyscubic": Sampling(2.0, lambda x: _cubic_weight(x, -0.5)),
    "mitchellcubic": Sampling(2.0, _mitchell),
}


def _scale(old: int, new: int, *, align_corners: bool) -> float:
    return (old - 1) / (new - 1) if align_corners and new > 1 else old / new
