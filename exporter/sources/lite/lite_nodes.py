"""The graphs of a `.tflite` file as tf2onnx's, in the form in which its handlers of TensorFlow Lite ops want them.

It is what `tf2onnx.tflite_utils` makes, from records that have been checked, with names that are unique, without a
run of the interpreter, and with weights that stay in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf
from onnx import NodeProto, TensorProto, helper, numpy_helper
from tf2onnx import flexbuffers, tflite_utils, utils
from tf2onnx.graph import Graph
from tf2onnx.tf_utils import read_tf_node_def_attrs

from exporter.errors import UnsupportedError
from exporter.lazy import LazyArray
from exporter.sources.conversion.tf2onnx_lazy import LazyConstants
from exporter.sources.lite.lite_layers import LiteLayers
from exporter.sources.lite.lite_model import OPTIONAL, LiteGraph, LiteModel, LiteOperator, LiteTensor, Quantization
from exporter.sources.lite.operator_options import ENUMERATIONS

# Custom ops whose options tf2onnx reads; others have none that it knows.
FLEX, DETECTIONS = "Flex", "TFLite_Detection_PostProcess"
# TensorFlow Lite says of these ops' outputs less than there is.
DETECTION_SHAPES = ([-1, -1, 4], [-1, -1], [-1, -1], [-1])
MOST_FLEX_VALUES = 100_000
# Whole numbers up to this size are shapes and axes, which handlers look at.
SMALL_NBYTES = 1024


class LiteNodes:
    """Makes the graphs of one conversion."""

    def __init__(
        self, model: LiteModel, layers: LiteLayers, values: Mapping[str, LazyArray], constants: LazyConstants
    ) -> None:
        self._model, self._layers, self._values, self._constants = model, layers, values, constants
        # The layer of each node, by the node's name.
        self.owners: dict[str, str] = {}

    def graphs(self) -> tuple[Graph, list[Graph]]:
        """The main graph, and those that it runs, each after those that it runs itself."""
        order: list[int] = []
        stack = [(self._layers.number, False)]
        while stack:
            number, is_finished = stack.pop()
            if is_finished:
                order.append(number)
            elif number not in order:
                stack.append((number, True))
                operators = self._model.graphs[number].operators
                stack += [(inner, False) for each in operators for inner in each.graphs.values()]
        unique = list(dict.fromkeys(order))
        made = [GraphNodes(self, number).graph() for number in unique]
        return made[-1], made[:-1]


class GraphNodes:
    """Makes one of them."""

    def __init__(self, all_nodes: LiteNodes, number: int) -> None:
        self.all, self.number = all_nodes, number
        self.lite: LiteGraph = all_nodes._model.graphs[number]
        self.is_main = number == all_nodes._layers.number
        self.shapes: dict[str, list[int] | None] = {}
        self.dtypes: dict[str, int] = {}
        self.nodes: list[NodeProto] = []
        self.dequantised: dict[str, str] = {}
        self.names = [f"t{number}_{place}" for place in range(len(self.lite.tensors))]

    def graph(self) -> Graph:
        described = self.all._layers.graph
        if self.is_main:
            for place, spec in zip(self.lite.inputs, described.inputs, strict=True):
                self.names[place] = spec.name
        for name, tensor in zip(self.names, self.lite.tensors, strict=True):
            self._take(name, tensor)
        for place, operator in enumerate(self.lite.operators):
            self._add(place, operator)
        inputs = [self.names[place] for place in self.lite.inputs]
        for name in dict.fromkeys(inputs):
            self.nodes.append(helper.make_node("Placeholder", [], outputs=[name], name=name))
        outputs = [self.names[place] for place in self.lite.outputs]
        wanted = [spec.name for spec in described.outputs] if self.is_main else [f"{each}_out" for each in outputs]
        for name, output in zip(wanted, outputs, strict=True):
            self.nodes.append(helper.make_node("Identity", [output], outputs=[name], name=f"{name}_out"))
            self._declare(name, output)
        return Graph(
            self.nodes, self.shapes, self.dtypes, input_names=inputs, output_names=wanted,
            is_subgraph=not self.is_main, graph_name=graph_name(self.number),
        )  # fmt: skip

    def _declare(self, name: str, like: str, dtype: int | None = None) -> None:
        shape = self.shapes[like]
        self.shapes[name] = None if shape is None else list(shape)
        self.dtypes[name] = self.dtypes[like] if dtype is None else dtype

    def _take(self, name: str, tensor: LiteTensor) -> None:
        self.shapes[name] = None if tensor.shape is None else [-1 if size is None else size for size in tensor.shape]
        self.dtypes[name] = onnx_dtype(tensor.dtype)
        if tensor.is_constant:
            proto = self._constant(name, tensor)
            self.nodes.append(helper.make_node("Const", [], outputs=[name], name=name, value=proto))

    def _constant(self, name: str, tensor: LiteTensor) -> TensorProto:
        weight = self.all._layers.names[tensor.buffer]
        array = self.all._values.get(weight)
        if array is None or tensor.bits < 8:
            kind = "text" if tensor.dtype == "string" else "packed" if tensor.bits < 8 else "in another file"
            raise UnsupportedError(
                "tf2onnx cannot convert a constant", where=weight, why=f"its elements are {kind}",
                hint="--to parquet,dot,svg describes the model without converting it",
            )  # fmt: skip
        array = array.reshape(tuple(size or 0 for size in tensor.shape or ()))
        if array.dtype.kind in "iu" and array.dtype.itemsize >= 4 and array.nbytes <= SMALL_NBYTES:
            return numpy_helper.from_array(array.real(), name)
        return self.all._constants.stub(array, name)

    def _add(self, place: int, operator: LiteOperator) -> None:
        op, attributes = f"TFL_{operator.op}", self._attributes(operator)
        inputs = [self.names[each] for each in operator.inputs if each != OPTIONAL]
        outputs = [self.names[each] for each in operator.outputs if each != OPTIONAL]
        row = self.all._layers.rows.get((self.number, place), "")
        if operator.op.startswith(FLEX):
            op, attributes = self._tensorflow_op(operator, inputs)
        if op == "TFL_QUANTIZE":
            attributes |= _quantisation(self.lite.tensors[operator.outputs[0]].quantization)
        elif op == "TFL_DEQUANTIZE":
            attributes |= _quantisation(self.lite.tensors[operator.inputs[0]].quantization)
        if op != "TFL_DEQUANTIZE":
            inputs = [self._dequantised(each, row) for each in operator.inputs if each != OPTIONAL]
        if operator.op == DETECTIONS:
            for name, shape in zip(outputs, DETECTION_SHAPES, strict=False):
                self.shapes[name] = list(shape)
        self._mark_unknown_shapes(op, inputs, outputs, attributes)
        if op != "TFL_QUANTIZE":
            outputs = [self._quantised(each, row) for each in operator.outputs if each != OPTIONAL]
        name = self._node_name(row, outputs)
        self.nodes.append(utils.make_onnx_node_with_attr(op, inputs, outputs, name=name, **attributes))

    def _node_name(self, row: str, outputs: list[str]) -> str:
        """The row's, so that whatever a handler derives from the node leads to it."""
        name = row if row and row not in self.all.owners else f"{outputs[0] if outputs else 'operator'}_node"
        if row:
            # tf2onnx makes a loop of another name.
            self.all.owners |= {name: row, f"{name}_loop": row}
        return name

    def _mark_unknown_shapes(self, op: str, inputs: list[str], outputs: list[str], attributes: dict[str, Any]) -> None:
        """TensorFlow Lite writes the shape of a scalar for what it does not know."""
        shapes = [self.shapes[name] for name in inputs]
        if all(self.shapes[name] == [] for name in outputs) and any(shape != [] for shape in shapes):
            is_unknown = any(shape is None for shape in shapes)
            if is_unknown or not tflite_utils.op_has_scalar_output(shapes, op, attributes):
                self.shapes |= dict.fromkeys(outputs)

    def _dequantised(self, place: int, row: str) -> str:
        """The tensor as numbers, made once."""
        name, attributes = self.names[place], _quantisation(self.lite.tensors[place].quantization)
        if not attributes:
            return name
        if name not in self.dequantised:
            found = self.dequantised[name] = f"{name}_dequantised"
            self.all.owners[found] = row
            self.nodes.append(
                utils.make_onnx_node_with_attr("TFL_DEQUANTIZE", [name], [found], name=found, **attributes)
            )
            self._declare(found, name, TensorProto.FLOAT)
        return self.dequantised[name]

    def _quantised(self, place: int, row: str) -> str:
        """What the operator is to give, when the tensor is made of it by rounding."""
        name, attributes = self.names[place], _quantisation(self.lite.tensors[place].quantization)
        if not attributes:
            return name
        before = f"{name}_before"
        self.all.owners[f"{name}_quantised"] = row
        self.nodes.append(
            utils.make_onnx_node_with_attr("TFL_QUANTIZE", [before], [name], name=f"{name}_quantised", **attributes)
        )
        self._declare(before, name, TensorProto.FLOAT)
        return before

    def _attributes(self, operator: LiteOperator) -> dict[str, Any]:
        found = dict(operator.options)
        for key, enumeration in ENUMERATIONS.items():
            if enumeration == "TensorType" and key in found:
                found[key] = onnx_dtype(str(found[key]).lower())
        found |= {key: graph_name(number) for key, number in operator.graphs.items()}
        if "asymmetric_quantize_inputs" in found:
            # ONNX quantises a whole batch alike while it runs, TensorFlow Lite each sample: float32 is nearer.
            found["asymmetric_quantize_inputs"] = 0
        if operator.op == DETECTIONS:
            found |= {str(key): value for key, value in _flex_values(operator.custom_options).items()}
        return found

    def _tensorflow_op(self, operator: LiteOperator, inputs: list[str]) -> tuple[str, dict[str, Any]]:
        """An op of TensorFlow itself, whose definition is in the options."""
        name, definition = _flex_values(operator.custom_options, decode=False)[:2]
        node = tf.compat.v1.NodeDef.FromString(definition)
        kinds = [self.lite.tensors[each].dtype or tf.variant for each in operator.inputs if each != OPTIONAL]
        dtypes = [tf.as_dtype(kind).as_datatype_enum for kind in kinds]
        shapes = [None if (s := self.shapes[each]) is None else [None if d < 0 else d for d in s] for each in inputs]
        attributes, _ = read_tf_node_def_attrs(node, dtypes, shapes)
        return name.decode("utf-8"), attributes


def graph_name(number: int) -> str:
    return f"lite_graph_{number}"


def onnx_dtype(name: str | None) -> int:
    """Of text and of resources, whatever tf2onnx takes them for."""
    if name is None:
        return TensorProto.UNDEFINED
    if name == "string":
        return TensorProto.STRING
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(name)))


def _quantisation(found: Quantization | None) -> dict[str, Any]:
    if found is None:
        return {}
    zero_point = found.zero_point.tolist()
    if len(zero_point) < len(found.scale):
        zero_point *= len(found.scale)
    return {"scale": found.scale.tolist(), "zero_point": zero_point, "quantized_dimension": found.axis}


def _flex_values(options: bytes, *, decode: bool = True) -> Any:
    """What a FlexBuffer holds. Raises ValueError when that is more than a few settings."""
    left = iter(range(MOST_FLEX_VALUES))
    original = flexbuffers.read_buffer

    def counted(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise ValueError("the options of a custom op are too large")
        return original(*arguments)

    try:
        with mock.patch.object(flexbuffers, "read_buffer", counted):
            return flexbuffers.read_flexbuffer(options, decode_strings=decode)
    except (struct.error, RecursionError, flexbuffers.FlexbufferParseException) as error:
        raise ValueError(f"the options of a custom op: {error}") from error
