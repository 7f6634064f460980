"""The constants of a `.tflite` file, read when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import numpy as np
from ml_dtypes import bfloat16

from exporter.lazy import LazyArray
from exporter.sources.file_values import file_array
from exporter.sources.h5_values import Extent
from exporter.sources.lite.lite_model import LiteTensor

# Elements of less than a byte, the first one in the lowest bits, are given as the numbers that they are.
WIDER = {"int4": np.int8, "uint4": np.uint8, "int2": np.int8}


def lazy_values(path: str, tensors: Mapping[str, LiteTensor]) -> dict[str, LazyArray]:
    """By the weight's name; text, and what is sparse or in another file, is left out."""
    extent = Extent(os.open(path, os.O_RDONLY))  # For the life of this process.
    name = os.path.basename(path)
    return {
        weight: _lazy(extent, tensor, f"{name}, tensor {weight}").named(weight)
        for weight, tensor in tensors.items()
        if tensor.is_whole
    }


def _lazy(extent: Extent, tensor: LiteTensor, where: str) -> LazyArray:
    assert tensor.extent is not None
    shape = tuple(size or 0 for size in tensor.shape or ())
    start, dtype = tensor.extent[0], str(tensor.dtype)
    if dtype not in WIDER:
        return file_array(extent.read, start, shape, bfloat16 if dtype == "bfloat16" else dtype, where)
    count = math.prod(shape)
    packed = file_array(extent.read, start, (math.ceil(count * tensor.bits / 8),), np.uint8, where)
    return LazyArray(shape, WIDER[dtype], lambda: unpacked(packed.real(), tensor.bits, dtype, count).reshape(shape))


def unpacked(packed: np.ndarray, bits: int, dtype: str, count: int) -> np.ndarray:
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = ((packed[:, None] >> shifts) & (2**bits - 1)).reshape(-1)[:count]
    if dtype.startswith("u"):
        return values
    # The highest bit is the sign.
    return (values.astype(np.int8) ^ np.int8(2 ** (bits - 1))) - np.int8(2 ** (bits - 1))
