"""What stands on and behind the boxes of a view: titles, and what the viewer's sidebar shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from onnx import NodeProto, TensorProto

from exporter.formats.node_style import amount
from exporter.formats.repetition import shared_name
from exporter.formats.view_model.facts import span_title, title, together
from exporter.formats.view_model.flat import NAMESPACE, Flat, elements
from exporter.formats.view_model.functions import Function, Row
from exporter.formats.view_model.items import Item

LONGEST_NAME = 200
WEIGHT_TYPES = {
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8,
    TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4,
}  # fmt: skip


class Captions:
    """The texts of one view."""

    def __init__(self, graph: Flat, functions: Sequence[Function]) -> None:
        self.graph = graph
        self.params = _running(_new_parameters(graph))
        self.macs = _running(graph.macs)
        self.unknown = _running([int(macs is None) for macs in graph.macs])
        self.titles: dict[int, str] = {}
        self._numbers: Counter[str] = Counter()
        for function in functions:
            self.titles[id(function)] = self._unique(title(self._wanted(function)))

    def _unique(self, wanted: str) -> str:
        """The title, or `title (2)` and so on: functions are told apart by their names."""
        text = wanted
        while self._numbers[text]:
            self._numbers[wanted] += 1
            text = title(wanted, f" ({self._numbers[wanted]})")
        self._numbers[text] += 1
        return text

    def _wanted(self, function: Function) -> str:
        item = function.item
        if item.kind == "copies":
            shown = [
                self.titles[id(row.function)] if row.function else self.graph.nodes[row.item.start].op_type
                for row in function.rows
            ]
            period = _period(shown)
            return title("+".join(shown[:period]), f" ×{len(shown) // period}")
        if item.kind == "scope":
            known = self.class_of(item)
            return known or span_title([copy.name.rpartition("/")[2] for copy in function.copies]) or "block"
        if item.kind == "part":
            return f"part, {item.size} nodes"
        if item.kind != "block":
            return f"{item.size} nodes"
        # A block without a name of its own goes by that of its result: `mixed0` of what ends with `mixed0/Concat`.
        names = [_shared(copy) or copy.last.rpartition("/")[0] or copy.last for copy in function.copies]
        return span_title([name.rpartition("/")[2] for name in names]) or f"{item.size} nodes"

    def class_of(self, item: Item) -> str:
        """The class of the layer whose namespace a block is; empty if it is not known.

        What readers of ONNX files make up for a namespace (`Scope`, `MatMul+Add`) says less than its name.
        """
        known = self.graph.layers.get(item.name)
        name = known.class_name if known else ""
        return "" if name == "Scope" or "+" in name else name

    def name(self, item: Item) -> str:
        """Of one copy: the node's name, the namespace, what most names in a block begin with, or its ends."""
        if not item.children:
            return item.first
        if item.kind == "scope":
            return item.name
        if item.kind == "block":
            shared = _shared(item)
            return shared if any(map(str.isdigit, shared)) else f"{item.first} … {item.last}"
        first, last = item.children[0], item.children[-1]
        return f"{self.name(first).partition(' … ')[0]} … {self.name(last).rpartition(' … ')[2]}"

    def namespace(self, item: Item) -> str:
        """The namespace that all nodes of an item are in."""
        first, last = (self.graph.paths[place] for place in (item.start, item.stop - 1))
        if item.children:
            return item.name
        return "/".join(first if first == last else ())

    def describe(self, node: NodeProto, row: Row) -> None:
        """Write name, namespace, facts and description of a box into its node."""
        copies = row.copies or [row.item]
        names = together([self.name(copy) for copy in copies])
        node.name = names if len(names) <= LONGEST_NAME else self.name(copies[0])
        pairs = [("copies", str(len(copies)) if len(copies) > 1 else ""), ("name", names if names != node.name else "")]
        pairs += [(NAMESPACE, together([self.namespace(copy) for copy in copies]))]
        sentence = ""
        if row.function is None:
            facts = self.graph.facts[row.item.start]
            macs = self.graph.macs[row.item.start]
            pairs += [*facts.texts(), ("MACs", "" if macs is None else f"{macs:,}")]
            sentence = facts.sentence()
        else:
            pairs += self.sums(row.item)
            sentence = self.sentence(row.item)
        del node.metadata_props[:]
        for key, value in pairs:
            if value:
                node.metadata_props.add(key=key, value=value)
        many = f"stands for {len(copies)} equal ones" if len(copies) > 1 else ""
        node.doc_string = "\n".join(filter(None, [sentence, many, node.doc_string]))

    def about(self, function: Function) -> str:
        """The description of a function."""
        copies = function.copies
        names = together([self.name(copy) for copy in copies])
        return "\n".join(
            filter(None, [self.sentence(function.item), f"{len(copies)} copies: {names}" if len(copies) > 1 else names])
        )

    def sums(self, item: Item) -> list[tuple[str, str]]:
        """Of all nodes inside of a block. Weights count where they are used first."""
        macs = "" if self._total(self.unknown, item) else f"{self._total(self.macs, item):,}"
        layer = self.graph.layers.get(item.name)
        known = layer.texts() if layer else []
        return [
            *known,
            ("nodes", f"{item.size:,}"),
            ("parameters", f"{self._total(self.params, item):,}"),
            ("MACs", macs),
        ]

    def sentence(self, item: Item) -> str:
        """`7 nodes, 1.1 M parameters, 220 M MACs`."""
        parts = [f"{item.size:,} nodes"]
        parts += [f"{amount(total)} parameters" for total in [self._total(self.params, item)] if total]
        if not self._total(self.unknown, item):
            parts += [f"{amount(total)} MACs" for total in [self._total(self.macs, item)] if total]
        layer = self.graph.layers.get(item.name)
        return ", ".join([f"{layer.class_name}: {parts[0]}" if layer and layer.class_name else parts[0], *parts[1:]])

    def _total(self, running: Sequence[int], item: Item) -> int:
        return running[item.stop] - running[item.start]


def _shared(block: Item) -> str:
    """What most of the names in a block begin with; empty if they have nothing in common."""
    return shared_name([name for child in block.children for name in (child.first, child.last)])


def _period(words: Sequence[str]) -> int:
    """Of how many words the sequence is a repetition."""
    count = len(words)
    return next(size for size in range(1, count + 1) if count % size == 0 and words[size:] == words[: count - size])


def _running(values: Sequence[int | None]) -> list[int]:
    """Sums of the first so many values, the unknown ones as zero."""
    return [0, *accumulate(value or 0 for value in values)]


def _new_parameters(graph: Flat) -> list[int]:
    """For each node the elements of the weights that no node before it has read."""
    seen: set[str] = set()
    found = []
    for place in range(len(graph.nodes)):
        fresh = [name for name in graph.weights(place) if name not in seen]
        seen.update(fresh)
        protos = [graph.constants[name] for name in fresh]
        found.append(sum(elements(proto) for proto in protos if proto.data_type in WEIGHT_TYPES and len(proto.dims)))
    return found
