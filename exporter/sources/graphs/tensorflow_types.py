"""TensorFlow's numbers for dtypes (`tensorflow/core/framework/types.proto`) as NumPy's dtypes, without TensorFlow."""

from __future__ import annotations

import ml_dtypes
import numpy as np

STRING, RESOURCE, VARIANT = 7, 20, 21
NAMES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    STRING: "string",
    8: "complex64",
    9: "int64",
    10: "bool",
    # Those that once were to say that they are quantised have the same bytes as their plain ones.
    11: "int8",
    12: "uint8",
    13: "int32",
    14: "bfloat16",
    15: "int16",
    16: "uint16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    RESOURCE: "resource",
    VARIANT: "variant",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
    26: "float8_e4m3fnuz",
    27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz",
    29: "int4",
    30: "uint4",
    31: "int2",
    32: "uint2",
}
# A variable of TensorFlow 1, before it is read, has its dtype with this added.
REFERENCE = 100


def type_name(number: int) -> str | None:
    """`float32` for 1; None for a number that means nothing."""
    return NAMES.get(number % REFERENCE if number > REFERENCE else number)


def numpy_dtype(number: int) -> np.dtype | None:
    """None for what is no number, such as text, and for what is unknown."""
    name = type_name(number)
    if name is None or number % REFERENCE in (STRING, RESOURCE, VARIANT):
        return None
    return np.dtype(getattr(ml_dtypes, name, name))
