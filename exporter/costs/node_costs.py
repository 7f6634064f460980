"""What the nodes of an ONNX graph cost, from their ops, attributes and concrete shapes.

Works on hollow graphs: an initializer needs its dims, not its bytes. What is counted is in `exporter.costs.counting`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from exporter.costs.counting import Operations, Sizes, count
from exporter.costs.node_formulas import FORMULAS, NodeCall
from exporter.records import Cost

# Loops without a limit have the largest number as one.
UNLIMITED = 2**31


@dataclass(frozen=True)
class Value:
    """What shape inference knows of a value; `shape` is None when a dimension is unknown."""

    shape: Sizes | None
    dtype: int


def node_costs(model: ModelProto, batch_size: int = 1, dimension: int = 128) -> list[Cost]:
    """The cost of each node of the main graph, in its order.

    `batch_size` stands for a dynamic first dimension of the model's inputs, `dimension` for any other dynamic one.
    Reads no weight. A loop costs its body times its number of turns, if that is known.
    """
    return concrete_costs(concrete(model, batch_size, dimension))


def concrete_costs(model: ModelProto) -> list[Cost]:
    """The same of a model that `concrete` has made."""
    return list(_Scope({}, {}).costs(model.graph))


def concrete(model: ModelProto, batch_size: int, dimension: int) -> ModelProto:
    """A copy of the model with fixed inputs and with all shapes that follow from them."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    for graph in _graphs(fixed.graph):
        del graph.value_info[:]
    for value in fixed.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_value = dimension if axis else batch_size
    for value in fixed.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    if not any(node.op_type == "Loop" for node in inferred.graph.node):
        return inferred
    _hand_into_loops(inferred.graph)
    return onnx.shape_inference.infer_shapes(inferred, data_prop=True)


def _hand_into_loops(graph: GraphProto) -> None:
    """Give what a loop carries the shape that it starts with, and what it collects its number of turns.

    Shape inference leaves both open, because a body may change the shape; recurrent layers do not.
    """
    scope = _Scope({}, {})
    scope.enter(graph)
    types = {value.name: value for value in [*graph.input, *graph.value_info]}
    for node in graph.node:
        if node.op_type != "Loop":
            continue
        body, turns = _bodies(node)["body"], scope.turns(node)
        carried = len(node.input) - 2
        for place in range(carried):
            start = types.get(node.input[2 + place])
            if start is not None:
                for inner in (body.input[2 + place], body.output[1 + place], types.get(node.output[place])):
                    if inner is not None:
                        inner.type.CopyFrom(start.type)
        for name in node.output[carried:]:
            if name in types and turns is not None and types[name].type.tensor_type.shape.dim:
                types[name].type.tensor_type.shape.dim[0].dim_value = turns
        del body.value_info[:]


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for body in _bodies(node).values():
            yield from _graphs(body)


def _bodies(node: NodeProto) -> dict[str, GraphProto]:
    return {each.name: each.g for each in node.attribute if each.type == AttributeProto.GRAPH}


class _Scope:
    """The values that the nodes of a graph can see, those of the graphs around it included."""

    def __init__(self, values: Mapping[str, Value], constants: Mapping[str, int]) -> None:
        self._values, self._constants = dict(values), dict(constants)

    def costs(self, graph: GraphProto) -> Iterator[Cost]:
        self.enter(graph)
        for node in graph.node:
            yield self._cost(node)

    def enter(self, graph: GraphProto) -> None:
        """Learn what the graph says about its values."""
        self._values |= dict(_described([*graph.input, *graph.value_info, *graph.output]))
        for proto in graph.initializer:
            self._values[proto.name] = Value(tuple(proto.dims), proto.data_type)
            self._remember(proto.name, proto)
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].type == AttributeProto.TENSOR:
                self._remember(node.output[0], node.attribute[0].t)

    def turns(self, loop: NodeProto) -> int | None:
        """How often a loop runs at most, if the graph holds that number."""
        turns = self._constants.get(loop.input[0])
        return turns if turns is not None and turns < UNLIMITED else None

    def _remember(self, name: str, proto: TensorProto) -> None:
        """Numbers of turns: integers that the graph itself holds."""
        if proto.data_type == TensorProto.INT64 and math.prod(proto.dims) == 1 and not _is_elsewhere(proto):
            self._constants[name] = int(numpy_helper.to_array(proto).reshape(()))

    def _cost(self, node: NodeProto) -> Cost:
        inputs = [self._values.get(name) if name else None for name in node.input]
        outputs = [self._values.get(name) for name in node.output if name]
        found = self._operations(node, inputs, outputs)
        return Cost(
            macs=None if found is None else found.macs,
            flops=None if found is None else found.flops,
            activation_bytes=_nbytes(outputs),
            method="onnx" if found else None,
        )

    def _operations(
        self, node: NodeProto, inputs: Sequence[Value | None], outputs: Sequence[Value | None]
    ) -> Operations | None:
        if node.op_type in ("Loop", "Scan") and not node.domain:
            return self._repeated(node, inputs)
        formula = FORMULAS.get((node.domain, node.op_type))
        shapes = [value.shape for value in outputs if value is not None and value.shape is not None]
        if formula is None or len(shapes) < len(outputs):
            return None
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        call = NodeCall(attributes, tuple(None if value is None else value.shape for value in inputs), tuple(shapes))
        try:
            return formula(call)
        # An input that the formula needs has no known shape, or none that the op may have.
        except (ArithmeticError, LookupError, TypeError, ValueError):
            return None

    def _repeated(self, node: NodeProto, inputs: Sequence[Value | None]) -> Operations | None:
        turns = self.turns(node) if node.op_type == "Loop" else _scanned(node, inputs)
        if turns is None:
            return None
        inner, total = _Scope(self._values, self._constants), Operations()
        for cost in inner.costs(_bodies(node)["body"]):
            if cost.macs is None:
                return None
            total += Operations(cost.macs, None if cost.flops is None else cost.flops - 2 * cost.macs)
        return total * turns


def _scanned(node: NodeProto, inputs: Sequence[Value | None]) -> int | None:
    """How often the body of a `Scan` runs: the length of what it goes through."""
    number = next(each.i for each in node.attribute if each.name == "num_scan_inputs")
    first = inputs[len(inputs) - number]
    return first.shape[0] if first and first.shape else None


def _is_elsewhere(proto: TensorProto) -> bool:
    return proto.data_location == TensorProto.EXTERNAL


def _described(values: Iterable[ValueInfoProto]) -> Iterator[tuple[str, Value]]:
    for value in values:
        kind = value.type.tensor_type
        known = kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim)
        yield value.name, Value(tuple(dim.dim_value for dim in kind.shape.dim) if known else None, kind.elem_type)


def _nbytes(values: Sequence[Value | None]) -> int | None:
    total = 0
    for value in values:
        if value is None or value.shape is None or value.dtype in (TensorProto.UNDEFINED, TensorProto.STRING):
            return None
        total += count(value.shape) * helper.tensor_dtype_to_np_dtype(value.dtype).itemsize
    return total
