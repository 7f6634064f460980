"""The bytes of layer outputs that are needed at once when the layers of a model run one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from exporter.costs.calls import Call, Calls
from exporter.records import Edge

# The bytes of each output of each call; None for one that is unknown.
OutputBytes = Mapping[Call, tuple[int | None, ...]]


def live_bytes(calls: Calls, output_bytes: OutputBytes, kept: Collection[str]) -> dict[str, int] | None:
    """While each layer runs, its own outputs included, by its namespace; None when an output is unknown.

    The layers inside of nested models are among them; of several calls it is the one that needs most.

    An output is there from the call that makes it until the last call that takes it; one that no call takes, and those
    of the layers whose names are in `kept` (outputs of the model), until the end. Each output is memory of its own:
    that a reshaped tensor may share its input's is not considered. What a layer needs while it runs is not counted.
    """
    run = _Run(calls, output_bytes, kept)
    return run.live if run.through(None, 0) else None


@dataclass(frozen=True)
class _Run:
    """One run of the model, as far as memory goes; `live` is the result."""

    calls: Calls
    output_bytes: OutputBytes
    kept: Collection[str]
    live: dict[str, int] = field(default_factory=dict)

    def through(self, parent: str | None, live: int) -> bool:
        """Runs what is directly inside `parent` while `live` bytes are there already; false when one is unknown."""
        order = self.calls.order(parent)
        users = Counter(_tensor(edge) for call in order for edge in self.calls.incoming.get(call, ()))
        held: dict[tuple[str, int, int], int] = {}
        for call in order:
            made = self.output_bytes.get(call, (None,))
            if parent is not None and self.calls.layers[call[0]].class_name == "InputLayer":
                # What a nested model is handed is there already.
                continue
            if None in made or (_has_calls_inside(self.calls, call[0]) and not self.through(call[0], live)):
                return False
            held |= {(*call, place): size or 0 for place, size in enumerate(made)}
            live += sum(size or 0 for size in made)
            self.live[call[0]] = max(self.live.get(call[0], 0), live)
            for edge in self.calls.incoming.get(call, ()):
                users[_tensor(edge)] -= 1
                if not users[_tensor(edge)] and (parent is not None or edge.source not in self.kept):
                    live -= held.pop(_tensor(edge), 0)
        return bool(order)


def _tensor(edge: Edge) -> tuple[str, int, int]:
    return edge.source, edge.source_call, edge.source_output


def _has_calls_inside(calls: Calls, namespace: str) -> bool:
    return any(child.calls for child in calls.inside.get(namespace, ()))
