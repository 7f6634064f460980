"""Opsets above the last that tf2onnx writes: a finished graph is declared to be of a newer one, op by op."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, helper
from onnx.defs import OpSchema

from exporter.errors import UnsupportedError
from exporter.sources.rewriting.onnx_graph import graphs

# tf2onnx 1.17 knows the ops up to this opset.
TF2ONNX_OPSET = 18
# Node metadata (`metadata_props`) came with this version of the format; ONNX Runtime reads it from 1.18 on.
METADATA_IR_VERSION = 10
# Ops that mean something else from an opset on, with attributes and inputs that look the same or that a new op lacks.
# The other changes from 18 to 28 add types and attributes, or say more precisely what was meant.
CHANGED = {"GridSample": 20, "DFT": 20, "GroupNormalization": 21}


def declare(model: ModelProto, opset: int) -> None:
    """Set the model's opset, at least that of its conversion, and the lowest version of the format that goes with it.

    Raises UnsupportedError for an op that cannot be taken over as it is.
    """
    for entry in model.opset_import:
        if not entry.domain:
            if opset > entry.version:
                _check(model, entry.version, opset)
            entry.version = max(opset, entry.version)
    model.ir_version = ir_version(opset)


def ir_version(opset: int) -> int:
    """The lowest version of the file format that may hold the opset and metadata on nodes."""
    return max(METADATA_IR_VERSION, helper.OP_SET_ID_VERSION_MAP["ai.onnx", opset])


def _check(model: ModelProto, old: int, new: int) -> None:
    for graph in graphs(model.graph):
        for node in graph.node:
            # What is not known in the old opset was made for the new one.
            if not node.domain and onnx.defs.has(node.op_type, old):
                _take_over(node, old, new)


def _take_over(node: NodeProto, old: int, new: int) -> None:
    """Leave the node as it is, with the defaults that it had; raise where the newer op is another."""
    before, after = (onnx.defs.get_schema(node.op_type, opset) for opset in (old, new))
    if before.since_version == after.since_version:
        return
    if after.deprecated or before.since_version < CHANGED.get(node.op_type, 0) <= after.since_version:
        _refuse(node, new, "the op means something else since then")
    given = {attribute.name for attribute in node.attribute}
    if not given <= after.attributes.keys() or not after.min_input <= len(node.input) <= after.max_input:
        _refuse(node, new, "its attributes or inputs have changed")
    for name, attribute in before.attributes.items():
        if name not in given and _default(before, name) != _default(after, name):
            if not attribute.default_value.name:
                _refuse(node, new, f"its attribute {name} has a default since then")
            node.attribute.append(attribute.default_value)
    if any(after.attributes[name].required for name in after.attributes.keys() - before.attributes.keys()):
        _refuse(node, new, "it has new attributes without a default")


def _default(schema: OpSchema, name: str) -> bytes | None:
    if name not in schema.attributes:
        return None
    default: AttributeProto = schema.attributes[name].default_value
    return default.SerializeToString(deterministic=True)


def _refuse(node: NodeProto, opset: int, why: str) -> None:
    raise UnsupportedError(
        f"{node.op_type} cannot be written for opset {opset}",
        where=f"node {node.name}",
        why=f"{why}, and this version of export-model has no conversion",
        hint=f"--opset {TF2ONNX_OPSET}",
    )
