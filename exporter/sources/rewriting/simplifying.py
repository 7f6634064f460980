"""One sweep over a graph, producers first, that leaves out what does nothing.

What is constant is computed, ops without effect go, chains of casts, transposes and reshapes become one op, and of
nodes that compute the same thing one stays. When a node's turn comes, all before it is as simple as it gets, so that
one sweep does what repeated passes would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, helper

from exporter.lazy import LazyArray
from exporter.sources.rewriting.constant_folding import fold
from exporter.sources.rewriting.onnx_editor import Editor, Node
from exporter.sources.rewriting.shape_arithmetic import ShapeArithmetic

# Ops that give another value each time.
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
# Ops that keep the elements and their order, and change the shape.
RESHAPING = {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
# Constants of more bytes are the same only when they are the same lazy array.
COMPARED_NBYTES = 4096


def simplify(editor: Editor) -> None:
    """In place, in time proportional to the graph. Values that the model promises keep their names."""
    sweep = _Sweep(editor)
    for node in editor.nodes():
        sweep.visit(node)
    editor.prune()


class _Sweep:
    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.shapes = ShapeArithmetic(editor)
        self._first_of: dict[Any, list[Node]] = {}
        self._constants: dict[Any, str] = {}
        self._constant_names: dict[str, str] = {}

    def visit(self, node: Node) -> None:
        editor = self.editor
        inputs = tuple(map(self._shared, node.inputs))
        if inputs != node.inputs:
            editor.set_inputs(node, inputs)
        if fold(editor, node) or self.shapes.follow(node):
            return
        rule = None if node.domain else RULES.get(node.op_type)
        if rule is None or not rule(self, node):
            self._merge(node)

    def _shared(self, name: str) -> str:
        """The name of the first constant that has the same value."""
        value = self.editor.constant(name)
        if value is None:
            return name
        if name not in self._constant_names:
            key: Any = (value.dtype, value.shape)
            if isinstance(value, LazyArray):
                key = (*key, type(value), getattr(value, "casts", ()), value.content)
            else:
                key = (*key, value.tobytes() if value.nbytes <= COMPARED_NBYTES else id(value))
            self._constant_names[name] = self._constants.setdefault(key, name)
        return self._constant_names[name]

    def _merge(self, node: Node) -> None:
        """Let an earlier node that computes the same stand for this one."""
        if node.op_type in RANDOM or any(map(_is_graph, node.attributes.values())):
            return
        candidates = self._first_of.setdefault((node.domain, node.op_type, node.inputs, len(node.outputs)), [])
        same = next((other for other in candidates if _settings(other) == _settings(node)), None)
        if same is None:
            candidates.append(node)
        elif len(node.outputs) == 1:
            self.editor.bypass(node, same.outputs[0])
        elif not any(map(self.editor.is_output, node.outputs)):
            self.editor.remove(node)
            for old, new in zip(node.outputs, same.outputs, strict=True):
                if old:
                    self.editor.replace_uses(old, new)


def _is_graph(attribute: AttributeProto) -> bool:
    return attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def _settings(node: Node) -> list[bytes]:
    return [node.attributes[name].SerializeToString(deterministic=True) for name in sorted(node.attributes)]


def _drop(sweep: _Sweep, node: Node) -> bool:
    return sweep.editor.bypass(node, node.inputs[0])


def _cast(sweep: _Sweep, node: Node) -> bool:
    """A cast that loses nothing need not be done before another."""
    editor = sweep.editor
    inner = editor.producer(node.inputs[0])
    if inner is not None and inner.op_type == "Cast" and not inner.domain:
        source, between = editor.dtype(inner.inputs[0]), helper.tensor_dtype_to_np_dtype(inner.get("to"))
        if source is not None and np.can_cast(source, between, "safe"):
            editor.set_inputs(node, inner.inputs)
    same = editor.dtype(node.inputs[0]) == helper.tensor_dtype_to_np_dtype(node.get("to"))
    return same and _drop(sweep, node)


def _transpose(sweep: _Sweep, node: Node) -> bool:
    editor = sweep.editor
    inner, shape = editor.producer(node.inputs[0]), editor.shape(node.inputs[0])
    if "perm" not in node.attributes and shape is not None:
        node.set("perm", list(reversed(range(len(shape)))))
    perm = node.get("perm")
    if perm is None:
        return False
    if inner is not None and inner.op_type == "Transpose" and inner.get("perm"):
        perm = [inner.get("perm")[axis] for axis in perm]
        editor.set_inputs(node, inner.inputs)
        node.set("perm", perm)
    return perm == list(range(len(perm))) and _drop(sweep, node)


def _reshape(sweep: _Sweep, node: Node) -> bool:
    target = sweep.shapes.target(node)
    if target is not None and sweep.editor.numbers(node, 1) is None:
        name = sweep.editor.add_constant(np.array(target, np.int64), f"{node.name}/shape")
        sweep.editor.set_inputs(node, [node.inputs[0], name])
        dtype = sweep.editor.dtype(node.inputs[0])
        if sweep.editor.shape(node.outputs[0]) is None and dtype is not None:
            sweep.editor.set_type(node.outputs[0], dtype, [size if size > 0 else None for size in target])
    return _reshaping(sweep, node)


def _reshaping(sweep: _Sweep, node: Node) -> bool:
    """A chain that ends with the shape that it began with goes, any other becomes a single `Reshape` where it can."""
    editor = sweep.editor
    inner = editor.producer(node.inputs[0])
    chained = inner is not None and inner.op_type in RESHAPING and not inner.domain
    source = inner.inputs[0] if inner is not None and chained else node.inputs[0]
    if _same_shape(editor.dims(source), editor.dims(node.outputs[0])) and editor.bypass(node, source):
        return True
    target = _fixed_target(editor.shape(node.outputs[0]))
    if chained and target is not None:
        node.op_type = "Reshape"
        node.attributes.clear()
        editor.set_inputs(node, [source, editor.add_constant(np.array(target, np.int64), f"{node.name}/shape")])
    return False


def _same_shape(a: Sequence[int | str | None] | None, b: Sequence[int | str | None] | None) -> bool:
    """Also with one unknown dimension, because both have the same number of elements."""
    if a is None or b is None or len(a) != len(b):
        return False
    unknown = [pair for pair in zip(a, b, strict=True) if pair[0] != pair[1] or pair[0] is None]
    if any(isinstance(x, int) and isinstance(y, int) for x, y in unknown) or 0 in a:
        return False
    return len(unknown) <= 1


def _fixed_target(shape: Sequence[int | None] | None) -> list[int] | None:
    if shape is None or 0 in shape or sum(size is None for size in shape) > 1:
        return None
    return [-1 if size is None else size for size in shape]


def _neutral(element: float, places: Sequence[int]) -> Callable[[_Sweep, Node], bool]:
    """For an op that does nothing when its operand at one of the places is a number of that value."""

    def rule(sweep: _Sweep, node: Node) -> bool:
        for place in places:
            constant = sweep.editor.constant(node.inputs[place])
            if isinstance(constant, np.ndarray) and constant.shape == () and constant == element:
                return sweep.editor.bypass(node, node.inputs[1 - place])
        return False

    return rule


def _single(sweep: _Sweep, node: Node) -> bool:
    return len(node.inputs) == 1 and _drop(sweep, node)


def _filled_with(element: float, place: int) -> Callable[[_Sweep, Node], bool]:
    """For an op that does nothing when all numbers at a place are the same one."""

    def rule(sweep: _Sweep, node: Node) -> bool:
        found = sweep.editor.numbers(node, place)
        return bool(found) and all(number == element for number in found or ()) and _drop(sweep, node)

    return rule


def _expand(sweep: _Sweep, node: Node) -> bool:
    target, shape = sweep.editor.numbers(node, 1), sweep.editor.shape(node.inputs[0])
    if target is None or shape is None or len(target) > len(shape):
        return False
    pairs = zip(target, shape[len(shape) - len(target) :], strict=True)
    return all(wanted in (1, size) for wanted, size in pairs) and _drop(sweep, node)


def _slice(sweep: _Sweep, node: Node) -> bool:
    """Of everything."""
    starts, ends, steps = (sweep.editor.numbers(node, place) for place in (1, 2, 4))
    axes, shape = sweep.editor.numbers(node, 3), sweep.editor.shape(node.inputs[0])
    if not starts or not ends or any(starts) or any(step != 1 for step in steps or ()):
        return False
    sizes = [shape[axis] if shape else None for axis in axes or range(len(ends))]
    # Unknown sizes are below the largest number of 32 bits, which stands for the end.
    limits = [np.iinfo(np.int32).max if size is None else size for size in sizes]
    return all(end >= limit for end, limit in zip(ends, limits, strict=True)) and _drop(sweep, node)


RULES: dict[str, Callable[[_Sweep, Node], bool]] = {
    "Add": _neutral(0, (0, 1)),
    "Cast": _cast,
    "Concat": _single,
    "Div": _neutral(1, (1,)),
    "Expand": _expand,
    "Flatten": _reshaping,
    "Identity": _drop,
    "Max": _single,
    "Mean": _single,
    "Min": _single,
    "Mul": _neutral(1, (0, 1)),
    "Pad": _filled_with(0, 1),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _reshaping,
    "Sub": _neutral(0, (1,)),
    "Sum": _single,
    "Tile": _filled_with(1, 1),
    "Transpose": _transpose,
    "Unsqueeze": _reshaping,
}
