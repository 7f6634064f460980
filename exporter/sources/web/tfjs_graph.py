"""Graph models of TensorFlow.js: described from their JSON, converted and run as TensorFlow's graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exporter.records import Job, TensorSpec
from exporter.sources.conversion import onnx_structure
from exporter.sources.conversion.structure_costs import with_node_costs
from exporter.sources.opened_graph_file import OpenedGraphFile
from exporter.sources.web import graph_conversion, graph_layers
from exporter.sources.web.graph_layers import GraphLayers
from exporter.sources.web.model_json import WEIGHTS, WebModel, read_model_json
from exporter.sources.web.web_values import lazy_values
from exporter.structure import OnnxStructure


@dataclass
class OpenedWebGraph(OpenedGraphFile):
    """What `exporter.sources.opened.Opened` says, of a graph model."""

    _model: WebModel
    _layers: GraphLayers

    def structure(self, job: Job, *, with_costs: bool = False) -> OnnxStructure:
        """The model in ONNX, without its weights. Raises SourceError, UnsupportedError and UsageError."""
        specs = self.inputs(job)
        graph = graph_conversion.web_graph(self._model, self._layers, self.values, specs)
        traced = graph_conversion.traced(graph, self._layers)
        weights = list(graph.weights.values())
        described = dataclasses.replace(self.graph, inputs=specs)
        structure = onnx_structure.build(traced, weights, described, job.opset, job.dtype)
        return with_node_costs(structure, job, self.graph.inputs) if with_costs else structure


def open_source(job: Job, spool_path: str) -> OpenedWebGraph:
    """Raises SourceError."""
    model = read_model_json(job.source)
    layers = graph_layers.describe(model, job)
    return OpenedWebGraph(layers.graph, WEIGHTS, (), lazy_values(model), model, layers)


def reference_outputs(job: Job, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What TensorFlow computes with the graph."""
    opened = open_source(job, "")
    specs = [
        TensorSpec(spec.name, array.shape, spec.dtype) for spec, array in zip(opened.graph.inputs, inputs, strict=True)
    ]
    graph = graph_conversion.web_graph(opened._model, opened._layers, opened.values, specs)
    return graph_conversion.run(graph, inputs)
