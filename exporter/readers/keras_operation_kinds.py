"""The kinds of numbers (dtypes) that operations of `keras.ops` give, as each class's `compute_output_spec` has them."""

from __future__ import annotations

from collections.abc import Callable

from exporter.readers.keras_dtypes import OF_PYTHON, promoted
from exporter.readers.keras_operation import Operation

Kind = Callable[[Operation], str]
# Kinds that are too small to add up in, and what Keras takes instead.
SUMMED = {"bool": "int32", "int8": "int32", "int16": "int32", "uint8": "uint32", "uint16": "uint32"}


def same(call: Operation) -> str:
    return call.dtype


def truth(call: Operation) -> str:
    return "bool"


def index(call: Operation) -> str:
    return "int32"


def default(call: Operation) -> str:
    """Keras's own, whatever goes in."""
    return "float32"


def joined(call: Operation) -> str:
    return call.kinds()


def divided(call: Operation) -> str:
    return promoted(call.kinds(), "float")


def divided_arrays(call: Operation) -> str:
    """Where a number of Python counts as an array of Keras's own kind."""
    numbers = (*OF_PYTHON, "bool")
    found = ("float32" if not shape and kind in numbers else kind for shape, kind in call.operands())
    return promoted(*found, "float")


def of_first_three(call: Operation) -> str:
    return promoted(*(kind for _, kind in call.inputs[:3]))


def chosen(call: Operation) -> str:
    """Of the arguments behind the first."""
    return promoted(*(kind for _, kind in call.operands()[1:]))


def fraction(call: Operation) -> str:
    return "float32" if call.dtype == "int64" else promoted(call.dtype, "float")


def inexact(call: Operation) -> str:
    return promoted(call.dtype, "float")


def real(call: Operation) -> str:
    return "float32" if "int" in call.dtype or call.dtype == "bool" else call.dtype


def counted(call: Operation) -> str:
    return "int32" if call.dtype == "bool" else call.dtype


def counted_jointly(call: Operation) -> str:
    return "int32" if call.kinds() == "bool" else call.kinds()


def accumulated(call: Operation) -> str:
    kind = call.config.get("dtype") or call.dtype
    return "int32" if kind == "bool" else str(kind)


def summed(call: Operation) -> str:
    return SUMMED.get(call.dtype, call.dtype)


def multiplied(call: Operation) -> str:
    return str(call.config.get("dtype") or summed(call))


def mean(call: Operation) -> str:
    return promoted(call.dtype, "float32") if real(call) != call.dtype else call.dtype


def given(call: Operation) -> str:
    return str(call.config.get("dtype") or call.dtype)


def product(call: Operation) -> str:
    """Of matrices; those of bytes are added up in larger numbers."""
    kinds = {kind for _, kind in call.operands()}
    return "int32" if kinds == {"int8"} else call.kinds()
