"""A weight that the graph uses as it is and transposed, as tied embeddings are, is stored once."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, helper

from exporter.lazy import LazyArray, Transposed
from exporter.sources.rewriting.onnx_graph import replace

# Up to here a second copy costs less than a `Transpose` in every run.
SMALL_NBYTES = 2**20


def share(model: ModelProto, weights: Mapping[str, LazyArray]) -> dict[str, LazyArray]:
    """Put a `Transpose` in the place of each large initializer that is another one transposed, in place.

    Returns the lazy initializers that are left.
    """
    whole = {(array.content, array.shape): name for name, array in weights.items()}
    nodes, shared = [], set()
    for name, array in weights.items():
        view = array.content
        if array.nbytes > SMALL_NBYTES and isinstance(view, Transposed) and (view.content, view.shape) in whole:
            source = whole[view.content, view.shape]
            nodes.append(helper.make_node("Transpose", [source], [name], name=name, perm=view.axes))
            shared.add(name)
    if shared:
        replace(model.graph.node, [*nodes, *model.graph.node])
        replace(model.graph.initializer, [proto for proto in model.graph.initializer if proto.name not in shared])
    return {name: array for name, array in weights.items() if name not in shared}
