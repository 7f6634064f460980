"""Computes what only depends on constants, lazily where those are weights.

`FOLDERS` has, for each op that occurs between weights in converted Keras models, what it does in NumPy; on lazy arrays
NumPy's protocols compose functions. A fold that would make the file larger is left to the runtime: that of the cast
behind a quantised kernel, of an `Expand`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from exporter.lazy import LazyArray
from exporter.sources.conversion.precision import value_grows
from exporter.sources.rewriting.onnx_editor import Constant, Editor, Node

# (node, its operands, None for one that is left out) → its outputs, None when the fold is not known after all.
Folder = Callable[[Node, Sequence[Any]], "list[Any] | None"]

# Ops whose operands behind the first are shapes, axes or places, which have to be read; weights are not.
PARAMETERS = """
    Expand Gather ReduceMax ReduceMin ReduceProd ReduceSum Reshape Slice Split Squeeze Unsqueeze
"""
PARAMETRIC = frozenset(PARAMETERS.split())


def fold_constants(editor: Editor) -> None:
    """All that is known before any shape is."""
    for node in editor.nodes():
        fold(editor, node)


def fold(editor: Editor, node: Node) -> bool:
    """Replace the node by its values when they are known; those that outputs of the model promise stay nodes."""
    folder = FOLDERS.get(node.op_type)
    if folder is None or node.domain or any(map(editor.is_output, node.outputs)):
        return False
    operands = [editor.constant(name) if name else None for name in node.inputs]
    if any(name and operand is None for name, operand in zip(node.inputs, operands, strict=True)):
        return False
    known = [operand for operand in operands if operand is not None]
    if node.op_type in PARAMETRIC and any(isinstance(operand, LazyArray) for operand in operands[1:]):
        return False
    values = folder(node, operands)
    if values is None or len(values) != len(node.outputs) or _grows(values, known):
        return False
    editor.make_constant(node, values)
    return True


def _grows(values: Sequence[Constant], operands: Sequence[Constant]) -> bool:
    return bool(operands) and any(value_grows(value, operands) for value in values)


def whole_numbers(operand: Constant | None) -> list[int] | None:
    """The elements of a small constant; None for a weight, which is not read for this."""
    return [int(number) for number in operand.reshape(-1)] if isinstance(operand, np.ndarray) else None


def _elementwise(function: Callable[..., Any]) -> Folder:
    return lambda node, operands: [_as_array(function(*operands), operands[0].dtype)]


def _comparing(function: Callable[..., Any]) -> Folder:
    return lambda node, operands: [_as_array(function(*operands), np.dtype(bool))]


def _as_array(value: Any, dtype: np.dtype) -> Constant:
    """NumPy makes a number of an array without axes, and sometimes a wider type."""
    return value.astype(dtype) if isinstance(value, LazyArray) else np.asarray(value, dtype)


def _divide(a: Any, b: Any) -> Any:
    """ONNX rounds whole numbers to zero."""
    return np.trunc(np.true_divide(a, b)) if np.issubdtype(a.dtype, np.integer) else np.true_divide(a, b)


def _constant(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    if "value" in node.attributes:
        return [numpy_helper.to_array(node.get("value"))]
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    found = [(name, kind) for name, kind in kinds.items() if name in node.attributes]
    return [np.asarray(node.get(name), kind) for name, kind in found] or None


def _cast(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    dtype = helper.tensor_dtype_to_np_dtype(node.get("to"))
    return None if object in (dtype, operands[0].dtype) else [operands[0].astype(dtype)]


def _transpose(node: Node, operands: Sequence[Any]) -> list[Any]:
    return [operands[0].transpose(node.get("perm", list(reversed(range(len(operands[0].shape))))))]


def _reshape(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    array, target = operands[0], whole_numbers(operands[1])
    if target is None or node.get("allowzero", 0):
        return None
    return [array.reshape([array.shape[axis] if size == 0 else size for axis, size in enumerate(target)])]


def _squeeze(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    axes = whole_numbers(operands[1]) if len(operands) > 1 else None
    return [np.squeeze(operands[0], None if axes is None else tuple(axes))]


def _unsqueeze(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    axes = whole_numbers(operands[1])
    return None if axes is None else [np.expand_dims(operands[0], tuple(axes))]


def _concat(node: Node, operands: Sequence[Any]) -> list[Any]:
    return [np.concatenate(list(operands), node.get("axis"))]


def _split(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    sizes = whole_numbers(operands[1]) if len(operands) > 1 else None
    where = len(node.outputs) if sizes is None else list(np.cumsum(sizes)[:-1])
    axis = node.get("axis", 0)
    if sizes is None and operands[0].shape[axis] % len(node.outputs):
        return None
    return list(np.split(operands[0], where, axis))


def _gather(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    if not all(isinstance(operand, np.ndarray) for operand in operands):
        return None
    return [np.asarray(np.take(operands[0], operands[1], node.get("axis", 0)))]


def _slice(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    array, (starts, ends, *rest) = operands[0], map(whole_numbers, operands[1:])
    if starts is None or ends is None:
        return None
    axes = rest[0] if rest and rest[0] is not None else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 and rest[1] is not None else [1] * len(starts)
    if any(step < 0 for step in steps):
        return None
    key = [slice(None)] * len(array.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        key[axis] = slice(start, end, step)
    return [array[tuple(key)]]


def _expand(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    target = whole_numbers(operands[1])
    if target is None or not isinstance(operands[0], np.ndarray):
        return None
    return [np.broadcast_to(operands[0], np.broadcast_shapes(operands[0].shape, target))]


def _constant_of_shape(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    target = whole_numbers(operands[0])
    value = numpy_helper.to_array(node.get("value")) if "value" in node.attributes else np.zeros(1, np.float32)
    return None if target is None else [np.broadcast_to(value.reshape(-1)[:1].reshape([1] * len(target)), target)]


def _range(node: Node, operands: Sequence[Any]) -> list[Any] | None:
    if not all(isinstance(operand, np.ndarray) for operand in operands):
        return None
    return [np.arange(*(operand.item() for operand in operands), dtype=operands[0].dtype)]


def _reduce(function: Callable[..., Any]) -> Folder:
    def folder(node: Node, operands: Sequence[Any]) -> list[Any] | None:
        axes = node.get("axes") or (whole_numbers(operands[1]) if len(operands) > 1 else None)
        if not isinstance(operands[0], np.ndarray) or (not axes and node.get("noop_with_empty_axes", 0)):
            return None
        found = function(operands[0], tuple(axes) if axes else None, keepdims=bool(node.get("keepdims", 1)))
        return [_as_array(found, operands[0].dtype)]

    return folder


FOLDERS: dict[str, Folder] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _comparing(np.logical_and),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_divide),
    "Equal": _comparing(np.equal),
    "Exp": _elementwise(np.exp),
    "Expand": _expand,
    "Gather": _gather,
    "Greater": _comparing(np.greater),
    "Less": _comparing(np.less),
    "Log": _elementwise(np.log),
    "Max": _elementwise(lambda *arrays: _folded_pairs(np.maximum, arrays)),
    "Min": _elementwise(lambda *arrays: _folded_pairs(np.minimum, arrays)),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _comparing(np.logical_not),
    "Or": _comparing(np.logical_or),
    "Pow": _elementwise(np.power),
    "Range": _range,
    "Reciprocal": _elementwise(lambda array: np.true_divide(array.dtype.type(1), array)),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Reshape": _reshape,
    "Shape": lambda node, operands: [np.array(operands[0].shape[node.get("start", 0) : node.get("end")], np.int64)],
    "Size": lambda node, operands: [np.array(np.prod(operands[0].shape, dtype=np.int64))],
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": lambda node, operands: [_where(*operands)] if _all_read(operands) else None,
}


def _folded_pairs(function: Callable[..., Any], arrays: Sequence[Any]) -> Any:
    first, *rest = arrays
    for array in rest:
        first = function(first, array)
    return first


def _all_read(operands: Sequence[Any]) -> bool:
    return all(isinstance(operand, np.ndarray) for operand in operands)


def _where(condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(condition, a, b), a.dtype)
