"""Shapes that a graph computes while it runs, as far as they are known before: constants in place of `Shape` chains.

Each number of a shape vector is a product: a factor and the names of dynamic dimensions. A `Reshape` whose target holds
one unknown number gets -1 for it; those that are the operand's own, at the same place, get 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.sources.rewriting.onnx_editor import Editor, Node

# No shape vector is longer; what is, is data.
LONGEST = 64


@dataclass(frozen=True)
class Size:
    """`factor` times the dynamic dimensions called `names`, which are sorted."""

    factor: int
    names: tuple[str, ...] = ()

    def times(self, other: Size) -> Size:
        return Size(self.factor * other.factor, tuple(sorted(self.names + other.names)))


class ShapeArithmetic:
    """Follows shapes through a graph whose nodes it is given producers first."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        # Vectors and numbers of `Size`, in arrays of objects.
        self._known: dict[str, np.ndarray] = {}

    def follow(self, node: Node) -> bool:
        """Note what the node computes; True when that is constant and the node is gone."""
        rule = RULES.get(node.op_type)
        if rule is None or node.domain or len(node.outputs) != 1:
            return False
        found = rule(self, node)
        if found is None or found.size > LONGEST:
            return False
        self._known[node.outputs[0]] = found
        if any(size.names for size in found.flat) or self.editor.is_output(node.outputs[0]):
            return False
        dtype = self.editor.dtype(node.outputs[0])
        if dtype is None or dtype.kind != "i":
            return False
        self.editor.make_constant(node, [np.array([size.factor for size in found.flat], dtype).reshape(found.shape)])
        return True

    def target(self, node: Node) -> list[int] | None:
        """What to reshape to: a vector that the graph need not compute, with at most one -1."""
        wanted = self.sizes(node.inputs[1])
        if wanted is None or wanted.ndim != 1 or node.get("allowzero", 0):
            return None
        own = self.dims(node.inputs[0]) or []
        open_places = [place for place, size in enumerate(wanted) if size.names]
        if len(open_places) > 1:
            open_places = [place for place in open_places if place >= len(own) or own[place] != wanted[place]]
        if len(open_places) > 1 or any(not size.names and size.factor < 1 for size in wanted):
            return None
        return [-1 if place in open_places else 0 if size.names else size.factor for place, size in enumerate(wanted)]

    def sizes(self, value: str) -> np.ndarray | None:
        """The numbers of a value that is a shape, or part of one."""
        constant = self.editor.constant(value)
        if isinstance(constant, np.ndarray) and constant.dtype.kind == "i" and constant.size <= LONGEST:
            return _array([Size(int(number)) for number in constant.flat], constant.shape)
        return self._known.get(value)

    def dims(self, value: str) -> list[Size] | None:
        """The shape of a value; a dimension without a name gets one."""
        dims = self.editor.dims(value)
        if dims is None:
            return None
        return [
            Size(dim) if isinstance(dim, int) else Size(1, (dim or f"{value}#{axis}",)) for axis, dim in enumerate(dims)
        ]


def _array(sizes: Sequence[Size], shape: Sequence[int]) -> np.ndarray:
    found = np.empty(len(sizes), object)
    found[:] = sizes
    return found.reshape(shape)


def _shape(known: ShapeArithmetic, node: Node) -> np.ndarray | None:
    dims = known.dims(node.inputs[0])
    if dims is None:
        return None
    dims = dims[node.get("start", 0) : node.get("end")]
    return _array(dims, [len(dims)])


def _first(known: ShapeArithmetic, node: Node) -> np.ndarray | None:
    return known.sizes(node.inputs[0])


def _gather(known: ShapeArithmetic, node: Node) -> np.ndarray | None:
    sizes, places = known.sizes(node.inputs[0]), known.editor.constant(node.inputs[1])
    if sizes is None or sizes.ndim != 1 or not isinstance(places, np.ndarray):
        return None
    return _array([sizes[int(place)] for place in places.flat], places.shape)


def _slice(known: ShapeArithmetic, node: Node) -> np.ndarray | None:
    sizes, starts, ends = known.sizes(node.inputs[0]), known.editor.numbers(node, 1), known.editor.numbers(node, 2)
    steps = known.editor.numbers(node, 4) or [1]
    if sizes is None or sizes.ndim != 1 or not starts or not ends or (len(node.inputs) > 4 and not steps):
        return None
    return sizes[starts[0] : ends[0] : steps[0]]


def _concat(known: ShapeArithmetic, node: Node) -> np.ndarray | None:
    parts = [known.sizes(name) for name in node.inputs]
    known_parts = [part for part in parts if part is not None and part.ndim == 1]
    return np.concatenate(known_parts) if len(known_parts) == len(parts) else None


def _squeeze(known: ShapeArithmetic, node: Node) -> np.ndarray | None:
    sizes = known.sizes(node.inputs[0])
    return None if sizes is None or sizes.size != 1 else sizes.reshape(())


def _unsqueeze(known: ShapeArithmetic, node: Node) -> np.ndarray | None:
    sizes, axes = known.sizes(node.inputs[0]), known.editor.numbers(node, 1)
    return None if sizes is None or sizes.ndim or not axes or len(axes) != 1 else sizes.reshape((1,))


def _multiply(known: ShapeArithmetic, node: Node) -> np.ndarray | None:
    a, b = (known.sizes(name) for name in node.inputs)
    if a is None or b is None:
        return None
    a, b = np.broadcast_arrays(a, b)
    return _array([left.times(right) for left, right in zip(a.flat, b.flat, strict=True)], a.shape)


def _product(known: ShapeArithmetic, node: Node) -> np.ndarray | None:
    sizes, axes = known.sizes(node.inputs[0]), node.get("axes") or known.editor.numbers(node, 1)
    if sizes is None or sizes.ndim != 1 or (len(node.inputs) > 1 and not axes):
        return None
    product = Size(1)
    for size in sizes:
        product = product.times(size)
    return _array([product], [1] if node.get("keepdims", 1) else [])


RULES: dict[str, Callable[[ShapeArithmetic, Node], np.ndarray | None]] = {
    "Cast": _first,
    "Concat": _concat,
    "Gather": _gather,
    "Identity": _first,
    "Mul": _multiply,
    "ReduceProd": _product,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
