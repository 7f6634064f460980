"""Index and shape arithmetic that ONNX's ops do not need."""

from __future__ import annotations

import math

import numpy as np

from exporter.sources.rewriting.onnx_editor import Editor, Node
from exporter.sources.rewriting.patterns import Constant, Either, Op, Value, discard, find, is_unused, scalar_of

_INDEX = Value("index")
_WRAPPED = Op("Where", Op("Less", Either((Op("Cast", _INDEX), _INDEX)), 0), Op("Add", _INDEX, Constant("size")), _INDEX)


def remove_idle_reshape(editor: Editor, node: Node, opset: int) -> bool:
    """A `Reshape` to the shape that the value has; at most one dimension may be unknown, on both sides."""
    before, wanted = editor.shape(node.inputs[0]), _constant_shape(editor, node)
    if before is None or wanted is None or len(wanted) != len(before) or before.count(None) > 1:
        return False
    same = all(size in (0, -1) or size == known for size, known in zip(wanted, before, strict=True))
    return same and editor.bypass(node, node.inputs[0])


def keep_batch(editor: Editor, node: Node, opset: int) -> bool:
    """A `Reshape` to `[-1, a, b]` whose other sizes match leaves the first dimension alone: `[0, a, b]` says so.

    Behind a -1 the dimension has no name any more, and runtimes cannot tell that two values have the same batch.
    """
    before, wanted = editor.shape(node.inputs[0]), _constant_shape(editor, node)
    if not before or not wanted or wanted[0] != -1 or 0 in wanted[1:] or None in before[1:]:
        return False
    if math.prod(size or 0 for size in before[1:]) != math.prod(wanted[1:]) or not all(wanted):
        return False
    shape = np.array([0, *wanted[1:]], np.int64)
    editor.set_inputs(node, [node.inputs[0], editor.add_constant(shape, node.inputs[1])])
    return True


def _constant_shape(editor: Editor, reshape: Node) -> list[int] | None:
    wanted = editor.constant(reshape.inputs[1])
    if not isinstance(wanted, np.ndarray) or reshape.get("allowzero"):
        return None
    return [int(size) for size in wanted]


def use_negative_indices(editor: Editor, gather: Node, opset: int) -> bool:
    """`where(i < 0, i + n, i)`, Keras's way to count indices from the end, is what `Gather` does by itself."""
    wrapping = editor.producer(gather.inputs[1])
    match = find(editor, _WRAPPED, wrapping) if wrapping is not None and wrapping.op_type == "Where" else None
    if wrapping is None or match is None:
        return False
    data, size = editor.shape(gather.inputs[0]), scalar_of(editor, match.values["size"])
    if data is None or size is None or data[gather.get("axis", 0)] != size:
        return False
    if editor.shape(gather.inputs[1]) != editor.shape(match.values["index"]):
        return False
    editor.set_inputs(gather, [gather.inputs[0], match.values["index"]])
    if is_unused(editor, wrapping):
        discard(editor, wrapping)
    return True
