"""The folded model as an outline with sums: blocks with `×N`, and what each holds and costs, all copies together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from exporter.formats.blocks import Folder
from exporter.formats.levels import Hierarchy
from exporter.formats.node_style import FOLLOWED_BY, kind, label, output_text
from exporter.formats.repetition import Block, Node, Part
from exporter.formats.sketch import block_name, end_name, rows_of, title
from exporter.records import Layer, LayerCosts, ModelGraph

# Kinds of layers that the description of a block names.
KINDS_NAMED = 3


@dataclass(frozen=True, slots=True)
class Sums:
    """Over some layers and all that is inside of them; each weight counts once.

    `macs` are those that are known, and `macs_unknown` counts the layers whose are not.
    """

    layers: int = 0
    params: int = 0
    params_trainable: int = 0
    weight_bytes: int = 0
    macs: int = 0
    macs_unknown: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.layers + other.layers,
            self.params + other.params,
            self.params_trainable + other.params_trainable,
            self.weight_bytes + other.weight_bytes,
            self.macs + other.macs,
            self.macs_unknown + other.macs_unknown,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the outline. `sums` are over all `times` copies; a line that is no block has no `entries`.

    `kind` is a key of `exporter.formats.node_style.STYLES`, or `block`, or `model` for a nested model. `brief` says
    `what` where there is little room.
    """

    name: str
    kind: str
    what: str
    brief: str
    output: str
    times: int
    sums: Sums
    entries: tuple[Entry, ...] = field(default=())


def block_tree(graph: ModelGraph, costs: LayerCosts | None) -> tuple[Entry, ...]:
    """The outline of a model, in the order of its execution."""
    folder = Folder(graph)
    outline = Outline(folder.hierarchy, costs)
    return tuple(outline.entry(part, "") for part in folder.parts())


def summed(entries: Iterable[Entry]) -> Sums:
    return sum((entry.sums for entry in entries), Sums())


class Outline:
    """Makes entries of parts; `held` has the weights of each layer with all that is inside of it."""

    def __init__(self, hierarchy: Hierarchy, costs: LayerCosts | None) -> None:
        self.costs = costs.layers if costs else {}
        self.held = {layer.namespace: _own(layer) for layer in hierarchy.graph.layers}
        # Layers come before those inside of them, so that backwards the inner sums are complete.
        for layer in reversed(hierarchy.graph.layers):
            if layer.parent is not None and layer.parent in self.held:
                self.held[layer.parent] += self.held[layer.namespace]

    def entry(self, part: Part, prefix: str, times: int = 1) -> Entry:
        """`times` is how often the part itself repeats; a block that repeats one part is that part."""
        if isinstance(part, Node):
            return self.chain(part, prefix, times)
        if part.models:
            return self.model(part, times)
        if len(part.parts) == 1:
            return self.entry(part.parts[0], prefix, times * part.times)
        inner = block_name(part, 0) or prefix
        entries = tuple(self.entry(each, inner) for each in part.parts)
        rows = list(rows_of(part))
        name, times = _shortened(title(part) or _span(part), prefix), times * part.times
        what, output = (_contents(rows), f"{len(rows)} layers"), output_text(rows[-1])
        return Entry(name, "block", *what, output, times, summed(entries), entries)

    def model(self, block: Block, times: int) -> Entry:
        """A nested model, whose inside has names of its own."""
        first, last = block.models[0], block.models[-1]
        name = first.name if first.name == last.name else f"{first.name} … {last.name}"
        calls = f", called {first.calls} times" if first.calls > 1 else ""
        entries = tuple(self.entry(each, "") for each in block.parts)
        what, output = (first.class_name + calls, first.class_name), output_text(block.models)
        return Entry(name, "model", *what, output, times, self.sums(block.models), entries)

    def chain(self, node: Node, prefix: str, times: int) -> Entry:
        """A chain of layers goes by the name of the one that it is about."""
        firsts = [row[0] for row in node.rows]
        head = next((layer for layer in firsts if kind(layer) not in FOLLOWED_BY), firsts[0])
        calls = f", called {head.calls} times" if head.calls > 1 else ""
        others = f" + {len(firsts) - 1}" if len(firsts) > 1 else ""
        what = " + ".join(map(label, firsts)) + calls, label(head) + others
        sums = sum((self.sums(row) for row in node.rows), Sums())
        return Entry(_shortened(head.name, prefix), kind(head), *what, output_text(node.rows[-1]), times, sums)

    def sums(self, layers: Sequence[Layer]) -> Sums:
        return sum((self.held[layer.namespace] + self._cost(layer) for layer in layers), Sums())

    def _cost(self, layer: Layer) -> Sums:
        """The cost of a layer includes what is inside of it."""
        cost = self.costs.get(layer.namespace)
        known = cost is not None and cost.macs is not None
        return Sums(macs=cost.macs or 0 if cost else 0, macs_unknown=0 if known else 1)


def _own(layer: Layer) -> Sums:
    return Sums(1, layer.params, layer.params_trainable, layer.weight_bytes)


def _shortened(name: str, prefix: str) -> str:
    """Without the words that the enclosing block says."""
    return (prefix and name.removeprefix(prefix).lstrip("_-./ ")) or name


def _span(block: Block) -> str:
    """The first and the last layer of a block whose layers have no name in common."""
    first, last = end_name(block, 0), end_name(block, -1)
    return first if first == last else f"{first} … {last}"


def _contents(rows: Sequence[Sequence[Layer]]) -> str:
    """`Conv2D ×3, BatchNormalization ×3, ReLU ×3, 1 more`: of one copy."""
    classes = (row[0].class_name.replace("BatchNormalization", "BatchNorm") for row in rows)
    counts = Counter(classes).most_common()
    named = [f"{name} ×{count}" if count > 1 else name for name, count in counts[:KINDS_NAMED]]
    rest = sum(count for _, count in counts[KINDS_NAMED:])
    return ", ".join([*named, f"{rest} more"] if rest else named)
