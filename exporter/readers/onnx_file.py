"""ONNX files, of any size: the graph is read node by node, the weights stay where they are."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from exporter.costs.model_costs import DIMENSION, job_costs, stated_sizes
from exporter.costs.node_costs import concrete, concrete_costs
from exporter.errors import SourceError
from exporter.readers.described import DescribedModel
from exporter.readers.onnx_graph import Describer, value_spec
from exporter.readers.onnx_initializers import check_initializers, lazy_values, missing_files, stored_tensors
from exporter.readers.onnx_parts import OnnxParts, read_parts
from exporter.records import Job, LayerCosts, ModelGraph, OnnxNode
from exporter.sources.h5_values import COPY_AGAIN

# Above this, shapes that the file does not give stay unknown, and so do costs: inferring them needs a second graph.
MOST_INFERRED = 100_000
# Larger initializers are no shapes or axes.
LARGEST_SHAPE_BYTES = 1024
UNKNOWN = "shapes that the file does not give, and costs, are unknown"
NO_COSTS = LayerCosts({}, 1, DIMENSION, 0, None, None, None)


def read(job: Job, spool_path: str) -> DescribedModel:
    """Raises SourceError."""
    path = Path(job.source)
    try:
        parts = read_parts(path)
        check_initializers(parts)
        graph, nodes, costs, notes = _described(parts, job)
    except (ValueError, TypeError, DecodeError, OSError) as error:
        why = f"as ONNX: {error}"
        raise SourceError("is truncated or corrupt", where=job.source, why=why, hint=COPY_AGAIN) from error
    opset = next((each.version for each in parts.head.opset_import if each.domain in ("", "ai.onnx")), None)
    missing = [f"{name}, which holds weights, is not there" for name in missing_files(parts)]
    return DescribedModel(
        graph=graph,
        weights="from the ONNX file",
        values=dict(lazy_values(parts)) if job.stats else {},
        notes=(*notes, *missing),
        nodes=nodes,
        costs=costs,
        stored=tuple(stored_tensors(parts)),
        opset=opset,
    )


def _described(parts: OnnxParts, job: Job) -> tuple[ModelGraph, tuple[OnnxNode, ...], LayerCosts, tuple[str, ...]]:
    """With shapes that the file leaves out, and costs; a note where those cannot be had."""
    if parts.node_count > MOST_INFERRED:
        why = f"it has more than {MOST_INFERRED:,} nodes"
        return *Describer(parts, job.name).describe(), NO_COSTS, (f"{UNKNOWN}: {why}",)
    initializers = {each.proto.name for each in parts.initializers}
    inputs = [value_spec(value) for value in parts.inputs if value.name not in initializers]
    hollow = hollow_model(parts)
    try:
        inferred = onnx.shape_inference.infer_shapes(hollow, data_prop=True).graph
        fixed = concrete(hollow, *stated_sizes(job, inputs))
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        why = str(error).splitlines()[0]
        return *Describer(parts, job.name).describe(), NO_COSTS, (f"{UNKNOWN}: {why}",)
    counted = Describer(parts, job.name, costs=concrete_costs(fixed), values=inferred.value_info)
    graph, nodes = counted.describe()
    values = [*fixed.graph.value_info, *fixed.graph.input, *fixed.graph.output]
    return graph, nodes, job_costs(job, Describer(parts, job.name, fixed=values).describe()[0], nodes), ()


def hollow_model(parts: OnnxParts) -> ModelProto:
    """The whole graph without weights; shapes and axes among the initializers keep their numbers."""
    model = ModelProto()
    model.CopyFrom(parts.head)
    graph = model.graph
    graph.name = parts.name or "graph"
    graph.node.extend(parts.nodes())
    graph.input.extend(parts.inputs)
    graph.output.extend(parts.outputs)
    graph.value_info.extend(parts.value_infos())
    for stored in parts.initializers:
        is_small = stored.message[1] - stored.message[0] <= LARGEST_SHAPE_BYTES
        proto = graph.initializer.add()
        proto.CopyFrom(parts.initializer(stored) if is_small else stored.proto)
        if not is_small:
            proto.data_location = TensorProto.EXTERNAL
    return model
