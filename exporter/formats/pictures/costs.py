"""What the rows and boxes of a picture cost, as shares of the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporter.formats.repetition import Node, Part
from exporter.formats.sketch import Box
from exporter.records import Layer, LayerCosts, ModelGraph


class Shares:
    """Parameters and multiply-accumulates of layers as shares (0 to 1) of the model's; None where unknown."""

    def __init__(self, graph: ModelGraph, costs: LayerCosts | None) -> None:
        self.costs = costs
        self.all_params = sum(layer.params for layer in graph.layers)
        self.all_macs = (costs.macs if costs else None) or 0

    def params(self, row: Sequence[Layer]) -> float:
        """Of all folded copies of a layer, with what is inside of it."""
        return sum(layer.params_total for layer in row) / self.all_params if self.all_params else 0.0

    def macs(self, row: Sequence[Layer]) -> float | None:
        counts = [self.count(layer) for layer in row]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        return sum(known) / self.all_macs if self.all_macs else 0.0

    def count(self, layer: Layer) -> int | None:
        cost = self.costs.layers.get(layer.namespace) if self.costs else None
        return cost.macs if cost else None

    def box(self, part: Part) -> tuple[float, float]:
        """Of a box: its parameters and its known MACs."""
        rows = list(counted(part))
        return sum(map(self.params, rows)), sum(share for row in rows if (share := self.macs(row)))

    def largest(self, boxes: Iterable[Box]) -> tuple[float, float]:
        shares = [self.box(box.part) for box in boxes]
        return max((params for params, _ in shares), default=0.0), max((macs for _, macs in shares), default=0.0)


def counted(part: Part) -> Iterable[tuple[Layer, ...]]:
    """The rows whose sum is the whole part: a nested model stands for all that is inside of it."""
    if isinstance(part, Node):
        return part.rows
    return [part.models] if part.models else [row for inner in part.parts for row in counted(inner)]


def percent(share: float) -> str:
    """`12 %`, `0.4 %`, `under 0.1 %`, `0 %`."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 or not share else f"{100 * share:.1f} %"
