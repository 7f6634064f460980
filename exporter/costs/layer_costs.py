"""What one call of a layer or operation costs, from its class, its settings and its shapes alone.

The formulas follow the `call` methods of Keras 3.15, at inference. `exporter.costs.counting` says what is counted.
Here are the layers that wrap another one, and the way to all formulas.
"""

from __future__ import annotations

from exporter.costs.counting import Operations
from exporter.costs.graph_formulas import graph_operations, is_of_graph
from exporter.costs.layer_formulas import PLAIN, Formula, LayerCall
from exporter.costs.lite_formulas import LITE
from exporter.costs.sequence_formulas import SEQUENCES


def operations(call: LayerCall, level: str = "layer") -> Operations | None:
    """None when no formula or no setting is known, or when the class only has the name of one of Keras's.

    `level` is `ModelGraph.level`.
    """
    formula = FORMULAS.get(call.class_name) if call.config or call.class_name in LITE else None
    if level != "layer" and is_of_graph(call.class_name):
        formula = graph_operations
    try:
        return formula(call) if formula else None
    # A class of the user's: other settings, other inputs than the formula reads.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None


def _wrapped(call: LayerCall) -> Operations | None:
    inner = call.config["layer"]
    return operations(LayerCall(inner["class_name"], inner["config"], call.inputs, call.outputs))


def _time_distributed(call: LayerCall) -> Operations | None:
    """The inner layer on the steps of all sequences at once."""
    inner = call.config["layer"]
    inputs, outputs = (
        tuple((sizes[0] * sizes[1], *sizes[2:]) for sizes in side) for side in (call.inputs, call.outputs)
    )
    return operations(LayerCall(inner["class_name"], inner["config"], inputs, outputs))


def _bidirectional(call: LayerCall) -> Operations | None:
    forward = call.config["layer"]
    backward = call.config.get("backward_layer") or forward
    both = [
        operations(LayerCall(inner["class_name"], inner["config"], call.inputs[:1], call.outputs))
        for inner in (forward, backward)
    ]
    merged = {"sum": 1, "mul": 1, "ave": 2}.get(str(call.config.get("merge_mode")), 0) * call.output
    return None if both[0] is None or both[1] is None else both[0] + both[1] + Operations(other=merged)


FORMULAS: dict[str, Formula] = {
    **PLAIN,
    **SEQUENCES,
    **LITE,
    "SpectralNormalization": _wrapped,
    "TimeDistributed": _time_distributed,
    "Bidirectional": _bidirectional,
}
