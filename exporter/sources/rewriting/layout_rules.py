"""What becomes of an op when the axes of its operands are in another order: which ops can change, and how.

A permutation says which axis of the value is stored at each place, as `perm` of ONNX's `Transpose` does; None is the
order that the graph has. `(0, 3, 1, 2)` stores [N, H, W, C] as [N, C, H, W].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporter.sources.rewriting.onnx_editor import Editor, Node

Perm = tuple[int, ...] | None
# The order of axes that is tried for values of each rank.
Layouts = Mapping[int, tuple[int, ...]]


@dataclass
class Permuted:
    """A node in another layout: how its operands (by place) and outputs are stored, and what else changes.

    `operands` are new constants, by place. `gather` is for `Shape`: which of its numbers the graph wants, in order.
    """

    inputs: dict[int, Perm]
    outputs: tuple[Perm, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    operands: dict[int, np.ndarray] = field(default_factory=dict)
    gather: list[int] | None = None


def composed(first: Perm, second: Perm) -> Perm:
    """The one permutation that does both."""
    if first is None or second is None:
        return first if second is None else second
    return normal(tuple(first[axis] for axis in second))


def inverse(perm: Perm) -> Perm:
    return None if perm is None else tuple(perm.index(axis) for axis in range(len(perm)))


def normal(perm: Sequence[int]) -> Perm:
    return None if list(perm) == list(range(len(perm))) else tuple(perm)


def without(perm: Sequence[int], axes: Sequence[int]) -> Perm:
    """What is left of the order when axes of the value go."""
    left = [axis for axis in range(len(perm)) if axis not in axes]
    return normal([left.index(axis) for axis in perm if axis not in axes])


def permuted(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    """The node in the layout of its operands' rank, None where it needs the axes as they are."""
    rule = None if node.domain else RULES.get(node.op_type)
    return rule(editor, node, layouts) if rule else None


def _rank(editor: Editor, value: str) -> int | None:
    shape = editor.shape(value)
    return None if shape is None else len(shape)


def _main(editor: Editor, node: Node, layouts: Layouts) -> tuple[int, ...] | None:
    """The order of the axes of the first operand."""
    rank = _rank(editor, node.inputs[0])
    return None if rank is None else layouts.get(rank)


def _given(node: Node, place: int) -> bool:
    return place < len(node.inputs) and bool(node.inputs[place])


def _elementwise(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    """Operands of the full rank are permuted, constants too; a single number is the same in every layout."""
    shapes = {place: editor.shape(name) for place, name in enumerate(node.inputs) if name}
    if any(shape is None for shape in shapes.values()):
        return None
    rank = max(len(shape or ()) for shape in shapes.values())
    perm, inputs = layouts.get(rank), {}
    for place, shape in shapes.items():
        if len(shape or ()) == rank or (
            editor.constant(node.inputs[place]) is not None and any(size != 1 for size in shape or ())
        ):
            inputs[place] = perm
        elif any(size != 1 for size in shape or ()):
            return None
    return Permuted(inputs, (perm,)) if perm else None


def _along_axis(default: int, stays_last: bool = False) -> Callable[..., Permuted | None]:
    """For ops with an `axis` that they keep. Kernels for a last axis are faster: `stays_last` does not move it."""

    def rule(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
        perm = _main(editor, node, layouts)
        ranks = {_rank(editor, name) for name in node.inputs} if node.op_type == "Concat" else {len(perm or ())}
        if perm is None or ranks != {len(perm)}:
            return None
        axis = node.get("axis", default) % len(perm)
        if stays_last and axis == len(perm) - 1 != perm[-1]:
            return None
        places = range(len(node.inputs)) if node.op_type == "Concat" else [0]
        return Permuted(dict.fromkeys(places, perm), (perm,) * len(node.outputs), {"axis": perm.index(axis)})

    return rule


def _axes(editor: Editor, node: Node, rank: int) -> list[int] | None:
    """Of a reduction, a `Squeeze` or an `Unsqueeze`: an attribute in older opsets, an operand in newer ones."""
    found = node.get("axes") if "axes" in node.attributes else editor.numbers(node, 1)
    return None if found is None else [int(axis) % rank for axis in found]


def _with_axes(node: Node, axes: Sequence[int], into: Permuted) -> Permuted:
    if "axes" in node.attributes:
        into.attributes["axes"] = list(axes)
    elif _given(node, 1):
        into.operands[1] = np.array(axes, np.int64)
    return into


def _reduce(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    perm = _main(editor, node, layouts)
    if perm is None:
        return None
    axes = _axes(editor, node, len(perm))
    if axes is None and _given(node, 1):
        return None
    if not axes:
        axes = [] if node.get("noop_with_empty_axes", 0) else list(range(len(perm)))
    output = perm if node.get("keepdims", 1) else without(perm, axes)
    return _with_axes(node, sorted(perm.index(axis) for axis in axes), Permuted({0: perm}, (output,)))


def _arg_reduce(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    perm = _main(editor, node, layouts)
    if perm is None:
        return None
    axis = node.get("axis", 0) % len(perm)
    output = perm if node.get("keepdims", 1) else without(perm, [axis])
    return Permuted({0: perm}, (output,), {"axis": perm.index(axis)})


def _squeeze(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    perm = _main(editor, node, layouts)
    axes = _axes(editor, node, len(perm)) if perm else None
    if perm is None or axes is None:
        return None
    return _with_axes(node, sorted(perm.index(axis) for axis in axes), Permuted({0: perm}, (without(perm, axes),)))


def _unsqueeze(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    """The result is stored in the layout of its rank, the operand in what that is without the new axes."""
    rank = _rank(editor, node.outputs[0])
    perm = None if rank is None else layouts.get(rank)
    axes = _axes(editor, node, len(perm)) if perm else None
    if perm is None or axes is None:
        return None
    places = sorted(perm.index(axis) for axis in axes)
    return _with_axes(node, places, Permuted({0: without(perm, axes)}, (perm,)))


def _pad(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    """What is added before each axis, then behind each; from opset 18 on perhaps only for some axes."""
    perm, pads, axes = _main(editor, node, layouts), editor.numbers(node, 1), editor.numbers(node, 3)
    if perm is None:
        return None
    rank = len(perm)
    if axes is not None:
        places = [perm.index(axis % rank) for axis in axes]
        return Permuted({0: perm}, (perm,), operands={3: np.array(places, np.int64)})
    if pads is None or _given(node, 3):
        return None
    moved = [pads[axis] for axis in perm] + [pads[rank + axis] for axis in perm]
    return Permuted({0: perm}, (perm,), operands={1: np.array(moved, np.int64)})


def _slice(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    """Without axes it is along the first ones, as many as there are starts."""
    perm, axes, starts = _main(editor, node, layouts), editor.numbers(node, 3), editor.shape(node.inputs[1])
    if axes is None and not _given(node, 3) and starts and starts[0] is not None:
        axes = list(range(starts[0]))
    if perm is None or axes is None:
        return None
    places = [perm.index(axis % len(perm)) for axis in axes]
    return Permuted({0: perm}, (perm,), operands={3: np.array(places, editor.dtype(node.inputs[1]))})


def _per_axis(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    """`Tile` and `Expand`: the second operand has a number for each axis."""
    perm, counts = _main(editor, node, layouts), editor.numbers(node, 1)
    if perm is None or counts is None or len(counts) != len(perm):
        return None
    return Permuted({0: perm}, (perm,), operands={1: np.array([counts[axis] for axis in perm], np.int64)})


def _gather(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    """One index along an axis, which goes, or a list of them, which takes its place."""
    perm, indices = _main(editor, node, layouts), editor.shape(node.inputs[1])
    if perm is None or indices is None or len(indices) > 1:
        return None
    axis = node.get("axis", 0) % len(perm)
    output = perm if indices else without(perm, [axis])
    return Permuted({0: perm}, (output,), {"axis": perm.index(axis)})


def _shape(editor: Editor, node: Node, layouts: Layouts) -> Permuted | None:
    perm = _main(editor, node, layouts)
    if perm is None:
        return None
    wanted = range(len(perm))[node.get("start", 0) : node.get("end")]
    return Permuted({0: perm}, (None,), gather=[perm.index(axis) for axis in wanted])


ELEMENTWISE = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh Cast Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater
    GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul
    Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh
    ThresholdedRelu Where Xor
"""
REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
RULES: dict[str, Callable[[Editor, Node, Layouts], Permuted | None]] = {
    **dict.fromkeys(ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys((f"Reduce{name}" for name in REDUCTIONS.split()), _reduce),
    "ArgMax": _arg_reduce,
    "ArgMin": _arg_reduce,
    "Concat": _along_axis(0),
    "Expand": _per_axis,
    "Gather": _gather,
    "LogSoftmax": _along_axis(-1, stays_last=True),
    "Pad": _pad,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _along_axis(-1, stays_last=True),
    "Split": _along_axis(0),
    "Squeeze": _squeeze,
    "Tile": _per_axis,
    "TopK": _along_axis(-1, stays_last=True),
    "Unsqueeze": _unsqueeze,
}
