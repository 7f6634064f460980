"""Parts of a graph that act before its first run: those that restore its variables, or fill its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from exporter.errors import SourceError
from exporter.sources.conversion.tracing import inlined
from exporter.sources.graphs.graph_walk import followed, node_name, ordered, reachable, tensor_name
from exporter.sources.graphs.hollow_graph import HOLLOW_OP
from exporter.sources.graphs.inlined_graph import CONSTANT_OUTPUT, HOLLOW_OUTPUT, REFUSALS, check_graph, rename_outputs
from exporter.sources.h5_values import COPY_AGAIN
from exporter.sources.rewriting.onnx_graph import replace

# What may stand between a tensor and what it is put into.
BETWEEN = ("Identity", "IdentityN")


def part_of(graph_def: tf.compat.v1.GraphDef, roots: Sequence[str], where: str) -> tf.compat.v1.GraphDef | None:
    """The part that the roots depend on, with its calls taken apart; None where there are no such roots.

    Raises SourceError, about `where`, for a graph that TensorFlow cannot take.
    """
    nodes = {node.name: node for node in graph_def.node}
    roots = [name for name in map(node_name, roots) if name in nodes]
    if not roots:
        return None
    part = tf.compat.v1.GraphDef()
    part.CopyFrom(graph_def)
    used = reachable(nodes, roots)
    replace(part.node, [node for node in ordered(graph_def.node) if node.name in used])
    if not any(node.op in ("PartitionedCall", "StatefulPartitionedCall") for node in part.node):
        return part
    for function in part.library.function:
        rename_outputs(function, HOLLOW_OP, CONSTANT_OUTPUT, HOLLOW_OUTPUT)
    try:
        check_graph(part)
        return inlined(part, roots)
    except REFUSALS as error:
        why = " ".join(str(error).split())[:200]
        raise SourceError("is damaged", where=where, why=why, hint=COPY_AGAIN) from error


def source_of(nodes: Mapping[str, Any], tensor: str) -> str:
    """The tensor that this one is a copy of."""

    def before(name: str) -> str | None:
        node = nodes.get(node_name(name))
        if node is None or node.op not in BETWEEN or not node.input:
            return None
        place = int(tensor_name(name).rpartition(":")[2]) if node.op == "IdentityN" else 0
        return str(node.input[place]) if place < len(node.input) else None

    return followed(tensor, before)


def maker(nodes: Mapping[str, Any], tensor: str) -> Any | None:
    """The node that makes what the tensor is a copy of."""
    return nodes.get(node_name(source_of(nodes, tensor)))
