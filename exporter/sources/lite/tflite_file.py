"""`.tflite` files: described from their tables, converted by tf2onnx's handlers, run by their own interpreter."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from exporter.records import Job
from exporter.sources.conversion.structure_costs import with_node_costs
from exporter.sources.lite import lite_layers, lite_structure
from exporter.sources.lite.lite_layers import LiteLayers
from exporter.sources.lite.lite_model import LiteModel
from exporter.sources.lite.lite_nodes import FLEX
from exporter.sources.lite.lite_reading import read_model
from exporter.sources.lite.lite_values import lazy_values
from exporter.sources.opened_graph_file import OpenedGraphFile
from exporter.structure import OnnxStructure

WEIGHTS = "from the TensorFlow Lite file"


@dataclass
class OpenedLite(OpenedGraphFile):
    """What `exporter.sources.opened.Opened` says, of a `.tflite` file."""

    _model: LiteModel
    _layers: LiteLayers

    def structure(self, job: Job, *, with_costs: bool = False) -> OnnxStructure:
        """The model in ONNX, without its weights. Raises UnsupportedError and UsageError."""
        graph = dataclasses.replace(self.graph, inputs=self.inputs(job))
        structure = lite_structure.build(self._model, self._layers, graph, self.values, job)
        return with_node_costs(structure, job, self.graph.inputs) if with_costs else structure


def open_source(job: Job, spool_path: str) -> OpenedLite:
    """Raises SourceError."""
    model = read_model(job.source)
    layers = lite_layers.describe(model, job)
    values = lazy_values(job.source, layers.tensors)
    return OpenedLite(layers.graph, WEIGHTS, layers.notes, values, model, layers)


def reference_outputs(job: Job, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What TensorFlow Lite's interpreter computes, with its own kernels where no op needs TensorFlow."""
    model = read_model(job.source)
    needs_tensorflow = any(each.op.startswith(FLEX) for graph in model.graphs for each in graph.operators)
    resolvers = tf.lite.experimental.OpResolverType
    resolver = resolvers.AUTO if needs_tensorflow else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = tf.lite.Interpreter(job.source, experimental_op_resolver_type=resolver)
    signature = lite_layers.signature_of(model, job)
    if signature is not None and signature.graph != 0:
        graph = model.graphs[signature.graph]
        run = interpreter.get_signature_runner(signature.key)
        found = run(**{signature.inputs[place]: array for place, array in zip(graph.inputs, inputs, strict=True)})
        return [found[signature.outputs[place]] for place in graph.outputs]
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.resize_tensor_input(detail["index"], array.shape)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
