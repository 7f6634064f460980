"""Which tensor of a checkpoint each variable of a graph gets: what the part of the graph says that restores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from exporter.errors import SourceError
from exporter.lazy import LazyArray
from exporter.sources.graphs.graph_parts import part_of, source_of
from exporter.sources.graphs.graph_source import GraphValue
from exporter.sources.graphs.graph_variables import variables_of
from exporter.sources.graphs.graph_walk import node_name, tensor_name
from exporter.sources.graphs.slice_keys import Slice, parse_slice
from exporter.sources.graphs.tensor_bundle import TensorBundle
from exporter.sources.graphs.tensorflow_types import numpy_dtype
from exporter.sources.h5_values import COPY_AGAIN

ASSIGNING = ("AssignVariableOp", "Assign")
RESTORING = "the graph that restores the variables"
# The file, the keys, and which parts of tensors.
RESTORE_INPUTS = 3


def variable_values(
    meta_graph: meta_graph_pb2.MetaGraphDef, bundle: TensorBundle, trainable: Mapping[str, bool]
) -> dict[str, GraphValue]:
    """The value of each variable, by its node. `trainable` is by the name that the variable had in the program.

    Raises SourceError for a variable whose tensor is missing in the checkpoint, or of another shape.
    """
    places = restored(meta_graph)
    program_names = bundle.object_names
    found: dict[str, GraphValue] = {}
    for variable in variables_of(meta_graph.graph_def):
        key, part = places.get(variable.node, (variable.node, None))
        if key not in bundle.entries and variable.node not in places:
            # Left over from building the graph; the signature may not use it, and says so if it does.
            continue
        array = _fitting(bundle.value(key, part), variable, bundle)
        name = program_names.get(key) or variable.node
        found[variable.node] = GraphValue(array, name, trainable.get(name, trainable.get(variable.node, True)))
    return found


def _fitting(array: LazyArray, variable: Any, bundle: TensorBundle) -> LazyArray:
    shape = tf.TensorShape(variable.shape)
    if not shape.is_compatible_with(array.shape) or numpy_dtype(variable.dtype) != array.dtype:
        dtype = tf.dtypes.as_dtype(variable.dtype).base_dtype.name
        raise bundle.fault(f"{variable.node} is {dtype}{shape}, and its tensor {array.dtype}{list(array.shape)}")
    return array


def restored(meta_graph: meta_graph_pb2.MetaGraphDef) -> dict[str, tuple[str, Slice | None]]:
    """Key, and part if it is one, by the node of a variable; empty for a graph that restores nothing."""
    root = meta_graph.saver_def.restore_op_name
    graph_def = part_of(meta_graph.graph_def, [root], RESTORING) if root else None
    if graph_def is None:
        return {}
    nodes = {node.name: node for node in graph_def.node}
    found = {}
    for node in nodes.values():
        if node.op in ASSIGNING and len(node.input) > 1:
            variable, restoring = source_of(nodes, node.input[0]), source_of(nodes, node.input[1])
            maker = nodes.get(node_name(restoring))
            if maker is None or maker.op != "RestoreV2" or len(maker.input) < RESTORE_INPUTS:
                continue
            place = int(tensor_name(restoring).rpartition(":")[2])
            keys, parts = (_texts(nodes, tensor) for tensor in maker.input[1:RESTORE_INPUTS])
            if place < len(keys):
                # Of equal texts, as those that mean whole tensors, only the first is written.
                found[node_name(variable)] = keys[place], _part(parts[min(place, len(parts) - 1)] if parts else "")
    for original, copy in _copied(meta_graph.graph_def):
        if copy in found:
            found.setdefault(original, found[copy])
    return found


def _copied(graph_def: Any) -> Iterator[tuple[str, str]]:
    """Variables of which saving made a copy that starts with their value, as of Keras 3's layers in a `tf.Module`.

    The signature computes with the first, and only the second is restored.
    """
    nodes = {node.name: node for node in graph_def.node}
    for node in graph_def.node:
        if node.op == "AssignVariableOp" and len(node.input) > 1:
            reading = nodes.get(node_name(node.input[1]))
            if reading is not None and reading.op == "ReadVariableOp":
                yield node_name(source_of(nodes, reading.input[0])), node_name(source_of(nodes, node.input[0]))


def _part(text: str) -> Slice | None:
    try:
        return parse_slice(text)
    except ValueError as error:
        raise SourceError(
            "is damaged", where=RESTORING, why=f"{text!r} is no part of a tensor", hint=COPY_AGAIN
        ) from error


def _texts(nodes: Mapping[str, Any], tensor: str) -> list[str]:
    node = nodes.get(node_name(source_of(nodes, tensor)))
    if node is None or node.op != "Const":
        return []
    return [text.decode("utf-8", "replace") for text in node.attr["value"].tensor.string_val]


def trainable_names(meta_graph: meta_graph_pb2.MetaGraphDef) -> dict[str, bool]:
    """Whether training changes a variable, by name: of objects in TensorFlow 2, of collections in TensorFlow 1."""
    found = {}
    for node in meta_graph.object_graph_def.nodes:
        if node.HasField("variable"):
            found[node.variable.name] = node.variable.trainable
    for collection in ("variables", "trainable_variables"):
        for each in _collected(meta_graph, collection):
            found[node_name(each)] = collection == "trainable_variables"
    return found


def _collected(meta_graph: meta_graph_pb2.MetaGraphDef, collection: str) -> Iterator[str]:
    for data in meta_graph.collection_def[collection].bytes_list.value:
        yield variable_pb2.VariableDef.FromString(data).variable_name
