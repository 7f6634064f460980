"""A `.tflite` file as an ONNX structure, through tf2onnx's handlers of TensorFlow Lite ops."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from google.protobuf.message import DecodeError
from tf2onnx import handler, tf_loader, tfonnx
from tf2onnx.graph import Graph
from tf2onnx.handler import tfl_op

from exporter.errors import UnsupportedError
from exporter.lazy import LazyArray
from exporter.records import Job, ModelGraph
from exporter.sources.conversion import onnx_structure, opsets, precision, tf2onnx_linear
from exporter.sources.conversion.tf2onnx_lazy import LazyConstants
from exporter.sources.conversion.tf2onnx_ops import REWRITERS, corrected
from exporter.sources.conversion.tracing import OpOwners
from exporter.sources.lite import tf2onnx_lite as tf2onnx_lite
from exporter.sources.lite.lite_layers import LiteLayers
from exporter.sources.lite.lite_model import OPTIONAL, LiteModel
from exporter.sources.lite.lite_nodes import FLEX, LiteNodes
from exporter.structure import OnnxStructure

SATURATION = (
    "the model is quantised: on x86 processors without VNNI, ONNX Runtime's kernels of 8 bits saturate, unless graphs "
    "are optimised at its basic level only; --dequantize makes a model of float32"
)


def build(
    model: LiteModel, layers: LiteLayers, graph: ModelGraph, values: Mapping[str, LazyArray], job: Job
) -> OnnxStructure:
    """`graph` is the description with the shapes that the job asks for. Raises UnsupportedError."""
    opset = min(job.opset, opsets.TF2ONNX_OPSET)
    _refuse_unknown_ops(model, layers, job.name)
    values = precision.computed_weights(values, job.dtype)
    constants = LazyConstants()
    nodes = LiteNodes(model, layers, values, constants)
    tf_loader.clear_functions()
    with constants.installed(), tf2onnx_linear.installed(), corrected():
        try:
            main, bodies = nodes.graphs()
            for each in (main, *bodies):
                each.set_config(None, opset, None)
            converted = _processed(main, bodies, dequantize=job.reading.dequantize)
        except (*onnx_structure.TF2ONNX_FAILURES, DecodeError) as error:
            why = f"{type(error).__name__}: {error}"
            hint = onnx_structure.DESCRIBE_ANYWAY
            raise UnsupportedError("tf2onnx cannot convert the model", where=job.name, why=why, hint=hint) from error
        made = converted.make_model("", graph_name=graph.name)
    owners = OpOwners(by_op=nodes.owners)
    found = onnx_structure.finish(
        made,
        onnx_structure._unfilled(made, constants),
        list(values.values()),
        graph,
        job.opset,
        job.dtype,
        owners,
        [None] * len(graph.outputs),
    )
    is_quantised = any(node.op_type == "QuantizeLinear" for node in found.nodes)
    return dataclasses.replace(found, notes=lambda: (SATURATION, *found.notes())) if is_quantised else found


def _processed(main: Graph, bodies: list[Graph], *, dequantize: bool) -> Graph:
    converted = tfonnx.process_graphs(main, bodies, None, [], [], False, REWRITERS, None, None, True, dequantize)
    converted.delete_unused_nodes(converted.outputs)
    return converted


def _refuse_unknown_ops(model: LiteModel, layers: LiteLayers, name: str) -> None:
    """Before anything is converted, so that all of them are named."""
    known = tfl_op.create_tfl_to_tf_mapping().keys() | handler.tf_op.create_mapping(opsets.TF2ONNX_OPSET, None).keys()
    unknown: dict[str, str] = {}
    for number, graph in enumerate(model.graphs):
        for place, each in enumerate(graph.operators):
            row = layers.rows.get((number, place))
            if row is not None and f"TFL_{each.op}" not in known and not each.op.startswith(FLEX):
                unknown.setdefault(f"custom op {each.op}" if each.is_custom else each.op, row)
            kinds = (graph.tensors[tensor].dtype for tensor in (*each.inputs, *each.outputs) if tensor != OPTIONAL)
            if row is not None and None in kinds:
                unknown.setdefault(f"state that {each.op} keeps outside of tensors", row)
    if unknown:
        raise UnsupportedError(
            f"no ONNX form is known for the TensorFlow Lite {', '.join(unknown)}",
            where=f"{name}, layer {', '.join(list(unknown.values())[:5])}",
            why="neither tf2onnx nor this version of export-model knows what it computes",
            hint=onnx_structure.DESCRIBE_ANYWAY,
        )
