"""A traced model as an ONNX structure: a `ModelProto` whose weights are named, not filled. Orchestrates tf2onnx."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx
import tensorflow as tf
from tf2onnx import handler, tf_loader, tfonnx
from tf2onnx.graph import Graph

from exporter.errors import UnsupportedError
from exporter.lazy import LazyArray
from exporter.records import ModelGraph
from exporter.sources.conversion import (
    opsets,
    precision,
    runnable,
    tf2onnx_convolutions,
    tf2onnx_linear,
    tied_weights,
    weight_arithmetic,
)
from exporter.sources.conversion.case_branches import make_ifs
from exporter.sources.conversion.onnx_names import NodeLayers, describe_nodes, infer_shapes, name_weights
from exporter.sources.conversion.retyping import UNKNOWN_DTYPES, to_float32, users_of
from exporter.sources.conversion.tf2onnx_lazy import LazyConstants
from exporter.sources.conversion.tf2onnx_ops import REWRITERS, corrected
from exporter.sources.conversion.tracing import OpOwners, TracedModel
from exporter.sources.graphs.lookup_table import MakeTable
from exporter.sources.rewriting.onnx_graph import graphs, replace, stub
from exporter.sources.rewriting.optimising import optimise
from exporter.structure import OnnxStructure

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
RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)
DESCRIBE_ANYWAY = "--to parquet,dot,svg describes the model without converting it"


def build(
    traced: TracedModel, weights: Sequence[LazyArray], graph: ModelGraph, opset: int, dtype: str = precision.KEEP
) -> OnnxStructure:
    """Convert without reading a weight. `weights[i]` is the value of `traced.variables[i]`; `dtype` is `Job.dtype`.

    Raises UnsupportedError with the ops that tf2onnx cannot convert, and the layers that they are in.
    """
    model, lazy = _converted(traced, weights, graph, min(opset, opsets.TF2ONNX_OPSET), dtype)
    return finish(model, lazy, weights, graph, opset, dtype, traced.owners, traced.output_layers)


def finish(
    model: onnx.ModelProto,
    lazy: Mapping[str, LazyArray],
    weights: Sequence[LazyArray],
    graph: ModelGraph,
    opset: int,
    dtype: str,
    owners: OpOwners,
    output_layers: Sequence[str | None],
) -> OnnxStructure:
    """What tf2onnx made, optimised, in the dtype that is wanted, and with names for those who read it."""
    tf2onnx_convolutions.pad_by_numbers(model)
    lazy = optimise(model, lazy, opset)
    # Inferred anew at the end: names of unknown dimensions are worth less than what is known by then.
    del model.graph.value_info[:]
    opsets.declare(model, opset)
    stays = precision.float32_layers(graph)
    interface = (*graph.inputs, *graph.outputs)
    lazy, notes = runnable.finish(model, lazy, dtype, interface, lambda node: owners.find(node.name)[0] in stays)
    lazy = tied_weights.share(model, lazy)
    lazy = name_weights(model, lazy, {weight.name: weight.nbytes for weight in graph.weights})
    used_domains = {node.domain for inner in graphs(model.graph) for node in inner.node}
    replace(model.opset_import, [entry for entry in model.opset_import if entry.domain in used_domains | {""}])
    model = infer_shapes(model)
    layer_of_weight = {weight.name: weight.layer for weight in graph.weights}
    layer_of_output = dict(zip((spec.name for spec in graph.outputs), output_layers, strict=True))
    nodes = describe_nodes(model, NodeLayers(lazy, layer_of_weight, layer_of_output, owners))
    about = (*_notes_on_chance(model), *precision.dtype_notes(weights, dtype))
    return OnnxStructure(model, lazy, nodes, lambda: (*about, *notes()))


def _notes_on_chance(model: onnx.ModelProto) -> tuple[str, ...]:
    """What a comparison cannot pass, and a seed does not change."""
    found = sorted({node.op_type for inner in graphs(model.graph) for node in inner.node} & RANDOM)
    return (f"{', '.join(found)}: ONNX Runtime draws other numbers than TensorFlow, with any seed",) if found else ()


def _converted(
    traced: TracedModel, weights: Sequence[LazyArray], graph: ModelGraph, opset: int, dtype: str
) -> tuple[onnx.ModelProto, dict[str, LazyArray]]:
    tensors = [*traced.input_tensors, *traced.output_tensors]
    to_float32(traced.graph_def, precision.COMPUTED_IN_FLOAT32[dtype])
    _refuse_dtypes(traced, graph.name)
    make_ifs(traced.graph_def)
    values = precision.computed_weights(_values(traced, weights), dtype)
    values = weight_arithmetic.fold(traced.graph_def, values, tensors)
    names = [spec.name for spec in (*graph.inputs, *graph.outputs)]
    constants = LazyConstants()
    # Functions of an earlier conversion in this process, which may have the same names.
    tf_loader.clear_functions()
    with constants.installed(), tf2onnx_linear.installed(), corrected():
        main, bodies = _parsed(traced, opset)
        _bind(main, values, constants)
        renamed = dict(zip(tensors, names, strict=True))
        failures = FailedOps()
        try:
            with failures.listening():
                converted = _processed(main, bodies, renamed, traced.tables)
        except TF2ONNX_FAILURES as error:
            _refuse_unknown_ops(main, traced, graph.name)
            raise _refusal(failures, traced, graph.name, f"{type(error).__name__}: {error}") from error
        model = converted.make_model("", graph_name=graph.name)
    _refuse_unconverted_ops(model, opset, traced, graph.name)
    return model, _unfilled(model, constants)


def _processed(main: Graph, bodies: list[Graph], renamed: Mapping[str, str], tables: Mapping[str, MakeTable]) -> Graph:
    converted = tfonnx.process_graphs(main, bodies, None, [], [], False, REWRITERS, tables, renamed)
    # What a rewritten loop leaves behind, such as the lists that it filled.
    converted.delete_unused_nodes(converted.outputs)
    return converted


class FailedOps(logging.Handler):
    """The names of the TensorFlow ops whose conversion raised; tf2onnx tells them to its log only."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("Failed to convert node") and isinstance(record.args, tuple):
            self.names.append(str(record.args[0]))

    @contextmanager
    def listening(self) -> Iterator[None]:
        logger = logging.getLogger(tfonnx.__name__)
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)


def _refusal(failures: FailedOps, traced: TracedModel, name: str, why: str) -> UnsupportedError:
    if not failures.names:
        return UnsupportedError("tf2onnx cannot convert the model", where=name, why=why, hint=DESCRIBE_ANYWAY)
    op = failures.names[0]
    layer = traced.owners.find(op)[0] or "?"
    return UnsupportedError(
        f"tf2onnx cannot convert the TensorFlow op {op}", where=f"{name}, layer {layer}", why=why, hint=DESCRIBE_ANYWAY
    )


def _refuse_dtypes(traced: TracedModel, name: str) -> None:
    found = next(users_of(traced.graph_def, UNKNOWN_DTYPES), None)
    if found is not None:
        kind, node = found
        raise UnsupportedError(
            f"no conversion is known for {kind}",
            where=f"{name}, layer {traced.owners.find(node)[0] or '?'}",
            why="tf2onnx has no such dtype; model.quantize('float8') keeps float32 weights and serves training",
            hint=f"save the model without it; {DESCRIBE_ANYWAY}",
        )


def _refuse_unknown_ops(graph: Graph, traced: TracedModel, name: str) -> None:
    """tf2onnx leaves TensorFlow ops that it does not know in the graph, for others to stumble over."""
    known = handler.tf_op.create_mapping(graph.opset, graph.extra_opset)
    unknown = [
        (node.type, node.name)
        for node in graph.get_nodes()
        if not (node.is_const() or node.is_graph_input())
        and node.type not in known
        and not onnx.defs.has(node.type, node.domain)
    ]
    _refuse(unknown, traced, name)


def _refuse_unconverted_ops(model: onnx.ModelProto, opset: int, traced: TracedModel, name: str) -> None:
    """What is left of TensorFlow in the finished graph, and ops that this opset does not have yet."""
    unknown = [
        (node.op_type, node.name)
        for inner in graphs(model.graph)
        for node in inner.node
        if not node.domain and not onnx.defs.has(node.op_type, opset)
    ]
    _refuse(unknown, traced, name)


def _refuse(unknown: Sequence[tuple[str, str]], traced: TracedModel, name: str) -> None:
    if unknown:
        ops = ", ".join(sorted({op for op, _ in unknown}))
        layers = ", ".join(sorted({traced.owners.find(node)[0] or "?" for _, node in unknown})[:5])
        raise UnsupportedError(
            f"no ONNX form is known for the TensorFlow op {ops}",
            where=f"{name}, layer {layers}",
            why="tf2onnx has no conversion for it and neither has this version of export-model",
            hint=_newer_opset({op for op, _ in unknown}) or DESCRIBE_ANYWAY,
        )


def _newer_opset(ops: set[str]) -> str:
    """The flag that helps where these ops came to ONNX later, such as the bitwise ones of int4 weights."""
    known = handler.tf_op.create_mapping(opsets.TF2ONNX_OPSET, None)
    return f"--opset {opsets.TF2ONNX_OPSET}" if ops <= known.keys() else ""


def _values(traced: TracedModel, weights: Sequence[LazyArray]) -> dict[str, LazyArray]:
    values = dict(zip(traced.weight_nodes, weights, strict=True))
    for name, array in traced.constants.items():
        values[name] = LazyArray.of(array)
    values |= {name: combination.value(weights) for name, combination in traced.combinations.items()}
    return values


def _parsed(traced: TracedModel, opset: int) -> tuple[Graph, list[Graph]]:
    with tf.Graph().as_default() as tf_graph:
        tf.import_graph_def(traced.graph_def, name="")
        main, bodies = tfonnx.graphs_from_tf(tf_graph, list(traced.input_tensors), list(traced.output_tensors))
    for graph in (main, *bodies):
        graph.set_config(None, opset, None)
    return main, bodies


def _bind(graph: Graph, values: Mapping[str, LazyArray], constants: LazyConstants) -> None:
    """Make constants of the placeholders that stand for weights, in place: removing a node searches all of them."""
    for node in graph.get_nodes():
        if node.is_graph_input() and node.name in values:
            node.type = "Const"
            node.attr.clear()
            node.set_attr("value", constants.stub(values[node.name], node.output[0]))


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
