"""What goes into a graph and what comes out, where the file does not say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from exporter.errors import UsageError
from exporter.records import Job
from exporter.sources.graphs.graph_walk import node_name, reachable, tensor_name
from exporter.unique_names import Names

INPUTS = ("Placeholder", "PlaceholderV2")
# Ops that nothing uses and that are no results: they act, or belong to training and saving.
ACTS = {"NoOp", "Assert", "Print", "PrintV2", "Placeholder", "PlaceholderV2", "PlaceholderWithDefault", "Const"}
ACTS |= {"VarHandleOp", "VariableV2", "Variable", "VarIsInitializedOp", "IsVariableInitialized", "ImmutableConst"}
ACTING_STARTS = ("Assign", "Save", "Restore", "Scatter", "Resource", "Apply", "MergeV2", "ReadVariableOp")
ACTING_ENDS = ("Summary", "SummaryV2")
TRAINING = ("gradients", "train", "save", "init", "report_uninitialized_variables", "Initializer")
CANDIDATES_SHOWN = 12


@dataclass(frozen=True)
class Ends:
    """Names for the outside and tensors."""

    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def find_ends(graph_def: tf.compat.v1.GraphDef, job: Job, *, most_outputs: int | None = None) -> Ends:
    """Those that the job names, otherwise placeholders, and results that nothing uses.

    A graph that has been trained has many such: more than `most_outputs` are ambiguous. Raises UsageError then, and
    where there are none.
    """
    nodes = {node.name: node for node in graph_def.node}
    outputs = [tensor_name(name) for name in job.reading.outputs] or _results(graph_def)
    notes: tuple[str, ...] = ()
    if not job.reading.outputs and (not outputs or (most_outputs is not None and len(outputs) > most_outputs)):
        if not outputs or "onnx" in job.formats:
            raise _ambiguous(job, outputs)
        shown = ", ".join(outputs[:CANDIDATES_SHOWN])
        notes = (f"all results that nothing uses are taken for outputs: {shown}; --outputs chooses",)
    for tensor in (*map(tensor_name, job.reading.inputs), *outputs):
        if node_name(tensor) not in nodes:
            why = f"the graph has no operation {node_name(tensor)}"
            raise UsageError("cannot be an end of the graph", where=tensor, why=why, hint=_hint(_results(graph_def)))
    if job.reading.inputs:
        inputs = [tensor_name(name) for name in job.reading.inputs]
    else:
        used = reachable(nodes, map(node_name, outputs), with_control=False)
        inputs = [f"{name}:0" for name, node in nodes.items() if node.op in INPUTS and name in used]
    names = Names()
    return Ends(_named(inputs, names), _named(outputs, names), notes)


def _named(tensors: Sequence[str], names: Names) -> tuple[tuple[str, str], ...]:
    """In ONNX inputs and outputs are values of one graph, so that no two may have one name."""
    return tuple((names.unique(tensor.removesuffix(":0")), tensor) for tensor in tensors)


def _results(graph_def: tf.compat.v1.GraphDef) -> list[str]:
    """The first outputs of operations that compute something which nothing uses."""
    used = {node_name(tensor) for node in graph_def.node for tensor in node.input if not tensor.startswith("^")}
    return [f"{node.name}:0" for node in graph_def.node if node.name not in used and not _acts(node)]


def _acts(node: Any) -> bool:
    is_of_training = any(part.split("_")[0] in TRAINING or part in TRAINING for part in node.name.split("/")[:-1])
    acts = node.op in ACTS or node.op.startswith(ACTING_STARTS) or node.op.endswith(ACTING_ENDS)
    return acts or is_of_training or node.name.split("/")[0] in TRAINING


def _ambiguous(job: Job, candidates: Sequence[str]) -> UsageError:
    if not candidates:
        why = "nothing is computed in it that nothing else uses"
        return UsageError("has no clear outputs", where=job.source, why=why, hint="--outputs NAME:0")
    shown = ", ".join(candidates[:CANDIDATES_SHOWN]) + (" …" if len(candidates) > CANDIDATES_SHOWN else "")
    why = f"these are computed and used by nothing: {shown}"
    return UsageError("has no clear outputs", where=job.source, why=why, hint=_hint(candidates))


def _hint(candidates: Sequence[str]) -> str:
    return f"--outputs {candidates[-1] if candidates else 'NAME:0'}"
