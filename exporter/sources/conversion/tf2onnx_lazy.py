"""Teaches tf2onnx to carry constants that are not in memory.

Inside tf2onnx a lazy constant is a `TensorProto` with dims and dtype whose `external_data` names a lazy array. tf2onnx
touches the values of constants in four methods only; `installed` replaces those. What tf2onnx does to kernels then
composes lazy arrays, because they answer to NumPy's protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
from onnx import TensorProto, helper
from tf2onnx.graph import Graph, Node
from tf2onnx.rewriter import lstm_rewriter

from exporter.lazy import LazyArray, stack

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
            ):
                patches.enter_context(mock.patch.object(owner, name, method))
            # Its rewriters iterate over sets of nodes, which by default hash by address: another order in each run.
            patches.enter_context(mock.patch.object(Node, "__hash__", lambda node: hash(node.name)))
            patches.enter_context(mock.patch.object(lstm_rewriter, "np", NumPyWithLazyArray()))
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
        # The names of the parameters are tf2onnx's own: some of its callers use them as keywords.
        def make_const(graph: Graph, name: str, np_val: Any, skip_conversion: bool = False, raw: bool = True) -> Node:
            if not isinstance(np_val, LazyArray):
                return original(graph, name, np_val, skip_conversion, raw)
            proto = self.stub(np_val, name)
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
            graph.set_shape(name, list(np_val.shape))
            graph.set_dtype(name, proto.data_type)
            return node

        return make_const


class NumPyWithLazyArray:
    """NumPy for a module that calls `np.array([lazy])`, which would read the array one row at a time."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def array(self, value: Any, dtype: Any = None) -> Any:
        if isinstance(value, list) and any(isinstance(item, LazyArray) for item in value):
            return stack(value).astype(dtype)
        return np.array(value, dtype)
