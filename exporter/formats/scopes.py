"""Where each layer is in the hierarchy that graph viewers open and close, as a path of names from the outside in.

Nested models are in the path, and so are the blocks of repeated structure that pictures fold: the 22 equal blocks
after `conv4_block1` of ResNet101 are `conv4_block2..conv4_block23 x22`, each in a scope of its own below that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.formats.blocks import Folder
from exporter.formats.levels import Hierarchy
from exporter.formats.repetition import Block, Node, Part, shared_name
from exporter.formats.sketch import rows_of
from exporter.records import Layer, ModelGraph

Scope = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """What a scope stands for: a nested model or a layer with sublayers (`layer`), or `times` equal blocks."""

    layer: Layer | None = None
    times: int = 1


class Scopes:
    """`outside[namespace]` is the scope around each layer; `groups` describes scopes. Linear in the model's size."""

    def __init__(self, graph: ModelGraph) -> None:
        folder = Folder(graph)
        self.hierarchy: Hierarchy = folder.hierarchy
        self.outside: dict[str, Scope] = {}
        self.groups: dict[Scope, Group] = {}
        self._names: dict[Scope, Counter[str]] = defaultdict(Counter)
        self._reserve((), None)
        for part in folder.parts():
            self._place(part, [()])
        self._place_sublayers(graph)

    def inside(self, layer: Layer) -> Scope:
        """The scope of what a layer is made of: its sublayers, or its ONNX nodes."""
        return (*self.outside[layer.namespace], layer.name)

    def drawn(self, layer: Layer) -> Scope | None:
        """The scope in which a layer is a node; None for a nested model, which is a scope and no node."""
        if self.hierarchy.is_model(layer):
            return None
        has_inside = layer.namespace in self.hierarchy.children
        return self.inside(layer) if has_inside else self.outside[layer.namespace]

    def _place(self, part: Part, scopes: Sequence[Scope]) -> None:
        """`scopes` has the scope of each copy of the part."""
        if isinstance(part, Node):
            for row in part.rows:
                self._put(row, scopes)
            return
        scopes = self._open(part, scopes) if part.models else self._block(part, scopes)
        for inner in part.parts:
            self._place(inner, scopes)

    def _put(self, row: Sequence[Layer], scopes: Sequence[Scope]) -> None:
        for place, layer in enumerate(row):
            self.outside[layer.namespace] = scopes[place * len(scopes) // len(row)]

    def _open(self, block: Block, scopes: Sequence[Scope]) -> list[Scope]:
        """The insides of a nested model and its folded copies."""
        self._put(block.models, scopes)
        found = [self.inside(layer) for layer in block.models]
        for layer, scope in zip(block.models, found, strict=True):
            self.groups[scope] = Group(layer)
            self._reserve(scope, layer.namespace)
        return found

    def _reserve(self, scope: Scope, parent: str | None) -> None:
        """Blocks must not go by the names of the layers beside them."""
        self._names[scope].update(layer.name for layer in self.hierarchy.children.get(parent, ()))

    def _block(self, block: Block, scopes: Sequence[Scope]) -> list[Scope]:
        """The scopes of all copies of a block. A nameless block is not in the path, nor is a copy of one layer."""
        times = block.times
        names = _names(block, len(scopes) * times)
        if times == 1:
            return [self._scope(scope, name) if name else scope for scope, name in zip(scopes, names, strict=True)]
        is_one = sum(1 for _ in rows_of(block)) == 1
        found = []
        for place, scope in enumerate(scopes):
            copies = names[place * times : (place + 1) * times]
            around = self._scope(scope, _title(copies), Group(times=times))
            found += [around if is_one else self._scope(around, name or str(n)) for n, name in enumerate(copies, 1)]
        return found

    def _scope(self, around: Scope, name: str, group: Group | None = None) -> Scope:
        """A scope that no other block has."""
        taken = self._names[around]
        taken[name] += 1
        scope = (*around, name if taken[name] == 1 else f"{name} ({taken[name]})")
        if group:
            self.groups[scope] = group
        return scope

    def _place_sublayers(self, graph: ModelGraph) -> None:
        """Layers inside of layers that have no graph; the row of what is around them is before theirs."""
        for layer in graph.layers:
            if layer.namespace not in self.outside:
                parent = None if layer.parent is None else self.hierarchy.by_name.get(layer.parent)
                self.outside[layer.namespace] = self.inside(parent) if parent else ()
                if parent:
                    self.groups[self.inside(parent)] = Group(parent)


def _names(block: Block, copies: int) -> list[str]:
    """What the layers of each copy of a block are called together, empty where their names have nothing in common."""
    names: list[list[str]] = [[] for _ in range(copies)]
    for row in rows_of(block):
        for place, layer in enumerate(row):
            names[place * copies // len(row)].append(layer.name)
    return [shared_name(found) for found in names]


def _title(names: Sequence[str]) -> str:
    """`block2..block23 x22`, `x22` for blocks without names; Model Explorer's font has neither `…` nor `×`."""
    first, last = names[0], names[-1]
    return f"{first}..{last} x{len(names)}" if first and last and first != last else f"{first} x{len(names)}".lstrip()
