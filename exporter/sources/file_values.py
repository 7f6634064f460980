"""Arrays whose elements lie in files one after the other, read when they are asked for, in pieces."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from exporter.errors import SourceError
from exporter.lazy import LazyArray
from exporter.sources.h5_values import COPY_AGAIN

# Bytes as uint8, given where the first one is and how many.
Read = Callable[[int, int], np.ndarray]


def file_array(read: Read, start: int, shape: tuple[int, ...], dtype: Any, where: str) -> LazyArray:
    """Little-endian elements in C order, from byte `start` on. `where` names the place for a SourceError."""
    dtype = np.dtype(dtype)

    def part(first: int, last: int) -> np.ndarray:
        try:
            return read(start + first * dtype.itemsize, (last - first) * dtype.itemsize).view(dtype)
        # It runs while the ONNX file is being written, where an OSError would read as a full disk.
        except (OSError, ValueError) as error:
            raise SourceError("cannot be read", where=where, why=str(error), hint=COPY_AGAIN) from error

    return LazyArray(shape, dtype, lambda: part(0, math.prod(shape)).reshape(shape), part=part)
