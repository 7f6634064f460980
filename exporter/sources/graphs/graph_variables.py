"""Variables of a TensorFlow graph become constants without content, in place, in loops and branches too.

TensorFlow's own freezing does this with values; here a node that only has a shape and a dtype takes the place of each
variable, so that nothing is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from exporter.sources.graphs.graph_walk import ordered
from exporter.sources.graphs.hollow_graph import HOLLOW_OP

HANDLES, REFERENCES = ("VarHandleOp",), ("VariableV2", "Variable")
# Ops that hand on a variable, with the attribute that says its type.
PASSING = ("Identity", "Switch", "RefSwitch", "Merge", "Enter", "RefEnter", "Exit", "NextIteration")
# Those that hand it on to one of two branches.
SWITCHES = ("Switch", "RefSwitch")


@dataclass(frozen=True)
class _Caller:
    """An op that runs functions: where their arguments start among its inputs, and the attribute with their types."""

    first: int
    types: str
    functions: tuple[str, ...]


CALLERS = {
    "While": _Caller(0, "T", ("cond", "body")),
    "StatelessWhile": _Caller(0, "T", ("cond", "body")),
    "If": _Caller(1, "Tin", ("then_branch", "else_branch")),
    "StatelessIf": _Caller(1, "Tin", ("then_branch", "else_branch")),
    "Case": _Caller(1, "Tin", ("branches",)),
    "PartitionedCall": _Caller(0, "Tin", ("f",)),
    "StatefulPartitionedCall": _Caller(0, "Tin", ("f",)),
}


@dataclass(frozen=True)
class Variable:
    """A variable in a graph: the node that makes it, its dtype (TensorFlow's number) and its shape."""

    node: str
    dtype: int
    shape: Any


def variables_of(graph_def: tf.compat.v1.GraphDef) -> Iterator[Variable]:
    """The variables of the main graph."""
    for node in graph_def.node:
        if node.op in (*HANDLES, *REFERENCES):
            yield Variable(node.name, node.attr["dtype"].type, node.attr["shape"].shape)


def make_hollow(graph_def: tf.compat.v1.GraphDef) -> None:
    """Each variable becomes a node that stands for the value under its name; whoever takes it, takes a tensor."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    taken = {variable.node: variable for variable in variables_of(graph_def)}
    done: set[str] = set()
    for node in graph_def.node:
        if node.name in taken:
            _empty(node)
    _replace(graph_def.node, taken, functions, done, in_function=False)


def _empty(node: Any) -> None:
    dtype, shape = node.attr["dtype"].type, tf.compat.v1.AttrValue()
    shape.CopyFrom(node.attr["shape"])
    node.op = HOLLOW_OP
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["shape"].CopyFrom(shape)
    node.attr["memory_region_name"].s = node.name.encode()


def _replace(
    nodes: Any, taken: dict[str, Variable], functions: Mapping[str, Any], done: set[str], *, in_function: bool
) -> dict[str, str]:
    """Adapt the nodes that take a variable; returns the outputs that got another name by it."""
    renamed: dict[str, str] = {}
    for node in ordered(nodes):
        places = [place for place, name in enumerate(node.input) if _key(name) in taken]
        if places:
            _adapt(node, places, taken, functions, done, renamed)
    _add_axes(nodes, renamed, ":output:0" if in_function else "")
    return renamed


def _key(name: str) -> str:
    """`a`, `a:0` and `a:output:0` are the same; control inputs are nobody's."""
    return name.partition(":")[0] if name.endswith(":0") else name


def _adapt(
    node: Any,
    places: list[int],
    taken: dict[str, Variable],
    functions: Mapping[str, Any],
    done: set[str],
    renamed: dict[str, str],
) -> None:
    variable = taken[_key(node.input[places[0]])]
    if node.op == "ReadVariableOp":
        node.op = "Identity"
        node.attr.clear()
        node.attr["T"].type = variable.dtype
        renamed[f"{node.name}:value:0"] = f"{node.name}:output:0"
    elif node.op in ("ResourceGather", "ResourceGatherNd"):
        _gather(node)
    elif node.op == "VariableShape":
        _shape(node, variable)
    elif node.op in PASSING:
        if node.attr["T"].type == tf.resource.as_datatype_enum:
            node.attr["T"].type = variable.dtype
            taken[node.name] = variable
            if node.op in SWITCHES:
                taken[f"{node.name}:1"] = variable
        node.attr.pop("_output_shapes", None)
    elif node.op in CALLERS:
        _call(node, places, taken, functions, done)


def _gather(node: Any) -> None:
    dtype, indices, batch_dims = node.attr["dtype"].type, node.attr["Tindices"].type, node.attr["batch_dims"].i
    node.op = "GatherV2" if node.op == "ResourceGather" else "GatherNd"
    node.attr.clear()
    node.attr["Tparams"].type, node.attr["Tindices"].type = dtype, indices
    if node.op == "GatherV2":
        node.attr["Taxis"].type = tf.int32.as_datatype_enum
        node.attr["batch_dims"].i = batch_dims


def _add_axes(nodes: Any, renamed: Mapping[str, str], suffix: str) -> None:
    """The axis that a gathering op takes and that of a variable did not; names that changed are followed."""
    for node in list(nodes):
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op == "GatherV2" and len([name for name in node.input if not name.startswith("^")]) == 2:
            axis = nodes.add(name=f"{node.name}/axis", op="Const")
            axis.attr["dtype"].type = tf.int32.as_datatype_enum
            axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(node.attr["batch_dims"].i, tf.int32))
            node.input.insert(2, f"{axis.name}{suffix}")


def _shape(node: Any, variable: Variable) -> None:
    sizes = [dim.size for dim in variable.shape.dim]
    dtype = node.attr["out_type"].type or tf.int32.as_datatype_enum
    del node.input[:]
    node.op = "Const"
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(sizes, dtype))


def _call(
    node: Any, places: list[int], taken: dict[str, Variable], functions: Mapping[str, Any], done: set[str]
) -> None:
    """A loop, branch or call that is given variables: they are tensors in its functions as well."""
    caller = CALLERS[node.op]
    given = {place - caller.first: taken[_key(node.input[place])] for place in places if place >= caller.first}
    for place, variable in given.items():
        node.attr[caller.types].list.type[place] = variable.dtype
    for name in ("_output_shapes", "output_shapes"):
        node.attr.pop(name, None)
    for attribute in caller.functions:
        called = node.attr[attribute]
        for name in [called.func.name] if called.HasField("func") else [each.name for each in called.list.func]:
            if name in functions and name not in done:
                done.add(name)
                _adapt_function(functions[name], given, functions, done, is_body=attribute == "body")


def _adapt_function(
    function: Any, given: Mapping[int, Variable], functions: Mapping[str, Any], done: set[str], *, is_body: bool
) -> None:
    arguments = function.signature.input_arg
    taken = {arguments[place].name: variable for place, variable in given.items()}
    for place, variable in given.items():
        arguments[place].type = variable.dtype
        del arguments[place].handle_data[:]
        arguments[place].ClearField("experimental_full_type")
        # A loop hands its variables on to the next round.
        if is_body:
            function.signature.output_arg[place].type = variable.dtype
    function.attr.pop("_input_shapes", None)
    for attributes in function.arg_attr.values():
        attributes.attr.pop("_output_shapes", None)
        attributes.attr.pop("_handle_shapes", None)
        attributes.attr.pop("_handle_dtypes", None)
    renamed = _replace(function.node_def, taken, functions, done, in_function=True)
    for key, tensor in function.ret.items():
        function.ret[key] = renamed.get(tensor, tensor)
