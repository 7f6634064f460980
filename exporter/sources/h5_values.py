"""Datasets of HDF5 files as lazy arrays, read when they are asked for. Imports neither TensorFlow nor Keras."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import h5py
import numpy as np
from ml_dtypes import bfloat16

from exporter.errors import SourceError
from exporter.lazy import LazyArray, Part
from exporter.sources.graphs.crc import PiecewiseCrc

COPY_AGAIN = "copy or download it again"
# Linux reads at most 2 GiB at once.
READ_BYTES = 2**30


@dataclass(frozen=True)
class Extent:
    """The bytes of a file inside of another: from `offset` on in what `descriptor` has open, for as long as it is.

    What is read is told to `crc`. `owner` is the object that would close the descriptor when nobody holds it.
    """

    descriptor: int
    offset: int = 0
    crc: PiecewiseCrc | None = None
    owner: object = None

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

    `extent` says where the bytes of the HDF5 file are when it is no file of its own. The dataset is kept open only
    where HDF5 has to read it. Raises ValueError for what holds no numbers, and when it is read SourceError.
    """
    identity = dataset.id
    stored, dtype = identity.dtype, dtype_of(identity)
    shape = identity.shape
    filename, name = h5py.h5f.get_name(identity).decode(), h5py.h5i.get_name(identity).decode()
    place = _place(identity, stored, dtype)
    read = _through_hdf5(dataset, dtype) if place is None else _at(place, extent or filename, dtype)
    where = f"{os.path.basename(filename)}, dataset {name}"

    def part(start: int, stop: int) -> np.ndarray:
        try:
            return read(start, stop)
        # The reader runs while the ONNX file is being written, where an OSError would read as a full disk.
        except (OSError, RuntimeError, LookupError, ValueError) as error:
            raise SourceError("cannot be read", where=where, why=str(error), hint=COPY_AGAIN) from error

    size = math.prod(shape)
    return LazyArray(shape, dtype, lambda: part(0, size).reshape(shape), part=part)


def dtype_of(identity: h5py.h5d.DatasetID) -> np.dtype:
    """Of the elements; Keras writes bfloat16 as bytes with a mark.

    Raises ValueError for what are no numbers, and for values that are in other files, which could be any.
    """
    stored, settings = identity.dtype, identity.get_create_plist()
    if settings.get_external_count() or settings.get_layout() == h5py.h5d.VIRTUAL:
        raise ValueError(f"dataset {h5py.h5i.get_name(identity).decode()} keeps its values in other files")
    if h5py.h5a.exists(identity, b"dtype") and h5py.AttributeManager(h5py.Dataset(identity))["dtype"] == "bfloat16":
        return np.dtype(bfloat16)
    if stored.kind not in "biufc":
        name = h5py.h5i.get_name(identity).decode()
        raise ValueError(f"dataset {name} holds {stored}, which are no numbers")
    return stored


def _place(identity: h5py.h5d.DatasetID, stored: np.dtype, dtype: np.dtype) -> int | None:
    """Where the dataset starts in its file, if all of it lies there in the form in which NumPy wants it."""
    is_plain = stored == dtype or (stored.kind == "V" and stored.itemsize == dtype.itemsize)
    settings = identity.get_create_plist()
    if not is_plain or not stored.isnative or settings.get_layout() != h5py.h5d.CONTIGUOUS:
        return None
    return identity.get_offset()


def _at(place: int, file: Extent | str, dtype: np.dtype) -> Part:
    """Reads from the bytes of a file that is open, or is opened for each read."""

    def read(start: int, stop: int) -> np.ndarray:
        if isinstance(file, Extent):
            return elements(file, start, stop)
        with open(file, "rb", buffering=0) as stream:
            return elements(Extent(stream.fileno()), start, stop)

    def elements(extent: Extent, start: int, stop: int) -> np.ndarray:
        return extent.read(place + start * dtype.itemsize, (stop - start) * dtype.itemsize).view(dtype)

    return read


def _through_hdf5(dataset: h5py.Dataset, dtype: np.dtype) -> Part:
    filename, name = dataset.file.filename, dataset.name

    def read(start: int, stop: int) -> np.ndarray:
        if dataset:
            return _rows(dataset, dtype, start, stop)
        with h5py.File(filename, "r", locking=False) as file:
            return _rows(file[name], dtype, start, stop)

    return read


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
