"""One level of a model, the layers of one parent, as chains in topological order.

A chain is what people draw as one box: a convolution with its batch norm and its activation. All steps are linear in
layers and edges.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exporter.formats.node_style import PADDING, kind
from exporter.records import Edge, Layer, ModelGraph

FOLLOWERS = {"normalisation", "activation", "dropout"}
HEADS = {"convolution", "dense", "pooling"}
LONGEST_CHAIN = 6
# A model input that more layers than this read does not hold a block together.
OFTEN = 2


@dataclass(frozen=True)
class Level:
    """`chains[i]` gets its inputs from `before[i]`: positions in `chains`, in the order of the inputs."""

    chains: list[tuple[Layer, ...]]
    before: list[tuple[int, ...]]


class Hierarchy:
    """The layers and edges of a model by their parent's namespace; None for the model itself."""

    def __init__(self, graph: ModelGraph) -> None:
        self.graph = graph
        self.by_name = {layer.namespace: layer for layer in graph.layers}
        self.children: dict[str | None, list[Layer]] = defaultdict(list)
        self.edges: dict[str | None, list[Edge]] = defaultdict(list)
        for layer in graph.layers:
            self.children[layer.parent].append(layer)
        for edge in graph.edges:
            if edge.source in self.by_name and edge.target in self.by_name:
                self.edges[self.by_name[edge.source].parent].append(edge)

    def is_model(self, layer: Layer) -> bool:
        """Whether the inside can be drawn. The sublayers of an attention layer have no edges, so that it cannot.

        Where nothing has edges, as in a file of weights alone, the inside of all is drawn.
        """
        return layer.namespace in self.edges or (self.graph.level == "tensor" and layer.namespace in self.children)

    def level(self, parent: str | None, *, compact: bool) -> Level:
        layers = self.children[parent]
        sources: dict[str, list[str]] = {layer.namespace: [] for layer in layers}
        uses = dict.fromkeys(sources, 0)
        for edge in sorted(self.edges[parent], key=lambda edge: (edge.target_call, edge.target_input)):
            if edge.target in sources and edge.source in sources:
                sources[edge.target].append(edge.source)
                uses[edge.source] += 1
        order = ordered(sources, uses)
        return self.chained([self.by_name[name] for name in order], sources, uses, compact=compact)

    def chained(
        self, layers: Sequence[Layer], sources: dict[str, list[str]], uses: dict[str, int], *, compact: bool
    ) -> Level:
        chains: list[list[Layer]] = []
        home: dict[str, int] = {}
        for layer in layers:
            origin = sources[layer.namespace]
            place = home.get(origin[0]) if compact and len(origin) == 1 and uses[origin[0]] == 1 else None
            if place is not None and self.joins(chains[place], layer):
                chains[place].append(layer)
            else:
                place = len(chains)
                chains.append([layer])
            home[layer.namespace] = place
        before = [
            tuple(home[name] for name in sources[chain[0].namespace] if home[name] != place)
            for place, chain in enumerate(chains)
        ]
        return Level([tuple(chain) for chain in chains], before)

    def joins(self, chain: Sequence[Layer], layer: Layer) -> bool:
        """Whether a layer goes into the box of the layer before it: `pad conv norm act`, `norm act conv`, `add act`."""
        if len(chain) == LONGEST_CHAIN or layer.calls > 1 or chain[-1].calls > 1:
            return False
        if self.is_model(layer) or self.is_model(chain[-1]) or kind(chain[0]) == "input":
            return False
        if kind(layer) in HEADS:
            return all(leads(member) for member in chain)
        # After a sum the normalisation is the beginning of the next block, not the end of this one.
        return kind(layer) in (FOLLOWERS - {"normalisation"} if kind(chain[0]) == "merge" else FOLLOWERS)


def leads(layer: Layer) -> bool:
    """Padding and pre-activation belong to the convolution after them."""
    return kind(layer) in FOLLOWERS or bool(PADDING.search(layer.class_name))


def ordered(sources: dict[str, list[str]], uses: dict[str, int], first: Sequence[str] = ()) -> list[str]:
    """Names in topological order: depth first from the sinks, the longest branch first.

    This keeps the layers of a block together and puts a model input right before its first use (before everything if
    it is used often, as a mask is), and two blocks of the same structure come out in the same order whatever their
    names. Those named in `first`, and what they need, come before all others. A cycle (a shared layer that is fed its
    own output) is broken where it is found.
    """
    readers = Counter(source for origins in sources.values() for source in set(origins))
    often = [name for name in sources if not sources[name] and readers[name] > OFTEN]
    roots = [*first, *often, *(name for name in sources if uses[name] == 0), *sources]
    depth: dict[str, int] = {}
    for name in finished(roots, sources):
        depth[name] = 1 + max((depth.get(source, 0) for source in sources[name]), default=0)
    longest = {
        name: sorted(origins, key=depth.__getitem__, reverse=True) if len(origins) > 1 else origins
        for name, origins in sources.items()
    }
    return finished(roots, longest)


def finished(roots: Sequence[str], sources: dict[str, list[str]]) -> list[str]:
    """Names in the order in which a depth-first walk leaves them: what comes in before what uses it."""
    done: list[str] = []
    seen: set[str] = set()
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        stack: list[tuple[str, Iterator[str]]] = [(root, iter(sources[root]))]
        while stack:
            name, waiting = stack[-1]
            following = next((source for source in waiting if source not in seen), None)
            if following is None:
                done.append(name)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(sources[following])))
    return done
