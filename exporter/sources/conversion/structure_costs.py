"""What the nodes of a converted model cost, for the sizes that a job states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from exporter.costs.model_costs import stated_sizes
from exporter.costs.node_costs import node_costs
from exporter.records import Job, TensorSpec
from exporter.structure import OnnxStructure


def with_node_costs(structure: OnnxStructure, job: Job, inputs: Sequence[TensorSpec]) -> OnnxStructure:
    """`inputs` are those of the source, before the job gave sizes to what they leave open."""
    costs = node_costs(structure.model, *stated_sizes(job, inputs))
    nodes = (replace(node, cost=cost) for node, cost in zip(structure.nodes, costs, strict=True))
    return replace(structure, nodes=tuple(nodes))
