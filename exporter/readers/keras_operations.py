"""The shapes and dtypes of what operations of `keras.ops` give that stand in a graph of layers.

The formulas are those of each class's `compute_output_spec` in Keras 3.15; a test compares them. Where numbers of
different kinds meet, Keras promotes them by rules that are not repeated here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_calls import TENSOR
from exporter.readers.keras_shapes import Spec
from exporter.records import Shape

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """A call: the operation's settings, its arguments with a mark for each tensor, and the tensors."""

    config: Config
    arguments: tuple[Any, ...]
    inputs: tuple[Spec, ...]

    @property
    def shape(self) -> Shape:
        return self.inputs[0][0]

    @property
    def dtype(self) -> str:
        return self.inputs[0][1]

    def axes(self, setting: str = "axis", extra: int = 0) -> list[int]:
        """As numbers from the front, of a tensor with so many more dimensions; all where none is given."""
        value, rank = self.config.get(setting), len(self.shape) + extra
        if value is None:
            return list(range(rank))
        axes = [axis + rank if axis < 0 else axis for axis in (value if isinstance(value, list) else [value])]
        if not all(0 <= axis < rank for axis in axes):
            raise Unexplained(f"an axis {value} of {rank}")
        return axes


def operation_specs(class_name: str, config: Config, arguments: Sequence[Any], inputs: Sequence[Spec]) -> list[Spec]:
    """All outputs of a call. Raises Unexplained."""
    if class_name not in SPECS or not inputs:
        raise Unexplained(f"the output of {class_name}")
    return SPECS[class_name](Operation(config, tuple(arguments), tuple(inputs)))


def operation_outputs(class_name: str, config: Config) -> int:
    """How many tensors a call gives. Raises Unexplained."""
    if class_name == "Split":
        parts = config.get("indices_or_sections")
        if not isinstance(parts, (int, list)):
            raise Unexplained("a Split into unknown parts")
        return len(parts) + 1 if isinstance(parts, list) else parts
    return 2 if class_name in ("Moments", "TopK") else 1


def _fractions(call: Operation) -> list[Spec]:
    """Of fractions it gives the same kind; of whole numbers others."""
    _require_fractions(call)
    return [call.inputs[0]]


def _require_fractions(call: Operation) -> None:
    if any("float" not in dtype for _, dtype in call.inputs):
        raise Unexplained("an operation on whole numbers")


def _elementwise(call: Operation) -> list[Spec]:
    """Of two tensors, or of one and a number, which does not change what fractions are."""
    _require_fractions(call)
    constants = [value for value in call.arguments if value != TENSOR]
    if len({dtype for _, dtype in call.inputs}) > 1 or not all(type(value) in (int, float) for value in constants):
        raise Unexplained("an operation on numbers of several kinds")
    return [(_all_broadcast(call), call.dtype)]


def _all_broadcast(call: Operation) -> Shape:
    shape = call.shape
    for other, _ in call.inputs[1:]:
        shape = _broadcast(shape, other)
    return shape


def _compared(call: Operation) -> list[Spec]:
    if not all(value == TENSOR or type(value) in (int, float, bool) for value in call.arguments):
        raise Unexplained("a comparison with an array")
    return [(_all_broadcast(call), "bool")]


def _broadcast(one: Shape, other: Shape) -> Shape:
    """Keras's `broadcast_shapes`, in which a known size wins over a dynamic one. Raises Unexplained."""
    rank = max(len(one), len(other))
    sizes: list[int | None] = []
    for a, b in zip((1,) * (rank - len(one)) + one, (1,) * (rank - len(other)) + other, strict=True):
        if a == 1:
            sizes.append(b)
        elif a is None:
            sizes.append(None if b == 1 else b)
        elif b in (1, None, a):
            sizes.append(a)
        else:
            raise Unexplained("shapes that do not fit")
    return tuple(sizes)


def _reduced(call: Operation) -> Shape:
    axes = call.axes()
    if call.config.get("keepdims"):
        return tuple(1 if place in axes else size for place, size in enumerate(call.shape))
    return tuple(size for place, size in enumerate(call.shape) if place not in axes)


def _reduction(call: Operation) -> list[Spec]:
    _require_fractions(call)
    return [(_reduced(call), call.dtype)]


def _condition(call: Operation) -> list[Spec]:
    return [(_reduced(call), "bool")]


def _index(call: Operation) -> list[Spec]:
    return [(_reduced(call), "int32")]


def _cast(call: Operation) -> list[Spec]:
    return [(call.shape, str(call.config["dtype"]))]


def _expanded(call: Operation) -> list[Spec]:
    value = call.config["axis"]
    count = len(value) if isinstance(value, list) else 1
    axes, sizes = call.axes(extra=count), iter(call.shape)
    return [(tuple(1 if place in axes else next(sizes) for place in range(len(call.shape) + count)), call.dtype)]


def _squeezed(call: Operation) -> list[Spec]:
    if call.config.get("axis") is None:
        return [(tuple(size for size in call.shape if size != 1), call.dtype)]
    axes = call.axes()
    return [(tuple(size for place, size in enumerate(call.shape) if place not in axes), call.dtype)]


def _reshaped(call: Operation) -> list[Spec]:
    target = call.config["newshape"]
    target = [target] if isinstance(target, int) else list(target)
    known = math.prod(size for size in target if size not in (-1, None))
    if None in target or target.count(-1) > 1 or not known:
        raise Unexplained("a Reshape to several unknown sizes")
    total = None if None in call.shape else math.prod(size for size in call.shape if size is not None)
    sizes = (size if size != -1 else None if total is None else total // known for size in target)
    return [(tuple(sizes), call.dtype)]


def _transposed(call: Operation) -> list[Spec]:
    axes = call.axes("axes") if call.config.get("axes") is not None else list(range(len(call.shape)))[::-1]
    return [(tuple(call.shape[axis] for axis in axes), call.dtype)]


def _swapped(call: Operation) -> list[Spec]:
    (one,), (other,) = call.axes("axis1"), call.axes("axis2")
    sizes = list(call.shape)
    sizes[one], sizes[other] = sizes[other], sizes[one]
    return [(tuple(sizes), call.dtype)]


def _one_kind(call: Operation) -> str:
    if len({dtype for _, dtype in call.inputs}) > 1:
        raise Unexplained("numbers of several kinds")
    return call.dtype


def _concatenated(call: Operation) -> list[Spec]:
    (axis,), sizes = call.axes(), list(call.shape)
    parts = [shape[axis] for shape, _ in call.inputs]
    sizes[axis] = None if None in parts else sum(size for size in parts if size is not None)
    return [(tuple(sizes), _one_kind(call))]


def _stacked(call: Operation) -> list[Spec]:
    (axis,), sizes = call.axes(extra=1), list(call.shape)
    sizes.insert(axis, len(call.inputs))
    return [(tuple(sizes), _one_kind(call))]


def _product(call: Operation) -> list[Spec]:
    """Of matrices, behind the same or broadcast leading dimensions."""
    if len(call.inputs) != 2 or min(len(shape) for shape, _ in call.inputs) < 2:
        raise Unexplained("a Matmul of vectors")
    _require_fractions(call)
    (one, _), (other, _) = call.inputs
    return [((*_broadcast(one[:-2], other[:-2]), one[-2], other[-1]), _one_kind(call))]


def _split(call: Operation) -> list[Spec]:
    (axis,), parts = call.axes(), call.config["indices_or_sections"]
    size = call.shape[axis]
    if isinstance(parts, list):
        if size is None or not parts:
            raise Unexplained("a Split of an unknown size at places")
        ends = [0, *parts, size]
        sizes: list[int | None] = [end - start for start, end in pairwise(ends)]
    else:
        sizes = [None if size is None else size // parts] * parts
    return [((*call.shape[:axis], each, *call.shape[axis + 1 :]), call.dtype) for each in sizes]


def _largest(call: Operation) -> list[Spec]:
    shape = (*call.shape[:-1], int(call.config["k"]))
    return [(shape, call.dtype), (shape, "int32")]


def _moments(call: Operation) -> list[Spec]:
    return _reduction(_with_axis(call)) * 2


def _with_axis(call: Operation) -> Operation:
    return Operation({**call.config, "axis": call.config["axes"]}, call.arguments, call.inputs)


def _item(call: Operation) -> list[Spec]:
    """Numbers, slices, `None` and an ellipsis in brackets; nothing else is in a config."""
    if len(call.arguments) != 2 or call.arguments[0] != TENSOR:
        raise Unexplained("an item that is not known")
    key = call.arguments[1]
    left = list(call.shape)
    found: list[int | None] = []
    for part in key if isinstance(key, list) else [key]:
        if part is None:
            found.append(1)
        elif isinstance(part, dict) and part.get("class_name") == "__slice__":
            found.append(_sliced(left.pop(0), part["config"]))
        elif type(part) is int:
            left.pop(0)
        else:
            raise Unexplained("an item that is not known")
    return [((*found, *left), call.dtype)]


def _sliced(size: int | None, part: Mapping[str, Any]) -> int | None:
    bounds = [part[name] for name in ("start", "stop", "step")]
    if not all(value is None or type(value) is int for value in bounds):
        raise Unexplained("a slice that is not known")
    return None if size is None else len(range(*slice(*bounds).indices(size)))


_SAME = """
    Abs Absolute Flip HardSigmoid HardSilu LeakyRelu LogSoftmax Negative OnesLike Relu Relu6 Sigmoid Silu Softmax
    Softplus Softsign Elu Selu Gelu ZerosLike
"""
_FRACTIONS = "Ceil Clip Cos Cumsum Erf Exp Expm1 Floor Log Log1p Reciprocal Round Rsqrt Sign Sin Sqrt Square Tanh"
SPECS: dict[str, Callable[[Operation], list[Spec]]] = {
    **dict.fromkeys(_SAME.split(), _fractions),
    **dict.fromkeys(_FRACTIONS.split(), _fractions),
    **dict.fromkeys(
        ("Add", "Divide", "Maximum", "Minimum", "Multiply", "Power", "Subtract", "TrueDivide"), _elementwise
    ),
    **dict.fromkeys(("Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "NotEqual"), _compared),
    **dict.fromkeys(("Logsumexp", "Max", "Mean", "Min", "Prod", "Std", "Sum", "Var"), _reduction),
    **dict.fromkeys(("All", "Any"), _condition),
    **dict.fromkeys(("Argmax", "Argmin"), _index),
    "Cast": _cast,
    "Concatenate": _concatenated,
    "ExpandDims": _expanded,
    "GetItem": _item,
    "Matmul": _product,
    "Moments": _moments,
    "Reshape": _reshaped,
    "Split": _split,
    "Squeeze": _squeezed,
    "Stack": _stacked,
    "Swapaxes": _swapped,
    "TopK": _largest,
    "Transpose": _transposed,
}
