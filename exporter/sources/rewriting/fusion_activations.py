"""Activations that Keras spells out, as the ops that ONNX has for them."""

from __future__ import annotations

import math

import numpy as np

from exporter.sources.rewriting.onnx_editor import Editor, Node
from exporter.sources.rewriting.patterns import (
    Constant,
    Either,
    Number,
    Op,
    Value,
    find,
    is_close,
    put,
    scalar_of,
    step,
)

X = Value("x")
# Runtimes have kernels for these; in others the formula stays as it is.
FLOATS = ("float32", "float16")
# The first opsets with these ops.
HARD_SWISH_OPSET, MISH_OPSET, GELU_OPSET = 14, 18, 20

_MINUS_X_BY_ROOT = Either(
    (Op("Mul", Op("Neg", X), math.sqrt(0.5)), Op("Neg", Op("Mul", X, math.sqrt(0.5))), Op("Mul", X, -math.sqrt(0.5)))
)
_HALF_X = Op("Mul", X, 0.5)
GELU = Op("Mul", _HALF_X, Op("Sub", Number(1), Op("Erf", _MINUS_X_BY_ROOT)))

_CUBED = Op("Mul", Op("Pow", X, 3.0), 0.044715)
_TANH = Op("Tanh", Op("Mul", Op("Add", X, _CUBED), math.sqrt(2 / math.pi)))
GELU_TANH = Op("Mul", _HALF_X, Op("Add", _TANH, 1.0))

_TOP = Constant("top")
_CLIPPED = Op("Clip", Either((Op("Add", X, 3.0, label="shifted"), X)), Number(0), _TOP)
HARD_SIGMOID = Op("Mul", _CLIPPED, Constant("slope"))
HARD_SWISH = Op("Mul", X, Op("HardSigmoid", X, label="gate"))
MISH = Op("Mul", X, Op("Tanh", Op("Softplus", X)))


def _applies(editor: Editor, root: Node, value: str) -> bool:
    """Whether runtimes have a kernel for the dtype, and the constants of the formula do not add axes to the value."""
    shapes = [editor.shape(name) for name in (value, root.outputs[0])]
    same_rank = None not in shapes and len(shapes[0] or ()) == len(shapes[1] or ())
    return same_rank and str(editor.dtype(value)) in FLOATS


def fuse_gelu(editor: Editor, root: Node, opset: int) -> bool:
    """`x/2 · erfc(-x/√2)`, traced as `x/2 · (1 - erf(-x/√2))`, is `Gelu`: `x/2 · (1 + erf(x/√2))`.

    Before opset 20 the second formula is written in the order in which ONNX Runtime looks for it, and one op shorter.
    """
    match = find(editor, GELU, root)
    if match is None or not _applies(editor, root, match.values["x"]):
        return False
    x = match.values["x"]
    if opset >= GELU_OPSET:
        put(editor, root, "Gelu", [x])
        return True
    root_two, one, half = (_scalar(editor, root, x, number) for number in (math.sqrt(2), 1.0, 0.5))
    erf = step(editor, "Erf", [step(editor, "Div", [x, root_two], root, x)], root, x)
    product = step(editor, "Mul", [x, step(editor, "Add", [erf, one], root, x)], root, x)
    put(editor, root, "Mul", [product, half])
    return True


def fuse_gelu_tanh(editor: Editor, root: Node, opset: int) -> bool:
    """`x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))` is `Gelu(approximate=tanh)`."""
    match = find(editor, GELU_TANH, root) if opset >= GELU_OPSET else None
    if match is None or not _applies(editor, root, match.values["x"]):
        return False
    put(editor, root, "Gelu", [match.values["x"]], approximate="tanh")
    return True


def fuse_hard_sigmoid(editor: Editor, root: Node, opset: int) -> bool:
    """`min(max(x + 3, 0), 6) / 6` is `HardSigmoid(1/6, 1/2)`; without the 3, which a bias may have taken in, with 0.

    Any bound will do, if what is clipped to it is divided by it.
    """
    match = find(editor, HARD_SIGMOID, root)
    if match is None or not _applies(editor, root, match.values["x"]):
        return False
    top, slope = (scalar_of(editor, match.values[name]) for name in ("top", "slope"))
    if top is None or slope is None or float(top) <= 0 or not is_close(slope, 1 / float(top)):
        return False
    shift = 3.0 / float(top) if "shifted" in match.labelled else 0.0
    put(editor, root, "HardSigmoid", [match.values["x"]], alpha=float(slope), beta=shift)
    return True


def fuse_hard_swish(editor: Editor, root: Node, opset: int) -> bool:
    """`x · hard_sigmoid(x)` is `HardSwish`, whose slope and shift are ⅙ and ½."""
    match = find(editor, HARD_SWISH, root) if opset >= HARD_SWISH_OPSET else None
    if match is None:
        return False
    gate = match.labelled["gate"]
    settings = [np.float32(gate.get(name, default)) for name, default in (("alpha", 0.2), ("beta", 0.5))]
    if not (is_close(settings[0], 1 / 6) and is_close(settings[1], 0.5)):
        return False
    put(editor, root, "HardSwish", [match.values["x"]])
    return True


def fuse_mish(editor: Editor, root: Node, opset: int) -> bool:
    """`x · tanh(softplus(x))` is `Mish`."""
    match = find(editor, MISH, root) if opset >= MISH_OPSET else None
    if match is None or not _applies(editor, root, match.values["x"]):
        return False
    put(editor, root, "Mish", [match.values["x"]])
    return True


def _scalar(editor: Editor, like: Node, value: str, number: float) -> str:
    return editor.add_constant(np.array(number, editor.dtype(value)), f"{like.name}/{number:.6g}")
