"""Branches by number (`tf.switch_case`) as branches by truth, which ONNX has: a tree of them, halved at every step.

In a tree of n branches the innermost is log₂ n deep; formats of files and their readers have limits for depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, function_pb2, node_def_pb2, types_pb2

from exporter.sources.rewriting.onnx_graph import replace

CASES = {"Case": "If", "StatelessCase": "StatelessIf"}
INDEX, CHOICE = "case_index", "case_choice"
INT32, BOOL = types_pb2.DT_INT32, types_pb2.DT_BOOL


def make_ifs(graph_def: tf.compat.v1.GraphDef) -> None:
    """Replace every branch by number, in place; those of branches too."""
    library = _Library(graph_def)
    _replace_all(graph_def.node, library, in_function=False)
    place = 0
    # Grows on the way: copies of branches may have such branches in them.
    while place < len(graph_def.library.function):
        _replace_all(graph_def.library.function[place].node_def, library, in_function=True)
        place += 1
    if library.is_changed:
        library.prune(graph_def.node)


class _Library:
    """Functions by name, and names for new ones."""

    def __init__(self, graph_def: tf.compat.v1.GraphDef) -> None:
        self.functions = graph_def.library.function
        self.by_name = {function.signature.name: function for function in self.functions}
        self._copied: set[str] = set()
        self.is_changed = False

    def add(self, function: Any, name: str) -> str:
        """Under this name or, if there is one, with a number; returns it."""
        names = (f"{name}_{number}" if number else name for number in count())
        function.signature.name = next(each for each in names if each not in self.by_name)
        self.is_changed = True
        self.by_name[function.signature.name] = self.functions.add()
        self.by_name[function.signature.name].CopyFrom(function)
        return str(function.signature.name)

    def with_index(self, name: str) -> str:
        """A copy of the function that takes the number of the branch first, for it has the inputs of all."""
        copy = self._copy(name)
        arguments, attributes = list(copy.signature.input_arg), dict(copy.arg_attr)
        del copy.signature.input_arg[:]
        copy.signature.input_arg.add(name=f"{INDEX}_{len(self.functions)}", type=INT32)
        copy.signature.input_arg.extend(arguments)
        shift_attributes(copy, attributes)
        return self.add(copy, f"{name}_by_number")

    def _copy(self, name: str) -> Any:
        """tf2onnx can use a function once: the second copy gets copies of those that it calls."""
        copy = function_pb2.FunctionDef()
        copy.CopyFrom(self.by_name[name])
        for called in _called(copy.node_def) if name in self._copied else ():
            called.name = self.add(self._copy(called.name), called.name)
        self._copied.add(name)
        return copy

    def prune(self, nodes: Any) -> None:
        """Without the functions that nobody calls any more."""
        called, left = set[str](), list(_called(nodes))
        while left:
            name = left.pop().name
            if name not in called and name in self.by_name:
                called.add(name)
                left += _called(self.by_name[name].node_def)
        kept = [function for function in self.functions if function.signature.name in called]
        replace(self.functions, kept)


def _called(nodes: Any) -> Iterator[Any]:
    """What names a function, in the attributes of nodes."""
    for node in nodes:
        for value in node.attr.values():
            if value.HasField("func"):
                yield value.func
            yield from value.list.func


def shift_attributes(function: Any, attributes: dict[int, Any]) -> None:
    """What is known of the arguments, such as their shapes, behind the number of the branch."""
    kept = {place: type(each).FromString(each.SerializeToString()) for place, each in attributes.items()}
    function.arg_attr.clear()
    for place, each in kept.items():
        function.arg_attr[place + 1].CopyFrom(each)


def _replace_all(nodes: Any, library: _Library, *, in_function: bool) -> None:
    for node in [each for each in nodes if each.op in CASES]:
        branches = [branch.name for branch in node.attr["branches"].list.func]
        made = list(_number(node, len(branches), in_function=in_function))
        nodes.extend(made)
        index = f"{made[-1].name}:output:0" if in_function else made[-1].name
        values = [each for each in node.input if not each.startswith("^")][1:]
        controls = [each for each in node.input if each.startswith("^")]
        function = _halves(node, branches, library)
        made = list(_choice(node, function, index, values, in_function=in_function))
        nodes.extend(made[:-1])
        del node.input[:]
        node.input.extend([*made[-1].input, *controls])
        node.op = made[-1].op
        _set_attributes(node, made[-1].attr)


def _set_attributes(node: Any, attributes: Any) -> None:
    kept = {name: value for name, value in node.attr.items() if name.startswith("_")}
    kept = {name: type(value).FromString(value.SerializeToString()) for name, value in kept.items()}
    node.attr.clear()
    for name, value in {**kept, **attributes}.items():
        node.attr[name].CopyFrom(value)


def _number(node: Any, size: int, *, in_function: bool) -> Iterator[Any]:
    """Nodes of which the last is the number of the branch: one below zero means the last branch."""
    zero, last = (_constant(f"{node.name}/{name}", value) for name, value in (("zero", 0), ("last", size - 1)))
    output = ":output:0" if in_function else ""
    less = _node("Less", f"{node.name}/is_negative", [node.input[0], f"{zero.name}{output}"], T=INT32)
    condition = f"{less.name}:z:0" if in_function else less.name
    inputs = [condition, f"{last.name}{output}", node.input[0]]
    yield from (zero, last, less, _node("SelectV2", f"{node.name}/number", inputs, T=INT32))


def _halves(node: Any, branches: list[str], library: _Library, start: int = 0) -> tuple[str, str, int]:
    """The functions for numbers below a limit and for the others, and the limit."""
    middle = (len(branches) + 1) // 2
    first = _one_of(node, branches[:middle], library, start)
    second = _one_of(node, branches[middle:] or branches, library, start + middle)
    return first, second, start + middle


def _one_of(node: Any, branches: list[str], library: _Library, start: int) -> str:
    """The name of a function that chooses one of the branches, the first of which has the number `start`."""
    if len(branches) == 1:
        return library.with_index(branches[0])
    halves = _halves(node, branches, library, start)
    function, like = function_pb2.FunctionDef(), library.by_name[halves[0]]
    function.signature.input_arg.extend(like.signature.input_arg)
    for place, attributes in like.arg_attr.items():
        function.arg_attr[place].CopyFrom(attributes)
    # Names of their own: inside of branches tf2onnx takes for an outer value what has its name there.
    names = [f"{INDEX}_{len(library.functions)}_{place}" for place in range(len(function.signature.input_arg))]
    for argument, name in zip(function.signature.input_arg, names, strict=True):
        argument.name = name
    for place, kind in enumerate(node.attr["Tout"].list.type):
        function.signature.output_arg.add(name=f"out_{place}", type=kind)
        function.ret[f"out_{place}"] = f"{CHOICE}:output:{place}"
    chosen = _choice(node, halves, names[0], names[1:], in_function=True, name=CHOICE)
    function.node_def.extend(chosen)
    last = start + len(branches) - 1
    return library.add(function, f"{node.name.replace('/', '_')}_branches_{start}_to_{last}")


def _choice(
    node: Any, functions: tuple[str, str, int], index: str, values: list[str], *, in_function: bool, name: str = ""
) -> Iterator[Any]:
    """Nodes of which the last is the branch by truth."""
    first, second, limit = functions
    name = name or node.name
    end = _constant(f"{name}/limit", limit)
    output = ":output:0" if in_function else ""
    less = _node("Less", f"{name}/is_before", [index, f"{end.name}{output}"], T=INT32)
    condition = f"{less.name}:z:0" if in_function else less.name
    choice = _node(CASES.get(node.op, node.op), name, [condition, index, *values], Tcond=BOOL)
    choice.attr["Tin"].list.type.extend([INT32, *node.attr["Tin"].list.type])
    choice.attr["Tout"].CopyFrom(node.attr["Tout"])
    choice.attr["output_shapes"].CopyFrom(node.attr["output_shapes"])
    choice.attr["then_branch"].func.name, choice.attr["else_branch"].func.name = first, second
    yield from (end, less, choice)


def _node(op: str, name: str, inputs: Iterable[str], **types: int) -> Any:
    attributes = {key: attr_value_pb2.AttrValue(type=kind) for key, kind in types.items()}
    return node_def_pb2.NodeDef(op=op, name=name, input=inputs, attr=attributes)


def _constant(name: str, value: int) -> Any:
    node = _node("Const", name, (), dtype=INT32)
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int32))
    return node
