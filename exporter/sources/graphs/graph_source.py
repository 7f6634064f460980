"""A TensorFlow graph as an opened source, whatever it was saved as: its catalogue and its ONNX structure.

What saved the graph is told apart by others: they give the graph without its large constants and without values of
variables, those values by key and unread, and what goes in and comes out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import tensorflow as tf

from exporter import memory
from exporter.errors import SourceError, UnsupportedError
from exporter.lazy import LazyArray
from exporter.records import Job, TensorSpec
from exporter.sources.conversion import onnx_structure
from exporter.sources.conversion.structure_costs import with_node_costs
from exporter.sources.conversion.tracing import TracedModel
from exporter.sources.graphs.graph_rows import describe_graph
from exporter.sources.graphs.graph_walk import node_name
from exporter.sources.graphs.inlined_graph import inline, make_placeholder
from exporter.sources.graphs.lookup_table import MakeTable, declare
from exporter.sources.graphs.scope_rows import KnownLayer
from exporter.sources.input_shapes import input_specs
from exporter.structure import OnnxStructure


@dataclass(frozen=True)
class GraphValue:
    """The value of a variable or of a constant; one that has no `name` is called after its node."""

    array: LazyArray
    name: str = ""
    trainable: bool = False


@dataclass(frozen=True)
class GraphParts:
    """What a source knows of its graph.

    `graph_def` has variables as TensorFlow has them, and `ImmutableConst` nodes for constants, whose
    `memory_region_name` is a key of `values`; the key of a variable is the name of its node. `inputs` and `outputs` are
    names for the outside and the tensors that they stand for. `known` are layers by name, where the source has them,
    `tables` what lookup tables hold, by the nodes that make them.
    """

    graph_def: tf.compat.v1.GraphDef
    values: Mapping[str, GraphValue]
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    weights: str
    known: Mapping[str, KnownLayer] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    checks: tuple[Callable[[], None], ...] = ()
    tables: Mapping[str, MakeTable] = field(default_factory=dict)


class OpenedGraph:
    """What `exporter.sources.opened.Opened` says."""

    is_random = False
    stand_in = ""

    def __init__(self, parts: GraphParts, name: str) -> None:
        self._parts, self._name = parts, name
        inputs, outputs = ([tensor for _, tensor in named] for named in (parts.inputs, parts.outputs))
        self._inlined = inline(parts.graph_def, inputs, outputs, lambda key: parts.values[key].array)
        self._rows = describe_graph(self._inlined, parts, name)
        self.graph = self._rows.graph
        self.weights, self.notes = parts.weights, (*parts.notes, *self._inlined.notes)
        # TensorFlow's Python objects for a graph take ten times the memory of the graph.
        memory.release_unused()

    @cached_property
    def values(self) -> dict[str, LazyArray]:
        named = self._rows.weight_names.items()
        return {name: array.named(name) for key, name in named if (array := self._array(key)) is not None}

    def _array(self, key: str) -> LazyArray | None:
        """None for a variable whose value is nowhere."""
        return self._parts.values[key].array if key in self._parts.values else self._inlined.small.get(key)

    def _refuse_missing(self) -> None:
        names = self._rows.weight_names
        missing = [name for key, name in names.items() if self._array(key) is None]
        if missing:
            why = f"it computes with the variable {missing[0]}, and nothing has its value"
            hint = "a graph with variables needs its checkpoint: name its .meta file, or freeze it"
            raise SourceError("holds no value for a variable", where=self._name, why=why, hint=hint)

    def inputs(self, job: Job) -> tuple[TensorSpec, ...]:
        return input_specs(self.graph, job)

    def finish_checks(self) -> None:
        for check in self._parts.checks:
            check()

    def structure(self, job: Job, *, with_costs: bool = False) -> OnnxStructure:
        """Raises UnsupportedError with the ops that have no ONNX form, and UsageError for a shape that cannot be."""
        if self._inlined.fault:
            hint = onnx_structure.DESCRIBE_ANYWAY
            raise UnsupportedError("cannot be converted", where=self._name, why=self._inlined.fault, hint=hint)
        self._refuse_missing()
        specs = self.inputs(job)
        traced = self._traced(specs)
        weights = [self.values[self._rows.weight_names[key]] for key in traced.variables]
        graph = dataclasses.replace(self.graph, inputs=specs)
        structure = onnx_structure.build(traced, weights, graph, job.opset, job.dtype)
        return with_node_costs(structure, job, self.graph.inputs) if with_costs else structure

    def _traced(self, specs: Sequence[TensorSpec]) -> TracedModel:
        """The graph with the inputs' shapes as asked for; a copy, because converting changes it."""
        graph_def = tf.compat.v1.GraphDef()
        graph_def.CopyFrom(self._inlined.graph_def)
        nodes = {node.name: node for node in graph_def.node}
        for tensor, spec in zip(self._inlined.inputs, specs, strict=True):
            make_placeholder(nodes[node_name(tensor)], spec.shape, spec.dtype)
        for name in self._parts.tables.keys() & nodes.keys():
            attributes = nodes[name].attr
            declare(nodes[name], attributes["key_dtype"].type, attributes["value_dtype"].type)
        sources = [nodes[node_name(tensor)].input[0] for tensor in self._inlined.outputs]
        return TracedModel(
            graph_def=graph_def,
            input_tensors=self._inlined.inputs,
            output_tensors=self._inlined.outputs,
            output_layers=tuple(self._rows.owners.find(node_name(source))[0] for source in sources),
            weight_nodes=tuple(self._inlined.weights),
            variables=tuple(self._inlined.weights.values()),
            constants={},
            combinations={},
            owners=self._rows.owners,
            tables=self._parts.tables,
        )
