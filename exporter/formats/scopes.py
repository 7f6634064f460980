"""Where each layer is in the hierarchy that graph viewers open and close, as a path of names from the outside in.

Nested models are in the path, and so are the blocks of repeated structure that pictures fold: the 22 equal blocks
after `conv4_block1` of ResNet101 are `conv4_block2..conv4_block23 x22`, each in a scope of its own below that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
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
        parts = folder.parts()
        for part in parts:
            self._place(part, [()], _size(parts))
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

    def _place(self, part: Part, scopes: Sequence[Scope], size: int) -> None:
        """`scopes` has the scope of each copy of the part, `size` the number of layers in each."""
        if isinstance(part, Node):
            for row in part.rows:
                self._put(row, scopes)
            return
        inside = self._open(part, scopes) if part.models else self._block(part, scopes, size)
        for inner in part.parts:
            self._place(inner, inside, size if inside is scopes else _size(part.parts))

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

    def _block(self, block: Block, scopes: Sequence[Scope], size: int) -> Sequence[Scope]:
        """The scopes of all copies of a block. Not in the path: a copy of one layer, and most of what is around it."""
        times = block.times
        copies = _copies(block, len(scopes) * times)
        if times == 1:
            if not shared_name(copies[0]) and 2 * len(copies[0]) > size:
                return scopes
            return [self._scope(scope, _name(names)) for scope, names in zip(scopes, copies, strict=True)]
        found = []
        for place, scope in enumerate(scopes):
            inside = copies[place * times : (place + 1) * times]
            around = self._scope(scope, _title(inside), Group(times=times))
            found += [around if len(names) == 1 else self._scope(around, _name(names)) for names in inside]
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


def _size(parts: Iterable[Part]) -> int:
    return sum(1 for part in parts for _ in rows_of(part))


def _copies(block: Block, number: int) -> list[list[str]]:
    """The names of the layers in each copy of a block."""
    names: list[list[str]] = [[] for _ in range(number)]
    for row in rows_of(block):
        for place, layer in enumerate(row):
            names[place * number // len(row)].append(layer.name)
    return names


def _name(names: Sequence[str]) -> str:
    """What the layers of a block are called together; its first and its last where names have nothing in common."""
    return shared_name(names) or f"{names[0]}..{names[-1]}"


def _title(copies: Sequence[Sequence[str]]) -> str:
    """`block2..block23 x22`; Model Explorer's font has neither `…` nor `×`."""
    first, last = shared_name(copies[0]) or copies[0][0], shared_name(copies[-1]) or copies[-1][-1]
    return f"{first}..{last} x{len(copies)}" if first != last else f"{first} x{len(copies)}"
