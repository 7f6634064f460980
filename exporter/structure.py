"""An ONNX model between its source and the writer: complete but for the weights, which are lazy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.lazy import LazyArray
from exporter.records import OnnxNode

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class OnnxStructure:
    """An ONNX model in which weights are named, not filled.

    `model` is a `ModelProto`; an initializer whose name is in `weights` has dims and a data type and no bytes, all
    others hold theirs. `nodes` describes the graph's nodes, in the graph's order. `notes` gives sentences for the user,
    to be asked for when the weights have been made: some count what rounding did to them.
    """

    model: ModelProto
    weights: Mapping[str, LazyArray]
    nodes: tuple[OnnxNode, ...]
    notes: Callable[[], tuple[str, ...]] = tuple


# Constants up to this size say what a node does: shapes, axes, scalars.
SMALL_NBYTES = 1024


def hollow_copy(structure: OnnxStructure) -> ModelProto:
    """The model without weights, for those that come after the writer; small constants have their values."""
    from onnx import numpy_helper

    model = copy.deepcopy(structure.model)
    for proto in model.graph.initializer:
        array = structure.weights.get(proto.name)
        if array is not None and not array.origins and array.nbytes <= SMALL_NBYTES:
            proto.CopyFrom(numpy_helper.from_array(array.real(), proto.name))
    return model
