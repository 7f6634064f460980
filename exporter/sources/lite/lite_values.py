"""The constants of a `.tflite` file, read when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import numpy as np
from ml_dtypes import bfloat16

from exporter.errors import SourceError
from exporter.lazy import LazyArray
from exporter.sources.file_values import file_array
from exporter.sources.h5_values import COPY_AGAIN, Extent
from exporter.sources.lite.lite_model import LiteTensor
from exporter.sources.lite.sparse_tensors import Sparsity, places

# Elements of less than a byte, the first one in the lowest bits, are given as the numbers that they are.
WIDER = {"int4": np.int8, "uint4": np.uint8, "int2": np.int8}


def lazy_values(path: str, tensors: Mapping[str, LiteTensor]) -> dict[str, LazyArray]:
    """By the weight's name; text, and what is in another file, is left out."""
    extent = Extent(os.open(path, os.O_RDONLY))  # For the life of this process.
    name = os.path.basename(path)
    return {
        weight: _lazy(extent, tensor, f"{name}, tensor {weight}").named(weight)
        for weight, tensor in tensors.items()
        if tensor.is_whole or (tensor.sparsity and tensor.extent and tensor.bits >= 8)
    }


def _lazy(extent: Extent, tensor: LiteTensor, where: str) -> LazyArray:
    assert tensor.extent is not None
    shape = tuple(size or 0 for size in tensor.shape or ())
    start, dtype = tensor.extent[0], str(tensor.dtype)
    if tensor.sparsity is not None:
        return _dense(extent, tensor, tensor.sparsity, shape, where)
    if dtype not in WIDER:
        return file_array(extent.read, start, shape, bfloat16 if dtype == "bfloat16" else dtype, where)
    count = math.prod(shape)
    packed = file_array(extent.read, start, (math.ceil(count * tensor.bits / 8),), np.uint8, where)
    return LazyArray(shape, WIDER[dtype], lambda: unpacked(packed.real(), tensor.bits, dtype, count).reshape(shape))


def _dense(extent: Extent, tensor: LiteTensor, sparsity: Sparsity, shape: tuple[int, ...], where: str) -> LazyArray:
    """With the zeros that the file leaves out."""
    assert tensor.extent is not None
    start, nbytes = tensor.extent
    kind = np.dtype(tensor.dtype)
    stored = file_array(extent.read, start, (nbytes // kind.itemsize,), kind, where)

    def make() -> np.ndarray:
        found = np.zeros(shape, kind)
        try:
            found.reshape(-1)[places(sparsity, shape, stored.size)] = stored.real()
        except ValueError as error:
            raise SourceError("is corrupt", where=where, why=str(error), hint=COPY_AGAIN) from error
        return found

    return LazyArray(shape, kind, make)


def unpacked(packed: np.ndarray, bits: int, dtype: str, count: int) -> np.ndarray:
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = ((packed[:, None] >> shifts) & (2**bits - 1)).reshape(-1)[:count]
    if dtype.startswith("u"):
        return values
    # The highest bit is the sign.
    return (values.astype(np.int8) ^ np.int8(2 ** (bits - 1))) - np.int8(2 ** (bits - 1))
