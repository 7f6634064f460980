"""Arithmetic written down as a pattern and found in a graph: `Op("Mul", X, Op("Sigmoid", X))`.

A pattern is matched from the value that it computes upwards to its inputs. A name that occurs twice stands for one
value. Addition and multiplication match in either order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from exporter.sources.rewriting.onnx_editor import Editor, Node

COMMUTATIVE = ("Add", "Mul")
# How far a number in the graph may be from the one in a pattern: both were rounded to the dtype of the graph.
ROUNDING_STEPS = 2


@dataclass(frozen=True)
class Match:
    """What the names of a pattern stand for (`values`), its labelled nodes, and all of its nodes."""

    values: Mapping[str, str] = field(default_factory=dict)
    labelled: Mapping[str, Node] = field(default_factory=dict)
    nodes: frozenset[Node] = frozenset()


@dataclass(frozen=True)
class Value:
    """Any value, the same wherever the name occurs."""

    name: str

    def find(self, editor: Editor, value: str, found: Match) -> Iterator[Match]:
        if found.values.get(self.name, value) == value:
            yield replace(found, values={**found.values, self.name: value})


@dataclass(frozen=True)
class Constant(Value):
    """A value that is known without the inputs of the model."""

    def find(self, editor: Editor, value: str, found: Match) -> Iterator[Match]:
        if editor.constant(value) is not None:
            yield from super().find(editor, value, found)


@dataclass(frozen=True)
class Number:
    """A constant of one element, equal to the number in the precision of the graph."""

    number: float

    def find(self, editor: Editor, value: str, found: Match) -> Iterator[Match]:
        scalar = scalar_of(editor, value)
        if scalar is not None and is_close(scalar, self.number):
            yield found


class Op:
    """A node of the type with these inputs. Those that the pattern does not mention must be constants."""

    def __init__(self, op_type: str, *inputs: Any, label: str = "") -> None:
        self.op_type, self.label = op_type, label
        self.inputs = [Number(given) if isinstance(given, (int, float)) else given for given in inputs]

    def find(self, editor: Editor, value: str, found: Match) -> Iterator[Match]:
        node = editor.producer(value)
        if node is None or node.op_type != self.op_type or node.domain or len(node.inputs) < len(self.inputs):
            return
        if any(editor.constant(name) is None for name in node.inputs[len(self.inputs) :] if name):
            return
        labelled = {**found.labelled, self.label: node} if self.label else found.labelled
        found = replace(found, labelled=labelled, nodes=found.nodes | {node})
        orders = [self.inputs, self.inputs[::-1]] if self.op_type in COMMUTATIVE else [self.inputs]
        for patterns in orders:
            yield from _find_all(editor, patterns, node.inputs, found)


def _find_all(editor: Editor, patterns: Sequence[Any], values: Sequence[str], found: Match) -> Iterator[Match]:
    if not patterns:
        yield found
        return
    for match in patterns[0].find(editor, values[0], found):
        yield from _find_all(editor, patterns[1:], values[1:], match)


@dataclass(frozen=True)
class Either:
    """Any of several ways to write the same."""

    patterns: tuple[Any, ...]

    def find(self, editor: Editor, value: str, found: Match) -> Iterator[Match]:
        for pattern in self.patterns:
            yield from pattern.find(editor, value, found)


def find(editor: Editor, pattern: Any, root: Node) -> Match | None:
    """The first match whose result is the root's output and whose inner values nobody else uses."""
    for match in pattern.find(editor, root.outputs[0], Match()):
        if all(_is_private(editor, node, match) for node in match.nodes if node is not root):
            return match
    return None


def _is_private(editor: Editor, node: Node, match: Match) -> bool:
    return not any(
        name in editor.outputs or any(consumer not in match.nodes for consumer in editor.consumers(name))
        for name in node.outputs
    )


def scalar_of(editor: Editor, value: str) -> np.generic | None:
    """The constant's only element; None for what is no constant or is a weight."""
    constant = editor.constant(value)
    return constant.reshape(-1)[0] if isinstance(constant, np.ndarray) and constant.size == 1 else None


def is_close(scalar: np.generic, number: float) -> bool:
    """Whether the scalar is the number, in the scalar's precision."""
    if not np.issubdtype(scalar.dtype, np.floating):
        return bool(scalar == number)
    step = abs(np.spacing(np.asarray(number, scalar.dtype)))
    return bool(abs(scalar - np.asarray(number, scalar.dtype)) <= ROUNDING_STEPS * step)


def put(editor: Editor, root: Node, op_type: str, inputs: Sequence[str], **attributes: Any) -> Node:
    """A node that makes the root's output in its place; what only the root needed is gone afterwards."""
    node = editor.add_node(op_type, inputs, like=root, outputs=root.outputs, **attributes)
    discard(editor, root)
    return node


def discard(editor: Editor, node: Node) -> None:
    """Remove a node, and its producers as far as nobody else uses them."""
    stack = [node]
    while stack:
        node = stack.pop()
        producers = [producer for name in node.inputs if name and (producer := editor.producer(name)) is not None]
        editor.remove(node)
        stack.extend(producer for producer in dict.fromkeys(producers) if is_unused(editor, producer))


def is_unused(editor: Editor, node: Node) -> bool:
    """Whether no node and no output of the model needs it."""
    return not any(name in editor.outputs or editor.consumers(name) for name in node.outputs if name)


def step(editor: Editor, op_type: str, inputs: Sequence[str], like: Node, shape_of: str, **attributes: Any) -> str:
    """A new node with one output of the type and shape of `shape_of`; returns that output."""
    output = editor.add_node(op_type, inputs, like=like, **attributes).outputs[0]
    dtype = editor.dtype(shape_of)
    if dtype is not None:
        editor.set_type(output, dtype, editor.shape(shape_of))
    return output


def reduced_axes(editor: Editor, reduction: Node) -> list[int]:
    """The axes that a mean is taken over, counted from the front; empty when they are unknown."""
    shape = editor.shape(reduction.inputs[0])
    # An input from opset 18 on.
    given = editor.constant(reduction.inputs[1]) if len(reduction.inputs) > 1 else reduction.get("axes")
    if shape is None or given is None:
        return []
    return sorted(int(axis) % len(shape) for axis in np.asarray(given).reshape(-1))
