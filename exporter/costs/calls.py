"""The calls of a model's layers: which there are, in which order they run, and between which of them tensors go."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass

from exporter.records import Edge, Layer, ModelGraph

# Namespace of a layer and number of the call.
Call = tuple[str, int]


@dataclass(frozen=True)
class Calls:
    """An index over a `ModelGraph`; making it takes time linear in the graph.

    `inside` has the layers directly inside each layer (None: the model itself), `incoming` and `outgoing` the edges of
    each call in the order of its inputs and outputs.
    """

    layers: dict[str, Layer]
    inside: dict[str | None, list[Layer]]
    incoming: dict[Call, list[Edge]]
    outgoing: dict[Call, list[Edge]]

    @staticmethod
    def of(graph: ModelGraph) -> Calls:
        inside: dict[str | None, list[Layer]] = defaultdict(list)
        incoming: dict[Call, list[Edge]] = defaultdict(list)
        outgoing: dict[Call, list[Edge]] = defaultdict(list)
        for layer in graph.layers:
            inside[layer.parent].append(layer)
        for edge in graph.edges:
            incoming[edge.target, edge.target_call].append(edge)
            outgoing[edge.source, edge.source_call].append(edge)
        for edges in incoming.values():
            edges.sort(key=lambda edge: edge.target_input)
        for edges in outgoing.values():
            edges.sort(key=lambda edge: edge.source_output)
        return Calls({layer.namespace: layer for layer in graph.layers}, dict(inside), dict(incoming), dict(outgoing))

    def order(self, parent: str | None) -> list[Call]:
        """The calls directly inside `parent` in an order in which they can run.

        It is the order of the rows, except that a call waits for what it takes. Calls that wait for each other (there
        are none in a sound graph) are left out.
        """
        rows = {layer.namespace: place for place, layer in enumerate(self.inside.get(parent, ()))}
        waits_for: Counter[Call] = Counter()
        for namespace in rows:
            for number in range(self.layers[namespace].calls):
                edges = self.incoming.get((namespace, number), ())
                waits_for[namespace, number] = sum(edge.source in rows for edge in edges)
        ready = [(rows[call[0]], call[1]) for call, edges in waits_for.items() if not edges]
        heapq.heapify(ready)
        names, ordered = list(rows), []
        while ready:
            place, number = heapq.heappop(ready)
            ordered.append((names[place], number))
            for edge in self.outgoing.get(ordered[-1], ()):
                target = (edge.target, edge.target_call)
                waits_for[target] -= 1
                if edge.target in rows and not waits_for[target]:
                    heapq.heappush(ready, (rows[edge.target], edge.target_call))
        return ordered
