"""Hollow models: Keras models whose variables have shapes and dtypes but no bytes, and the values bound to them lazily.

Inside Keras's `StatelessScope(initialize_variables=False)` a new variable gets no value. `HollowScope` is such a scope
that also listens: while Keras's own loading code runs in it, every `variable.assign(value)` is recorded instead of
carried out, and the HDF5 readers hand out lazy arrays instead of reading. So weights find their variables by Keras's
rules (each layer's `load_own_variables`, the order of a legacy file), not by guesses about names.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common.variables import Variable as AnyVariable
from keras.src.legacy.saving import legacy_h5_format
from keras.src.saving import saving_lib
from ml_dtypes import bfloat16

from exporter.errors import SourceError
from exporter.lazy import LazyArray
from exporter.sources.crc import PiecewiseCrc

COPY_AGAIN = "copy or download it again"
# Linux reads at most 2 GiB at once.
READ_BYTES = 2**30


class HollowScope(keras.StatelessScope):
    """Entered once and left open for the life of the worker; `bound` maps `id(variable)` to its value."""

    def __init__(self) -> None:
        super().__init__(initialize_variables=False)
        self.bound: dict[int, LazyArray] = {}
        self._checks: list[Callable[[], None]] = []

    def bind(self, variable: AnyVariable, value: Any) -> None:
        """Remember the value under the variable's own dtype. Raises ValueError when the shapes differ."""
        # A value that a layer computes while loading is kept: there is no file to read it from again.
        array = value if isinstance(value, LazyArray) else LazyArray.of(np.asarray(value))
        if array.shape != tuple(variable.shape):
            raise ValueError(f"{variable.path} has shape {tuple(variable.shape)}, the saved value {array.shape}")
        self.bound[id(variable)] = array.astype(variable.dtype)

    def check_last(self, check: Callable[[], None]) -> None:
        """Leave a check of the source to `finish_checks`, when most of it has been read."""
        self._checks.append(check)

    def finish_checks(self) -> None:
        """Carry out what `check_last` was given. Raises what a check raises (SourceError)."""
        for check in self._checks:
            check()

    def get_current_value(self, variable: AnyVariable) -> Any:
        """A layer that computes with a loaded value (`Normalization` does) makes Keras ask here: read just that one."""
        array = self.bound.get(id(variable))
        return None if array is None else tf.convert_to_tensor(array.real())

    @contextmanager
    def listening(self, extent: Extent | None = None) -> Iterator[None]:
        """Record assignments to variables, and keep HDF5 datasets unread, until the block ends.

        `extent` says where the bytes of the HDF5 file are when it is no file of its own.
        """

        def assign(variable: AnyVariable, value: Any) -> Any:
            self.bind(variable, value)
            return value

        def entry(store: saving_lib.H5IOStore, key: str) -> LazyArray:
            """In place of `H5IOStore.__getitem__`, which reads the dataset into memory."""
            return lazy_dataset(saving_lib.safe_get_h5_dataset(store._h5_entry_group, key), extent)

        with ExitStack() as patches:
            patches.enter_context(mock.patch.object(AnyVariable, "assign", assign))
            patches.enter_context(mock.patch.object(saving_lib.H5IOStore, "__getitem__", entry))
            patches.enter_context(
                mock.patch.object(legacy_h5_format, "load_subset_weights_from_hdf5_group", _legacy_group)
            )
            yield


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


def _legacy_group(group: h5py.Group) -> list[LazyArray]:
    """In place of the function of the same purpose in Keras's legacy reader, which reads the whole layer."""
    names = legacy_h5_format.load_attributes_from_hdf5_group(group, "weight_names")
    return [lazy_dataset(legacy_h5_format.safe_get_h5_dataset(group, name)) for name in names]
