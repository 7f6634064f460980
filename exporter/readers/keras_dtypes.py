"""Which kind of numbers comes out where several kinds meet in an operation of Keras.

The order of the kinds is that of `keras.backend.result_type` in Keras 3.15 with the backend TensorFlow; a test compares
every pair.
"""

from __future__ import annotations

import functools

from exporter.readers import Unexplained

# The next larger kinds of each; `int` and `float` are numbers of Python, which give way to those of a tensor.
LARGER: dict[str, tuple[str, ...]] = {
    "bool": ("int",),
    "uint8": ("int16", "uint16"),
    "uint16": ("int32", "uint32"),
    "uint32": ("int64", "uint64"),
    "uint64": ("float",),
    "int": ("uint8", "int8", "complex64"),
    "int8": ("int16",),
    "int16": ("int32",),
    "int32": ("int64",),
    "int64": ("float",),
    "float": ("bfloat16", "float16"),
    "bfloat16": ("float32",),
    "float16": ("float32",),
    "float32": ("float64", "complex64"),
    "float64": ("complex128",),
    "complex64": ("complex128",),
    "complex128": (),
}
OF_PYTHON = {"int": "int32", "float": "float32"}
# Of the kinds of 64 bits Keras keeps two.
TAKEN_AS = {**OF_PYTHON, "uint64": "uint32", "complex128": "complex64"}


@functools.cache
def _at_least(kind: str) -> frozenset[str]:
    if kind not in LARGER:
        raise Unexplained(f"numbers of the kind {kind} among others")
    return frozenset({kind}).union(*(_at_least(larger) for larger in LARGER[kind]))


@functools.cache
def promoted(*kinds: str) -> str:
    """The smallest kind that holds all. Raises Unexplained."""
    if set(kinds) <= OF_PYTHON.keys():
        raise Unexplained("numbers of Python alone")
    common = frozenset.intersection(*(_at_least(kind) for kind in kinds))
    least = [kind for kind in common if common <= _at_least(kind)]
    if len(least) != 1:
        raise Unexplained(f"numbers of the kinds {', '.join(kinds)}")
    return TAKEN_AS.get(least[0], least[0])
