"""The content of a lookup table, wherever it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class LookupTable:
    """Values by key: texts as bytes, numbers as Python's. `key_dtype` and `value_dtype` are TensorFlow's names."""

    content: Mapping[Any, Any]
    key_dtype: str
    value_dtype: str


MakeTable = Callable[[], LookupTable]


def table_of(keys: Any, values: Any) -> LookupTable:
    """Of two tensors, or arrays, of one dimension."""
    keys, values = np.asarray(keys), np.asarray(values)
    dtypes = ("string" if array.dtype.kind in "OSU" else array.dtype.name for array in (keys, values))
    return LookupTable(dict(zip(keys.tolist(), values.tolist(), strict=True)), *dtypes)


def exported(handle: tf.Tensor, key_dtype: tf.DType, value_dtype: tf.DType) -> LookupTable:
    """What TensorFlow has in a table."""
    found = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=key_dtype, Tvalues=value_dtype)
    return table_of(found.keys.numpy(), found.values.numpy())


def declare(node: Any, key_dtype: int, value_dtype: int) -> None:
    """Make of a node one that makes a table: TensorFlow infers the shapes of what is found in this kind only."""
    del node.input[:]
    node.op = "MutableHashTableV2"
    node.attr.clear()
    node.attr["key_dtype"].type, node.attr["value_dtype"].type = key_dtype, value_dtype
