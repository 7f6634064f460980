"""Teaches tf2onnx to carry constants that are not in memory, and a few ops that it does not know.

Inside tf2onnx a lazy constant is a `TensorProto` with dims and dtype whose `external_data` names a lazy array. tf2onnx
touches the values of constants in six methods only; `installed` replaces those. tf2onnx's own folding then composes
lazy arrays, because they answer to NumPy's protocols.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
from onnx import TensorProto, helper
from tf2onnx import handler
from tf2onnx.graph import Graph, Node
from tf2onnx.optimizer import const_fold_optimizer, merge_duplicated_nodes_optimizer

from exporter.lazy import LazyArray

LOCATION_PREFIX = "lazy:"


class LazyConstants:
    """The lazy arrays of one conversion, by the number under which a `TensorProto` refers to them."""

    def __init__(self) -> None:
        self._arrays: list[LazyArray] = []

    def stub(self, array: LazyArray, name: str) -> TensorProto:
        """A `TensorProto` that names the array instead of holding its bytes."""
        proto = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            data_location=TensorProto.EXTERNAL,
        )
        proto.external_data.add(key="location", value=f"{LOCATION_PREFIX}{len(self._arrays)}")
        self._arrays.append(array)
        return proto

    def find(self, proto: TensorProto) -> LazyArray | None:
        """The array that a `TensorProto` stands for, None for one that holds its own bytes."""
        if proto.data_location != TensorProto.EXTERNAL:
            return None
        return self._arrays[int(proto.external_data[0].value.removeprefix(LOCATION_PREFIX))]

    def of_node(self, node: Node) -> LazyArray | None:
        if not node.is_const() or node.get_attr("value") is None:
            return None
        return self.find(node.get_attr("value").t)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """tf2onnx with lazy constants, until the block ends."""
        with ExitStack() as patches:
            for owner, name, method in (
                (Node, "get_tensor_value", self._get_tensor_value(Node.get_tensor_value)),
                (Node, "set_tensor_value", self._set_tensor_value(Node.set_tensor_value)),
                (Node, "is_scalar", self._is_scalar(Node.is_scalar)),
                (Graph, "make_const", self._make_const(Graph.make_const)),
                (
                    merge_duplicated_nodes_optimizer.MergeDuplicatedNodesOptimizer,
                    "_group_nodes_by_type_inputs",
                    staticmethod(self._group_nodes),
                ),
            ):
                patches.enter_context(mock.patch.object(owner, name, method))
            patches.enter_context(mock.patch.dict(const_fold_optimizer._func_map, MORE_FOLDING))
            yield

    def _get_tensor_value(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def get_tensor_value(node: Node, as_list: bool = True) -> Any:
            array = self.of_node(node)
            if array is None:
                return original(node, as_list)
            return array.tolist() if as_list else array

        return get_tensor_value

    def _set_tensor_value(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def set_tensor_value(node: Node, value: Any) -> None:
            if not isinstance(value, LazyArray):
                return original(node, value)
            proto = self.stub(value, node.get_attr("value").t.name)
            node.set_attr("value", proto)
            node.graph.set_shape(proto.name, list(proto.dims))
            return None

        return set_tensor_value

    def _is_scalar(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def is_scalar(node: Node) -> bool:
            array = self.of_node(node)
            return original(node) if array is None else array.shape == ()

        return is_scalar

    def _make_const(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def make_const(graph: Graph, name: str, value: Any, skip_conversion: bool = False, raw: bool = True) -> Node:
            if not isinstance(value, LazyArray):
                return original(graph, name, value, skip_conversion, raw)
            proto = self.stub(value, name)
            node = graph.make_node(
                "Const",
                [],
                outputs=[name],
                name=name,
                attr={"value": proto},
                skip_conversion=skip_conversion,
                dtypes=[proto.data_type],
                infer_shape_dtype=False,
            )
            graph.set_shape(name, list(value.shape))
            graph.set_dtype(name, proto.data_type)
            return node

        return make_const

    def _group_nodes(self, graph: Graph) -> dict[Any, list[Node]]:
        """Candidates for merging. A lazy constant equals only itself: its value is not known here."""
        groups: dict[Any, list[Node]] = defaultdict(list)
        for node in graph.get_nodes():
            if not node.is_graph_input_default_const():
                groups[node.type, tuple(node.input), self._identity(node)].append(node)
        return groups

    def _identity(self, node: Node) -> Any:
        if not node.is_const():
            return None
        array = self.of_node(node)
        return ("lazy", id(array)) if array is not None else hash(node.attr["value"].t.raw_data)


def _operands(node: Node) -> list[Any]:
    return [producer.get_tensor_value(as_list=False) for producer in node.inputs]


def _fold_squeeze(node: Node, graph: Graph) -> list[Any]:
    array, *axes = _operands(node)
    return [np.squeeze(array, tuple(int(axis) for axis in axes[0]) if axes else None)]


# What TensorFlow's own optimiser folds when it sees the weights, in tf2onnx's form: (node, graph) → [value].
MORE_FOLDING: dict[str, Callable[[Node, Graph], list[Any]]] = {
    "Div": lambda node, graph: [np.divide(*_operands(node))],
    "Neg": lambda node, graph: [np.negative(*_operands(node))],
    "Reciprocal": lambda node, graph: [np.divide(np.float32(1), *_operands(node))],
    "Sqrt": lambda node, graph: [np.sqrt(*_operands(node))],
    "Squeeze": _fold_squeeze,
}


def _one_like(graph: Graph, node: Node) -> str:
    dtype = helper.tensor_dtype_to_np_dtype(graph.get_dtype(node.output[0]))
    return graph.make_const(node.child_name(), np.array(1, dtype)).output[0]


@handler.tf_op("Erfc")
class Erfc:
    """erfc(x) = 1 - erf(x); Keras's exact `gelu` uses it."""

    @classmethod
    def version_9(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        erf = graph.make_node("Erf", node.input, name=node.child_name()).output[0]
        _replace(graph, node, "Sub", [_one_like(graph, node), erf])


@handler.tf_op("Expm1")
class Expm1:
    """expm1(x) = exp(x) - 1; Keras's `celu` uses it."""

    @classmethod
    def version_6(cls, graph: Graph, node: Node, **kwargs: Any) -> None:
        exp = graph.make_node("Exp", node.input, name=node.child_name()).output[0]
        _replace(graph, node, "Sub", [exp, _one_like(graph, node)])


def _replace(graph: Graph, node: Node, op_type: str, inputs: list[str]) -> None:
    """The same node name and output, made by another op."""
    shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, node.output
    graph.remove_node(node.name)
    graph.make_node(op_type, inputs, name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)
