"""`model.view.onnx`: the model for looking at, without weights and in blocks, so that Netron draws it at once."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from exporter.costs.model_costs import stated_sizes
from exporter.costs.node_costs import node_costs
from exporter.files import new_file
from exporter.formats.view_model.facts import facts_of
from exporter.formats.view_model.layer_graph import layer_model
from exporter.formats.view_model.model import view_model
from exporter.records import Material

FILE = "model.view.onnx"


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """From the ONNX structure of this run, or from the layers where there is none."""
    graph = material.graph
    facts = facts_of(graph.layers, material.costs)
    model, notes = material.hollow, ()
    macs: list[int | None] = []
    if model is None:
        model = layer_model(graph)
    else:
        macs = [cost.macs for cost in node_costs(model, *stated_sizes(material.job, graph.inputs))]
    write_view(view_model(model, facts, macs), folder / FILE)
    return notes


def write_view(view: ModelProto, path: Path) -> None:
    with new_file(path) as stream:
        stream.write(view.SerializeToString(deterministic=True))
