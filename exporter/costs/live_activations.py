"""The most bytes of layer outputs that are needed at once when the layers of a model run one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from exporter.costs.calls import Call, Calls
from exporter.records import Edge

# The bytes of each output of each call; None for one that is unknown.
OutputBytes = Mapping[Call, tuple[int | None, ...]]


def peak_bytes(calls: Calls, output_bytes: OutputBytes, kept: Collection[str]) -> int | None:
    """The peak over the calls in order, those inside of nested models included; None when an output is unknown.

    An output is there from the call that makes it until the last call that takes it; one that no call takes, and those
    of the layers whose names are in `kept` (outputs of the model), until the end. Each output is memory of its own:
    that a reshaped tensor may share its input's is not considered. What a layer needs while it runs is not counted.
    """
    return _peak_inside(calls, None, output_bytes, kept)


def _peak_inside(calls: Calls, parent: str | None, output_bytes: OutputBytes, kept: Collection[str]) -> int | None:
    order = calls.order(parent)
    users = Counter(_tensor(edge) for call in order for edge in calls.incoming.get(call, ()))
    held: dict[tuple[str, int, int], int] = {}
    live, peak = 0, 0
    for call in order:
        made = output_bytes.get(call, (None,))
        if parent is not None and calls.layers[call[0]].class_name == "InputLayer":
            # What a nested model is handed is there already.
            continue
        inside = _peak_inside(calls, call[0], output_bytes, kept) if _has_calls_inside(calls, call[0]) else 0
        if inside is None or None in made:
            return None
        held |= {(*call, place): size or 0 for place, size in enumerate(made)}
        own = sum(size or 0 for size in made)
        peak = max(peak, live + max(own, inside))
        live += own
        for edge in calls.incoming.get(call, ()):
            users[_tensor(edge)] -= 1
            if not users[_tensor(edge)] and (parent is not None or edge.source not in kept):
                live -= held.pop(_tensor(edge), 0)
    return peak if order else None


def _tensor(edge: Edge) -> tuple[str, int, int]:
    return edge.source, edge.source_call, edge.source_output


def _has_calls_inside(calls: Calls, namespace: str) -> bool:
    return any(child.calls for child in calls.inside.get(namespace, ()))
