"""The settings of an operator: the table of options that its builtin has, as a dictionary."""

from __future__ import annotations

import functools
import importlib
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from exporter.sources.lite.flat_tables import FlatTable

# Options that are numbers of graphs.
FUNCTION_OPTIONS = (
    "then_subgraph_index",
    "else_subgraph_index",
    "cond_subgraph_index",
    "body_subgraph_index",
    "init_subgraph_index",
    "decomposition_subgraph_index",
    "subgraph",
)
# Options that are numbers of an enumeration's entries.
ENUMERATIONS = {
    "fused_activation_function": "ActivationFunctionType",
    "padding": "Padding",
    "weights_format": "FullyConnectedOptionsWeightsFormat",
    "kernel_type": "LSTMKernelType",
    "combiner": "CombinerType",
    "in_data_type": "TensorType",
    "out_data_type": "TensorType",
    "output_type": "TensorType",
    "out_type": "TensorType",
    "idx_out_type": "TensorType",
    "mode": "MirrorPadMode",
}
# Longer settings are named by their size.
LONGEST_SETTING = 64


@functools.cache
def _entries(enumeration: str) -> dict[int, str]:
    owner = getattr(importlib.import_module(f"tflite.{enumeration}"), enumeration)
    return {value: key for key, value in vars(owner).items() if not key.startswith("_")}


def builtin_name(code: int) -> str:
    return _entries("BuiltinOperator").get(code, f"BUILTIN_{code}")


def options_of(operator: FlatTable, data: memoryview) -> dict[str, Any]:
    """Raises ValueError."""
    found: dict[str, Any] = {}
    for kind, field in (("BuiltinOptions", 4), ("BuiltinOptions2", 12)):
        name = _entries(kind).get(operator.number(field - 1, "B"), "NONE")
        table = None if name == "NONE" else operator.table(field)
        if table is not None:
            found |= _settings(name, table, data)
    return found


def _settings(name: str, table: FlatTable, data: memoryview) -> dict[str, Any]:
    options, getters = _getters(name)
    made = options()
    made.Init(data, table.place)
    try:
        found = {key: _plain(key, getter(made)) for key, getter in getters}
    except (struct.error, TypeError, IndexError) as error:
        raise ValueError(f"{name} at byte {table.place}: {error}") from error
    return {key: value for key, value in found.items() if value is not None}


@functools.cache
def _getters(name: str) -> tuple[Any, tuple[tuple[str, Callable[[Any], Any]], ...]]:
    """The class that reads such options, and its methods by the schema's names of the fields.

    Of a vector there are `X(index)`, `XAsNumpy()`, `XLength()` and `XIsNone()`; one of them reads it whole.
    """
    owner = getattr(importlib.import_module(f"tflite.{name}"), name)
    methods = {key: each for key, each in vars(owner).items() if callable(each) and key != "Init" and key[0] != "_"}
    vectors = {key.removesuffix("Length") for key in methods if f"{key.removesuffix('Length')}IsNone" in methods}
    hidden = {f"{key}{end}" for key in vectors for end in ("", "Length", "IsNone")}
    kept = {key: each for key, each in methods.items() if key not in hidden}
    return owner, tuple((_snake_case(key.removesuffix("AsNumpy")), each) for key, each in sorted(kept.items()))


def _snake_case(name: str) -> str:
    """`DilationHFactor` → `dilation_h_factor`, as the schema and tf2onnx call it."""
    return re.sub("(?<!^)(?=[A-Z])", "_", name).lower()


def _plain(key: str, value: Any) -> Any:
    if key in ENUMERATIONS and isinstance(value, int):
        return _entries(ENUMERATIONS[key]).get(value, value)
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= LONGEST_SETTING else f"{value.dtype}[{value.size}]"
    if isinstance(value, bytes):
        return value[:LONGEST_SETTING].decode("utf-8", "replace")
    return value if isinstance(value, (bool, int, float)) else None
