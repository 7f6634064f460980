"""Rows and edges of a catalogue for a graph of operations whose names tell their layers. Imports no framework.

Linear in operations and tensors. A layer's inputs and outputs are the tensors that go into it and come out of it;
between layers of different scopes an edge runs at the level that both scopes share.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from exporter.records import Edge, Layer, Shape, TensorSpec, Weight
from exporter.sources.graphs.name_scopes import below, outer_scopes

ROOT, SCOPE, INPUT = "", "Scope", "InputLayer"
# More op types than this are not named in the class of a layer.
MOST_OP_TYPES = 4


@dataclass(slots=True)
class Member:
    """A layer under way: its operations, in order, and the tensors at its border, each with where it stands there."""

    namespace: str
    nodes: list[int] = field(default_factory=list)
    takes: dict[str, int] = field(default_factory=dict)
    gives: dict[str, int] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)
    weights: list[Weight] = field(default_factory=list)
    op_types: dict[str, None] = field(default_factory=dict)
    setting: str = "{}"


@dataclass(frozen=True, slots=True)
class KnownLayer:
    """What a framework says of one of its layers; `config` is JSON text."""

    class_name: str
    config: str
    trainable: bool = True


class ScopeRows:
    """Takes operations and tensors one by one. `known` are layers that their framework has described, by namespace.

    `shape_and_dtype` gives those of a tensor by its name.
    """

    def __init__(
        self,
        shape_and_dtype: Callable[[str], tuple[Shape | None, str | None]],
        known: Mapping[str, KnownLayer] | None = None,
    ) -> None:
        self._shape_and_dtype, self._known = shape_and_dtype, known or {}
        self.members: dict[str, Member] = {}
        self.edges: dict[tuple[str, str, str], Edge] = {}

    def member(self, namespace: str) -> Member:
        """The layer of that key, with the scopes around it before it."""
        if namespace not in self.members:
            for outer in outer_scopes(namespace):
                self.members.setdefault(outer, Member(outer))
            self.members[namespace] = Member(namespace)
        return self.members[namespace]

    def add(self, namespace: str, index: int, op_type: str, setting: Callable[[], str]) -> None:
        """An operation of that layer; the setting is asked for where it is the layer's first."""
        member = self.member(namespace)
        member.nodes.append(index)
        member.op_types[op_type] = None
        if len(member.nodes) == 1:
            member.setting = setting()

    def connect(self, source: str, target: str, tensor: str) -> None:
        """An edge between the two layers, or between the outermost scopes around them that are not around both."""
        self.give(source, tensor, *below(source, target))
        if source.startswith(f"{target}/"):
            # What a layer does with what comes out of the layers inside is no edge.
            return
        for name in (target, *below(target, source)):
            takes = self.members[name].takes
            takes.setdefault(tensor, len(takes))
        if target.startswith(f"{source}/"):
            return
        source, target = ([*below(one, other), one][0] for one, other in ((source, target), (target, source)))
        if (source, target, tensor) not in self.edges:
            before, after = self.members[source], self.members[target]
            after.sources[source] = None
            shape, dtype = self._shape_and_dtype(tensor)
            self.edges[source, target, tensor] = Edge(
                source, 0, before.gives[tensor], target, 0, after.takes[tensor], shape, dtype
            )

    def give(self, source: str, tensor: str, *around: str) -> None:
        """The tensor comes out of the layer, and of the scopes around it that are named."""
        for name in (source, *around):
            gives = self.members[name].gives
            gives.setdefault(tensor, len(gives))

    def hold(self, weight: Weight) -> None:
        """The weight belongs to its layer; one of no layer to the model itself."""
        (self.member(weight.layer) if weight.layer else self.members.setdefault(ROOT, Member(ROOT))).weights.append(
            weight
        )

    def rows(self, inputs: Collection[str]) -> Iterator[Layer]:
        """Every layer, what is inside right behind each; `inputs` are those that stand for the model's inputs."""
        totals = {name: sum(math.prod(weight.shape) for weight in each.weights) for name, each in self.members.items()}
        for name, size in list(totals.items()):
            for outer in outer_scopes(name):
                totals[outer] += size
        for index, member in enumerate(self._depth_first()):
            yield self._row(index, member, totals[member.namespace], is_input=member.namespace in inputs)

    def _depth_first(self) -> list[Member]:
        """Children in the order in which they were met."""
        children: dict[str, list[Member]] = {}
        for name, member in self.members.items():
            children.setdefault(name.rpartition("/")[0] if name != ROOT else ROOT, []).append(member)
        found, stack = [], list(reversed(children.get(ROOT, [])))
        while stack:
            member = stack.pop()
            found.append(member)
            if member.namespace != ROOT:
                stack.extend(reversed(children.get(member.namespace, [])))
        return found

    def _row(self, index: int, member: Member, total: int, *, is_input: bool) -> Layer:
        name, weights, known = member.namespace, member.weights, self._known.get(member.namespace)
        return Layer(
            index=index,
            name=name.rpartition("/")[2],
            class_name=known.class_name if known else INPUT if is_input else _class_of_ops(list(member.op_types)),
            namespace=name,
            depth=name.count("/"),
            parent=name.rpartition("/")[0] or None,
            trainable=known.trainable if known else any(weight.trainable for weight in weights),
            inputs=self._at_border(member.takes),
            outputs=self._at_border(member.gives),
            params=sum(math.prod(weight.shape) for weight in weights),
            params_trainable=sum(math.prod(weight.shape) for weight in weights if weight.trainable),
            params_total=total,
            weight_bytes=sum(weight.nbytes for weight in weights),
            calls=1,
            connected_to=tuple(member.sources),
            config=known.config if known else _setting_of_ops(member),
        )

    def _at_border(self, tensors: Mapping[str, int]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, *self._shape_and_dtype(name)) for name in tensors)


def _class_of_ops(ops: list[str]) -> str:
    if not ops:
        return SCOPE
    return "+".join(ops[:MOST_OP_TYPES]) + ("…" if len(ops) > MOST_OP_TYPES else "")


def _setting_of_ops(member: Member) -> str:
    return member.setting if len(member.nodes) == 1 else json.dumps({"nodes": len(member.nodes)})
