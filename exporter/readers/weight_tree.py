"""Tensors alone as a catalogue: the names of the groups that they are in make the rows.

A row is a group with what is right in it; groups that only hold groups are rows of class `Scope`, as they are for ONNX
files. Nothing says what the layers compute, how they are connected, or what is trained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from exporter.lazy import LazyArray
from exporter.readers.described import DescribedModel
from exporter.records import Layer, ModelGraph, Weight
from exporter.sources.graphs.name_scopes import DEEPEST
from exporter.unique_names import Names

HOLDS_TENSORS, HOLDS_GROUPS = "Weights", "Scope"
DIGITS = re.compile(r"(\d+)")

# A group: what tells it from its siblings, and what it is called.
Part = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a file: its unique name, the groups that it is in from the outside in, and its unread value."""

    name: str
    groups: tuple[Part, ...]
    value: LazyArray
    nbytes: int


@dataclass(slots=True)
class Group:
    name: str
    depth: int
    children: dict[str, Group] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)


def described(name: str, tensors: Iterable[Tensor], weights: str, notes: tuple[str, ...] = ()) -> DescribedModel:
    """The catalogue; `weights` says where the values come from. Rows are in the order in which groups are met."""
    root = _tree(tensors)
    names = Names()
    layers: list[Layer] = []
    kept: list[Weight] = []
    values: dict[str, LazyArray] = {}
    totals = _totals(root)
    for group, namespace, parent in _rows(root, names):
        layers.append(_row(len(layers), group, namespace, parent, totals[id(group)]))
        for tensor in group.tensors:
            shape, dtype = tensor.value.shape, tensor.value.dtype.name
            kept.append(Weight(tensor.name, namespace, shape, dtype, tensor.nbytes, False))
            values[tensor.name] = tensor.value.named(tensor.name)
    graph = ModelGraph(name, (), (), tuple(layers), (), tuple(kept), level="tensor")
    return DescribedModel(graph, weights, values, notes)


def natural(text: str) -> tuple[tuple[bool, int, str], ...]:
    """A key that sorts `layer_2` before `layer_10`."""
    parts = DIGITS.split(text)
    return tuple((bool(n % 2), int(part) if n % 2 else 0, part) for n, part in enumerate(parts))


def _tree(tensors: Iterable[Tensor]) -> Group:
    root = Group("", -1)
    for tensor in tensors:
        group = root
        for key, name in _limited(tensor.groups):
            if key not in group.children:
                group.children[key] = Group(name, group.depth + 1)
            group = group.children[key]
        group.tensors.append(tensor)
    return root


def _limited(groups: tuple[Part, ...]) -> tuple[Part, ...]:
    if len(groups) <= DEEPEST:
        return groups
    rest = groups[DEEPEST - 1 :]
    return (*groups[: DEEPEST - 1], ("/".join(key for key, _ in rest), ".".join(name for _, name in rest)))


def _depth_first(root: Group) -> Iterator[Group]:
    stack = [root]
    while stack:
        group = stack.pop()
        yield group
        stack.extend(reversed(group.children.values()))


def _totals(root: Group) -> dict[int, int]:
    """Elements of what is in each group, and in the groups inside, by its `id`."""
    totals: dict[int, int] = {}
    for group in reversed(list(_depth_first(root))):
        own = sum(math.prod(tensor.value.shape) for tensor in group.tensors)
        totals[id(group)] = own + sum(totals[id(child)] for child in group.children.values())
    return totals


def _rows(root: Group, names: Names) -> Iterator[tuple[Group, str, str | None]]:
    """Each group with its namespace and its parent's; the root has a row when it holds tensors itself."""
    if root.tensors:
        yield root, names.unique(""), None
    stack: list[tuple[Group, str | None]] = [(child, None) for child in reversed(root.children.values())]
    while stack:
        group, parent = stack.pop()
        namespace = names.unique(group.name if parent is None else f"{parent}/{group.name}")
        yield group, namespace, parent
        stack.extend((child, namespace) for child in reversed(group.children.values()))


def _row(index: int, group: Group, namespace: str, parent: str | None, total: int) -> Layer:
    return Layer(
        index=index,
        name=group.name,
        class_name=HOLDS_TENSORS if group.tensors else HOLDS_GROUPS,
        namespace=namespace,
        depth=max(group.depth, 0),
        parent=parent,
        trainable=False,
        inputs=None,
        outputs=None,
        params=sum(math.prod(tensor.value.shape) for tensor in group.tensors),
        params_trainable=0,
        params_total=total,
        weight_bytes=sum(tensor.nbytes for tensor in group.tensors),
        calls=0,
        connected_to=(),
        config="{}",
    )
