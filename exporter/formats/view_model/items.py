"""Nodes and blocks of nodes, with tokens that say which have the same structure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from onnx import TensorProto, ValueInfoProto

from exporter.formats.blocks import FAN_OUT
from exporter.formats.view_model.flat import Flat
from exporter.formats.view_model.hollow import is_small


@dataclass(frozen=True, slots=True)
class Item:
    """A node, or a block of items: the nodes from `start` up to `stop` of the drawing order.

    Equal tokens mean equal structure. `reads` are tensors from before it, `makes` those that are used behind it. A
    block has a `kind`: `scope` (a namespace, whose name is `name`), `block` (found by its structure), `run` (what is
    repeated, as it was found), `copies` (some copies of a run) or `part` (a stretch of a page that was too long).
    `first` and `last` are the names of its first and its last node.
    """

    start: int
    stop: int
    token: int
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    children: tuple[Item, ...] = ()
    kind: str = ""
    name: str = ""
    first: str = ""
    last: str = ""

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.stop - self.start


class Maker:
    """Makes items of one graph; tokens are small integers given out in order of appearance."""

    def __init__(self, graph: Flat) -> None:
        self.graph = graph
        self.tokens: dict[Hashable, int] = {}
        # What most nodes share is written out once.
        self.types = {name: _type_key(value) for name, value in graph.types.items()}

    def token(self, key: Hashable) -> int:
        return self.tokens.setdefault(key, len(self.tokens))

    def leaf(self, place: int) -> Item:
        graph = self.graph
        made = graph.made(place)
        makes = tuple(name for name in made if graph.last_use.get(name, -1) > place)
        token, name = self.token(self.leaf_key(place)), graph.name(place)
        return Item(place, place + 1, token, graph.reads[place], makes or made, first=name, last=name)

    def leaf_key(self, place: int) -> Hashable:
        """What must agree in two nodes that are the same but for their names."""
        node, graph = self.graph.nodes[place], self.graph
        attributes = tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute))
        constants: list[Hashable] = []
        for name in node.input:
            proto = graph.constants.get(name)
            if proto is None:
                constants.append(None if name else "")
            else:
                content = _content(proto) if is_small(proto) else b""
                constants.append((proto.data_type, tuple(proto.dims), content))
        types = tuple(self.types.get(name) for name in node.output)
        kind = (node.op_type, node.domain, node.overload)
        return (kind, attributes, tuple(constants), types, graph.facts[place], graph.macs[place])

    def block(self, children: Sequence[Item], kind: str, name: str = "") -> Item:
        start, stop = children[0].start, children[-1].stop
        made: dict[str, tuple[int, int]] = {}
        reads: dict[str, int] = {}
        rows = []
        for number, child in enumerate(children):
            origins: list[Hashable] = []
            for read in child.reads:
                if read not in made:
                    reads.setdefault(read, -1 - len(reads))
                wide = self.graph.uses[read] > FAN_OUT
                origins.append(None if wide and read not in made else made.get(read, reads.get(read)))
            rows.append((child.token, tuple(origins)))
            made.update((output, (number, at)) for at, output in enumerate(child.makes))
        makes = tuple(name for name in made if self.graph.last_use.get(name, -1) >= stop)
        makes = makes or tuple(name for name in made if name not in self.graph.last_use) or children[-1].makes
        token = self.token((kind == "run", tuple(rows)))
        ends = children[0].first, children[-1].last
        return Item(start, stop, token, tuple(reads), makes, tuple(children), kind, name, *ends)


def _content(proto: TensorProto) -> bytes:
    """A small tensor without its name."""
    unnamed = TensorProto()
    unnamed.CopyFrom(proto)
    unnamed.ClearField("name")
    data: bytes = unnamed.SerializeToString(deterministic=True)
    return data


def _type_key(value: ValueInfoProto) -> bytes:
    data: bytes = value.type.SerializeToString(deterministic=True)
    return data
