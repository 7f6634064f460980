"""An ONNX graph under change: who makes a value, who uses it and what is constant, each found in constant time.

Protobuf lists need a search for each of these questions, which makes rewriting a graph of n nodes take n² steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TypeProto, helper, numpy_helper

from exporter.lazy import LazyArray
from exporter.sources.rewriting.onnx_graph import stub
from exporter.sources.rewriting.onnx_node import Node

__all__ = ["Constant", "Editor", "Node"]

Constant = LazyArray | np.ndarray


class Editor:
    """One graph: that of a model, or the body of a loop or branch. What bodies inside take from outside is known.

    `scope` is part of the names of new values, because those of a body must not be those of what is around it.
    """

    def __init__(self, edited: ModelProto | GraphProto, weights: Mapping[str, LazyArray], scope: str = "") -> None:
        graph = edited.graph if isinstance(edited, ModelProto) else edited
        self._graph, self._scope, self._made = graph, scope, 0
        # Kept as long as nothing changes.
        self._order: list[Node] | None = None
        self._dims: dict[str, tuple[int | str | None, ...] | None] = {}
        self.constants: dict[str, Constant] = {
            proto.name: weights[proto.name] if proto.name in weights else numpy_helper.to_array(proto)
            for proto in graph.initializer
        }
        self.inputs = tuple(value.name for value in graph.input)
        self.outputs = tuple(value.name for value in graph.output)
        self._fixed = frozenset(self.outputs)
        self.types: dict[str, TypeProto.Tensor] = {
            value.name: value.type.tensor_type for value in (*graph.input, *graph.output, *graph.value_info)
        }
        self._nodes: dict[Node, None] = {}
        self._producers: dict[str, Node] = {}
        self._consumers: dict[str, dict[Node, None]] = {}
        for proto in graph.node:
            self._insert(
                Node(
                    proto.op_type,
                    tuple(proto.input),
                    tuple(proto.output),
                    proto.name,
                    proto.domain,
                    {attribute.name: attribute for attribute in proto.attribute},
                )
            )

    # Questions.

    def nodes(self) -> list[Node]:
        """The nodes in their order, but producers before consumers. Raises ValueError for a cycle."""
        if self._order is None:
            self._order = self._sorted()
        return list(self._order)

    def _sorted(self) -> list[Node]:
        order: dict[Node, None] = {}
        for root in self._nodes:
            stack, path = [root], set()
            while stack:
                node = stack[-1]
                missing = () if node in order else [made for made in self._producing(node) if made not in order]
                if not missing:
                    order[stack.pop()] = None
                elif node in path:
                    raise ValueError(f"the graph has a cycle through {node.op_type} {node.name}")
                else:
                    path.add(node)
                    stack.extend(reversed(missing))
        return list(order)

    def producer(self, value: str) -> Node | None:
        return self._producers.get(value)

    def consumers(self, value: str) -> list[Node]:
        """Each once, however often it uses the value; a node uses what its subgraphs take from outside."""
        return list(self._consumers.get(value, ()))

    def sole_consumer(self, value: str) -> Node | None:
        """The one node that uses the value, None when there are several or the value is an output of the model."""
        consumers = self._consumers.get(value, {})
        return next(iter(consumers)) if len(consumers) == 1 and value not in self._fixed else None

    def is_output(self, value: str) -> bool:
        """Whether the graph promises the value to the outside, under this name."""
        return value in self._fixed

    def constant(self, value: str) -> Constant | None:
        return self.constants.get(value)

    def numbers(self, node: Node, place: int) -> list[Any] | None:
        """The elements of an operand that says how (axes, sizes), None when it is not constant or not there."""
        constant = self.constants.get(node.inputs[place]) if place < len(node.inputs) else None
        return constant.reshape(-1).tolist() if isinstance(constant, np.ndarray) else None

    def shape(self, value: str) -> tuple[int | None, ...] | None:
        """None for an unknown rank, None in the place of a dynamic dimension."""
        dims = self.dims(value)
        return None if dims is None else tuple(dim if isinstance(dim, int) else None for dim in dims)

    def dims(self, value: str) -> tuple[int | str | None, ...] | None:
        """The shape, with the names of the dynamic dimensions that have one: two of the same name are equal."""
        if value in self.constants:
            return self.constants[value].shape
        if value not in self._dims:
            self._dims[value] = _dims(self.types.get(value))
        return self._dims[value]

    def dtype(self, value: str) -> np.dtype | None:
        if value in self.constants:
            return self.constants[value].dtype
        kind = self.types.get(value)
        return helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind is not None and kind.elem_type else None

    # Changes.

    def unique(self, name: str) -> str:
        """A name for a new value, made from `name`."""
        candidate = ""
        while not candidate or any(candidate in known for known in (self._producers, self.constants, self._consumers)):
            candidate = f"{name}__{self._scope}{self._made}"
            self._made += 1
        return candidate

    def add_constant(self, value: Constant, name: str) -> str:
        """The name under which nodes may use the value: `name`, made unique."""
        name = self.unique(name)
        self.constants[name] = value
        return name

    def add_node(
        self,
        op_type: str,
        inputs: Sequence[str],
        like: Node,
        outputs: Sequence[str] = (),
        domain: str = "",
        **attributes: Any,
    ) -> Node:
        """A node in the place of, or beside, `like`, whose name it shares: by it the node's layer is found.

        Without `outputs` it has one new value; `set_type` says what that is.
        """
        named = tuple(outputs) or (self.unique(like.name),)
        node = Node(op_type, tuple(inputs), named, like.name, domain)
        for name, value in attributes.items():
            node.set(name, value)
        self._insert(node)
        return node

    def make_constant(self, node: Node, values: Sequence[Constant]) -> None:
        """Remove the node and let its outputs be the values, under the same names."""
        self.remove(node)
        self.constants.update({name: value for name, value in zip(node.outputs, values, strict=True) if name})

    def set_type(self, value: str, dtype: Any, shape: Sequence[int | str | None] | None) -> None:
        self._dims.pop(value, None)
        self.types[value] = helper.make_tensor_type_proto(
            helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
        ).tensor_type

    def set_inputs(self, node: Node, inputs: Iterable[str]) -> None:
        self._forget_uses(node)
        node.inputs = tuple(inputs)
        self._note_uses(node)

    def replace_uses(self, old: str, new: str) -> None:
        """Every node that uses `old` uses `new`. An output of the model keeps its name: see `bypass`."""
        for node in self.consumers(old):
            self.replace_use(node, old, new)

    def replace_use(self, node: Node, old: str, new: str) -> None:
        """Also inside of the bodies of a loop or branch."""
        self._forget_uses(node)
        node.rename(old, new)
        self._note_uses(node)

    def set_outputs(self, node: Node, outputs: Iterable[str]) -> None:
        self._order = None
        for name in node.outputs:
            self._producers.pop(name, None)
        node.outputs = tuple(outputs)
        self._producers.update(dict.fromkeys(filter(None, node.outputs), node))

    def remove(self, node: Node) -> None:
        self._forget_uses(node)
        del self._nodes[node]
        for name in node.outputs:
            if self._producers.get(name) is node:
                del self._producers[name]

    def bypass(self, node: Node, value: str) -> bool:
        """Remove the node and let `value` take the place of its only output.

        False, and nothing has changed, where an output of the model would lose its name: where `value` is an input or
        a constant, or is itself an output.
        """
        (output,) = filter(None, node.outputs)
        if output in self._fixed:
            producer = self._producers.get(value)
            if producer is None or value in self._fixed:
                return False
            self.remove(node)
            self.replace_uses(value, output)
            self.set_outputs(producer, [output if name == value else name for name in producer.outputs])
        else:
            self.remove(node)
            self.replace_uses(output, value)
        return True

    def prune(self) -> None:
        """Remove the nodes that no output depends on."""
        alive: set[Node] = set()
        stack = [self._producers[name] for name in self.outputs if name in self._producers]
        while stack:
            node = stack.pop()
            if node not in alive:
                alive.add(node)
                stack.extend(self._producing(node))
        for node in [node for node in self._nodes if node not in alive]:
            self.remove(node)

    def finish(self) -> dict[str, LazyArray]:
        """Write the graph back without what no output depends on; returns the lazy initializers."""
        self.prune()
        nodes = self.nodes()
        protos = [node.as_proto() for node in nodes]
        used = {name for node in nodes for name in self._uses(node)} | set(self.outputs)
        kept = {name: value for name, value in self.constants.items() if name in used}
        made = {name for node in nodes for name in node.outputs}
        values = [
            helper.make_value_info(name, TypeProto(tensor_type=kind))
            for name, kind in self.types.items()
            if name in made and name not in self._fixed
        ]
        for field_of_graph, messages in (
            (self._graph.node, protos),
            (self._graph.initializer, [_initializer(name, value) for name, value in kept.items()]),
            (self._graph.value_info, values),
        ):
            del field_of_graph[:]
            field_of_graph.extend(messages)
        return {name: value for name, value in kept.items() if isinstance(value, LazyArray)}

    # The index.

    def _insert(self, node: Node) -> None:
        self._nodes[node] = None
        self._producers.update(dict.fromkeys(filter(None, node.outputs), node))
        self._note_uses(node)

    def _uses(self, node: Node) -> list[str]:
        return [name for name in (*node.inputs, *node.captured) if name]

    def _note_uses(self, node: Node) -> None:
        self._order = None
        for name in self._uses(node):
            self._consumers.setdefault(name, {})[node] = None

    def _forget_uses(self, node: Node) -> None:
        self._order = None
        for name in self._uses(node):
            self._consumers.get(name, {}).pop(node, None)

    def _producing(self, node: Node) -> dict[Node, None]:
        return {self._producers[name]: None for name in self._uses(node) if name in self._producers}


def _dims(kind: TypeProto.Tensor | None) -> tuple[int | str | None, ...] | None:
    if kind is None or not kind.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in kind.shape.dim)


def _initializer(name: str, value: Constant) -> Any:
    return stub(name, value) if isinstance(value, LazyArray) else numpy_helper.from_array(value, name)
