"""Datasets of HDF5 files as lazy arrays, read when they are asked for. Imports neither TensorFlow nor Keras."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import h5py
import numpy as np
from ml_dtypes import bfloat16

from exporter.errors import SourceError
from exporter.lazy import LazyArray
from exporter.sources.crc import PiecewiseCrc

COPY_AGAIN = "copy or download it again"
# Linux reads at most 2 GiB at once.
READ_BYTES = 2**30


@dataclass(frozen=True)
class Extent:
    """The bytes of a file inside of another: from `offset` on in what `descriptor` has open, for as long as it is.

    What is read is told to `crc`.
    """

    descriptor: int
    offset: int = 0
    crc: PiecewiseCrc | None = None

    def read(self, start: int, nbytes: int) -> np.ndarray:
        """Bytes as uint8. Raises OSError at the end of the file."""
        buffer = np.empty(nbytes, np.uint8)
        done = 0
        while done < nbytes:
            count = os.preadv(self.descriptor, [buffer[done : done + READ_BYTES].data], self.offset + start + done)
            if not count:
                raise OSError(f"the file ends {nbytes - done} bytes too early")
            done += count
        if self.crc is not None:
            self.crc.add(start, buffer.data)
        return buffer


def lazy_dataset(dataset: h5py.Dataset, extent: Extent | None = None) -> LazyArray:
    """The dataset's values, read when they are asked for, from the open file or by opening it again.

    Raises ValueError for what holds no numbers, and when it is read SourceError.
    """
    dtype = np.dtype(bfloat16) if dataset.attrs.get("dtype") == "bfloat16" else dataset.dtype
    filename, name, shape = dataset.file.filename, dataset.name, dataset.shape
    if dtype != bfloat16 and dataset.dtype.kind not in "biufc":
        raise ValueError(f"dataset {name} holds {dataset.dtype}, which are no numbers")
    place = _place(dataset, dtype)

    def elements(file: Extent, place: int, start: int, stop: int) -> np.ndarray:
        return file.read(place + start * dtype.itemsize, (stop - start) * dtype.itemsize).view(dtype)

    def part(start: int, stop: int) -> np.ndarray:
        try:
            if place is not None and extent is not None:
                return elements(extent, place, start, stop)
            if place is not None:
                with open(filename, "rb", buffering=0) as stream:
                    return elements(Extent(stream.fileno()), place, start, stop)
            if dataset:
                return _rows(dataset, dtype, start, stop)
            with h5py.File(filename, "r", locking=False) as file:
                return _rows(file[name], dtype, start, stop)
        # The reader runs while the ONNX file is being written, where an OSError would read as a full disk.
        except (OSError, RuntimeError, LookupError, ValueError) as error:
            where = f"{os.path.basename(str(filename))}, dataset {name}"
            raise SourceError("cannot be read", where=where, why=str(error), hint=COPY_AGAIN) from error

    size = math.prod(shape)
    return LazyArray(shape, dtype, lambda: part(0, size).reshape(shape), part=part)


def _place(dataset: h5py.Dataset, dtype: np.dtype) -> int | None:
    """Where the dataset starts in its file, if all of it lies there in the form in which NumPy wants it."""
    stored = dataset.dtype
    is_plain = stored == dtype or (stored.kind == "V" and stored.itemsize == dtype.itemsize)
    if not is_plain or not stored.isnative or dataset.chunks is not None or dataset.external or dataset.is_virtual:
        return None
    return dataset.id.get_offset()


def _rows(dataset: h5py.Dataset, dtype: np.dtype, start: int, stop: int) -> np.ndarray:
    """The same through HDF5 (packed, in another byte order, never written): whole rows are read."""
    if not dataset.shape:
        return _converted(np.asarray(dataset[()]).reshape(1), dtype)[start:stop]
    row = math.prod(dataset.shape[1:])
    first, last = (start // row, -(-stop // row)) if row else (0, 0)
    rows = np.asarray(dataset[first:last]).reshape(-1)
    return _converted(rows[start - first * row : stop - first * row], dtype)


def _converted(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array if array.dtype == dtype else array.view(dtype) if array.dtype.kind == "V" else array.astype(dtype)
