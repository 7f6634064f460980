"""Hollow models: Keras models whose variables have shapes and dtypes but no bytes, and the values bound to them lazily.

Inside Keras's `StatelessScope(initialize_variables=False)` a new variable gets no value. `HollowScope` is such a scope
that also listens: while Keras's own loading code runs in it, every `variable.assign(value)` is recorded instead of
carried out, and the HDF5 readers hand out lazy arrays instead of reading. So weights find their variables by Keras's
rules (each layer's `load_own_variables`, the order of a legacy file), not by guesses about names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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

COPY_AGAIN = "copy or download it again"


class HollowScope(keras.StatelessScope):
    """Entered once and left open for the life of the worker; `bound` maps `id(variable)` to its value."""

    def __init__(self) -> None:
        super().__init__(initialize_variables=False)
        self.bound: dict[int, LazyArray] = {}

    def bind(self, variable: AnyVariable, value: Any) -> None:
        """Remember the value under the variable's own dtype. Raises ValueError when the shapes differ."""
        # A value that a layer computes while loading is kept: there is no file to read it from again.
        array = value if isinstance(value, LazyArray) else LazyArray.of(np.asarray(value))
        if array.shape != tuple(variable.shape):
            raise ValueError(f"{variable.path} has shape {tuple(variable.shape)}, the saved value {array.shape}")
        self.bound[id(variable)] = array.astype(variable.dtype)

    def get_current_value(self, variable: AnyVariable) -> Any:
        """A layer that computes with a loaded value (`Normalization` does) makes Keras ask here: read just that one."""
        array = self.bound.get(id(variable))
        return None if array is None else tf.convert_to_tensor(array.real())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record assignments to variables, and keep HDF5 datasets unread, until the block ends."""

        def assign(variable: AnyVariable, value: Any) -> Any:
            self.bind(variable, value)
            return value

        with ExitStack() as patches:
            patches.enter_context(mock.patch.object(AnyVariable, "assign", assign))
            patches.enter_context(mock.patch.object(saving_lib.H5IOStore, "__getitem__", _entry))
            patches.enter_context(
                mock.patch.object(legacy_h5_format, "load_subset_weights_from_hdf5_group", _legacy_group)
            )
            yield


def lazy_dataset(dataset: h5py.Dataset) -> LazyArray:
    """The dataset's values, read when they are asked for, from the open file or by opening it again."""
    saved_as = bfloat16 if dataset.attrs.get("dtype") == "bfloat16" else dataset.dtype
    filename, name = dataset.file.filename, dataset.name
    if saved_as is not bfloat16 and dataset.dtype.kind not in "biufc":
        raise ValueError(f"dataset {name} holds {dataset.dtype}, which are no numbers")

    def read() -> np.ndarray:
        try:
            if dataset:
                return _values(dataset, saved_as)
            with h5py.File(filename, "r", locking=False) as file:
                return _values(file[name], saved_as)
        # The reader runs while the ONNX file is being written, where an OSError would read as a full disk.
        except (OSError, RuntimeError, LookupError, ValueError) as error:
            where = f"{os.path.basename(str(filename))}, dataset {name}"
            raise SourceError("cannot be read", where=where, why=str(error), hint=COPY_AGAIN) from error

    return LazyArray(dataset.shape, saved_as, read)


def _values(dataset: h5py.Dataset, dtype: Any) -> np.ndarray:
    array = np.asarray(dataset[()])
    return array if array.dtype == dtype else array.view(dtype) if array.dtype.kind == "V" else array.astype(dtype)


def _entry(store: saving_lib.H5IOStore, key: str) -> LazyArray:
    """In place of `H5IOStore.__getitem__`, which reads the dataset into memory."""
    return lazy_dataset(saving_lib.safe_get_h5_dataset(store._h5_entry_group, key))


def _legacy_group(group: h5py.Group) -> list[LazyArray]:
    """In place of the function of the same purpose in Keras's legacy reader, which reads the whole layer."""
    names = legacy_h5_format.load_attributes_from_hdf5_group(group, "weight_names")
    return [lazy_dataset(legacy_h5_format.safe_get_h5_dataset(group, name)) for name in names]
