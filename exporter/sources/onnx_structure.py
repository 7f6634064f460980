"""A traced model as an ONNX structure: a `ModelProto` whose weights are named, not filled. Orchestrates tf2onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import tensorflow as tf
from tf2onnx import handler, optimizer, tfonnx
from tf2onnx.graph import Graph

from exporter.errors import UnsupportedError
from exporter.lazy import LazyArray, OnnxStructure
from exporter.records import ModelGraph
from exporter.sources import weight_arithmetic
from exporter.sources.conv_folding import fold_convolutions
from exporter.sources.onnx_graph import graphs, stub
from exporter.sources.onnx_names import describe_nodes, infer_shapes, name_weights
from exporter.sources.tf2onnx_lazy import LazyConstants
from exporter.sources.tracing import TracedModel

# Node metadata (`metadata_props`) came with this version of the format; ONNX Runtime reads it from 1.18 on.
IR_VERSION = 10

# What tf2onnx raises, from anywhere inside, when a model is beyond it.
TF2ONNX_FAILURES = (
    ValueError,
    RuntimeError,
    LookupError,
    AttributeError,
    TypeError,
    NotImplementedError,
    AssertionError,
)
DESCRIBE_ANYWAY = "--to parquet,dot,svg describes the model without converting it"


def build(traced: TracedModel, weights: Sequence[LazyArray], graph: ModelGraph, opset: int) -> OnnxStructure:
    """Convert without reading a weight. `weights[i]` is the value of `traced.variables[i]`.

    Raises UnsupportedError with the ops that tf2onnx cannot convert, and the layers that they are in.
    """
    model, lazy = _converted(traced, weights, graph, opset)
    lazy = fold_convolutions(model, lazy)
    lazy = name_weights(model, lazy)
    model.ir_version = IR_VERSION
    model = infer_shapes(model)
    layer_of_weight = {weight.name: weight.layer for weight in graph.weights}
    nodes = describe_nodes(model, lazy, layer_of_weight, traced.owners)
    return OnnxStructure(model, lazy, nodes)


def _converted(
    traced: TracedModel, weights: Sequence[LazyArray], graph: ModelGraph, opset: int
) -> tuple[onnx.ModelProto, dict[str, LazyArray]]:
    tensors = [*traced.input_tensors, *traced.output_tensors]
    values = weight_arithmetic.fold(traced.graph_def, _values(traced, weights), tensors)
    names = [spec.name for spec in (*graph.inputs, *graph.outputs)]
    constants = LazyConstants()
    with constants.installed():
        main, bodies = _parsed(traced, opset)
        _bind(main, values)
        renamed = dict(zip(tensors, names, strict=True))
        try:
            converted = tfonnx.process_graphs(main, bodies, None, [], [], False, None, None, renamed)
            _refuse_unknown_ops(converted, traced, graph.name)
            # Without catch_errors tf2onnx does not copy the whole graph before each of its passes.
            optimised = optimizer.optimize_graph(converted, catch_errors=False)
        except TF2ONNX_FAILURES as error:
            _refuse_unknown_ops(main, traced, graph.name)
            raise UnsupportedError(
                "tf2onnx cannot convert the model",
                where=graph.name,
                why=f"{type(error).__name__}: {error}",
                hint=DESCRIBE_ANYWAY,
            ) from error
        model = optimised.make_model("", graph_name=graph.name)
    return model, _unfilled(model, constants)


def _refuse_unknown_ops(graph: Graph, traced: TracedModel, name: str) -> None:
    """tf2onnx leaves TensorFlow ops that it does not know in the graph, for others to stumble over."""
    known = handler.tf_op.create_mapping(graph.opset, graph.extra_opset)
    culprits = {
        (node.type, traced.owners.find(node.name)[0] or "?")
        for node in graph.get_nodes()
        if not (node.is_const() or node.is_graph_input())
        and node.type not in known
        and not onnx.defs.has(node.type, node.domain)
    }
    if culprits:
        ops = ", ".join(sorted({op for op, _ in culprits}))
        layers = ", ".join(sorted({layer for _, layer in culprits})[:5])
        raise UnsupportedError(
            f"no ONNX form is known for the TensorFlow op {ops}",
            where=f"{name}, layer {layers}",
            why="tf2onnx has no conversion for it and neither has this version of export-model",
            hint=DESCRIBE_ANYWAY,
        )


def _values(traced: TracedModel, weights: Sequence[LazyArray]) -> dict[str, LazyArray]:
    values = dict(zip(traced.weight_nodes, weights, strict=True))
    for name, array in traced.constants.items():
        values[name] = LazyArray.of(array)
    return values


def _parsed(traced: TracedModel, opset: int) -> tuple[Graph, list[Graph]]:
    with tf.Graph().as_default() as tf_graph:
        tf.import_graph_def(traced.graph_def, name="")
        main, bodies = tfonnx.graphs_from_tf(tf_graph, list(traced.input_tensors), list(traced.output_tensors))
    for graph in (main, *bodies):
        graph.set_config(None, opset, None)
    return main, bodies


def _bind(graph: Graph, values: Mapping[str, LazyArray]) -> None:
    """Constants in place of the placeholders that stand for weights."""
    for node in list(graph.get_nodes()):
        if node.is_graph_input() and node.name in values:
            output = node.output[0]
            graph.remove_node(node.name)
            graph.make_const(output, values[node.name])


def _unfilled(model: onnx.ModelProto, constants: LazyConstants) -> dict[str, LazyArray]:
    """The lazy arrays of the initializers; those inside the bodies of loops are filled, because they stay there."""
    lazy: dict[str, LazyArray] = {}
    for inner in graphs(model.graph):
        for proto in inner.initializer:
            array = constants.find(proto)
            if array is not None and inner is model.graph:
                lazy[proto.name] = array
                proto.CopyFrom(stub(proto.name, array))
            elif array is not None:
                proto.CopyFrom(onnx.numpy_helper.from_array(array.real(), proto.name))
    return lazy
