"""A TensorFlow graph as it is converted: no calls, no variables, and a node without content for each weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from exporter.errors import SourceError, UsageError
from exporter.lazy import LazyArray
from exporter.records import Shape
from exporter.sources.conversion.tracing import inlined
from exporter.sources.graphs.graph_variables import make_hollow
from exporter.sources.graphs.graph_walk import followed, node_name, ordered, reachable, tensor_name
from exporter.sources.graphs.hollow_graph import HOLLOW_OP, hollow_node
from exporter.sources.graphs.tensorflow_types import numpy_dtype, type_name
from exporter.sources.h5_values import COPY_AGAIN
from exporter.sources.rewriting.onnx_graph import replace

# What TensorFlow raises for a graph that it cannot take.
REFUSALS = (ValueError, TypeError, LookupError, tf.errors.OpError)
INPUTS = ("Placeholder", "PlaceholderV2")
# A constant that is written as one number and has more bytes than this is not filled.
LARGEST_FILLED_BYTES = 2**20
CONSTANT_OUTPUT, HOLLOW_OUTPUT = ":output:0", ":tensor:0"
MUTATIONS = ("Assign", "ScatterUpdate", "ResourceScatter", "ResourceApply")
ENDS_HINT = "--inputs and --outputs name tensors of the graph, such as x:0"
OUTPUT = "export_model/output_{}"


@dataclass
class InlinedGraph:
    """`outputs` are tensors in the order asked for; `weights` has the key of the value of each hollow node, by name.

    `hollow` has one such node for each key, and `small` values of constants that were in the graph. `specs` has shapes
    and dtypes of tensors. `fault` says why the graph cannot be converted.
    """

    graph_def: tf.compat.v1.GraphDef
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: dict[str, str] = field(default_factory=dict)
    hollow: dict[str, Any] = field(default_factory=dict)
    small: dict[str, LazyArray] = field(default_factory=dict)
    specs: dict[str, tuple[Shape | None, str | None]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fault: str = ""


def inline(
    graph_def: tf.compat.v1.GraphDef,
    inputs: Sequence[str],
    outputs: Sequence[str],
    value: Callable[[str], LazyArray],
) -> InlinedGraph:
    """The part of the graph that computes the outputs. `value` gives those of constants that loops have in them.

    Raises UsageError for an input or output that is not in the graph.
    """
    found = InlinedGraph(graph_def, tuple(map(tensor_name, inputs)), tuple(map(tensor_name, outputs)))
    _check_ends(found)
    _cut(graph_def, found.inputs)
    _prune(found, with_control=True)
    found.fault = _unknown_ops(found.graph_def)
    _without_splats(found)
    for function in graph_def.library.function:
        rename_outputs(function, HOLLOW_OP, CONSTANT_OUTPUT, HOLLOW_OUTPUT)
        # Marked so that a GPU may run another function in its place (recurrent layers of Keras 2), it is not inlined.
        function.attr.pop("api_implements", None)
    try:
        if found.fault:
            raise ValueError(found.fault)
        check_graph(graph_def)
        # Before TensorFlow folds constants, so that weights keep their names, and once more for those in functions.
        _without_small_weights(found)
        found.graph_def = inlined(graph_def, [*found.inputs, *found.outputs])
        make_hollow(found.graph_def)
        fill_bodies(found.graph_def, value)
        mutated = _mutated(found)
        _prune(found, with_control=False)
        found.specs = _specs(found.graph_def)
        _name_outputs(found)
        _without_small_weights(found)
        _judge_mutations(found, mutated)
    except REFUSALS as error:
        found.fault = found.fault or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        make_hollow(found.graph_def)
    for node in found.graph_def.node:
        if node.op == HOLLOW_OP:
            found.weights[node.name] = key = node.attr["memory_region_name"].s.decode()
            found.hollow[key] = node
    return found


def _check_ends(graph: InlinedGraph) -> None:
    names = {node.name for node in graph.graph_def.node}
    for tensor in (*graph.inputs, *graph.outputs):
        if node_name(tensor) not in names:
            why = f"the graph has no operation {node_name(tensor)}"
            raise UsageError("cannot be an end of the graph", where=tensor, why=why, hint=ENDS_HINT)


def _unknown_ops(graph_def: tf.compat.v1.GraphDef) -> str:
    """A sentence about operations that are no part of TensorFlow, empty if there are none."""
    functions = graph_def.library.function
    known = {function.signature.name for function in functions}
    ops = {node.op for nodes in (graph_def.node, *(each.node_def for each in functions)) for node in nodes}
    unknown = sorted(op for op in ops - known if op_def_registry.get(op) is None)
    return f"TensorFlow has no operation {', '.join(unknown[:5])}" if unknown else ""


def check_graph(graph_def: tf.compat.v1.GraphDef) -> None:
    """Raises one of REFUSALS for a graph whose operations do not fit; TensorFlow's optimizer ends the process then."""
    with tf.Graph().as_default():
        tf.import_graph_def(graph_def, name="")


def _cut(graph_def: tf.compat.v1.GraphDef, inputs: Iterable[str]) -> None:
    """Inputs are placeholders, where the graph has something else there too; other defaults take their place."""
    wanted = {node_name(tensor) for tensor in inputs}
    inner = [node for node in graph_def.node if node.name in wanted and node.op not in INPUTS]
    specs = _specs(graph_def) if inner else {}
    for node in graph_def.node:
        node.device = ""
        if node.op == "PlaceholderWithDefault" and node.name not in wanted:
            dtype = node.attr["dtype"].type
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = dtype
    for node in inner:
        make_placeholder(node, *specs.get(tensor_name(node.name), (None, None)))


def make_placeholder(node: Any, shape: Shape | None, dtype: str | None) -> None:
    dtype_number = tf.dtypes.as_dtype(dtype).as_datatype_enum if dtype else node.attr["dtype"].type
    del node.input[:]
    node.op = "Placeholder"
    node.attr.clear()
    node.attr["dtype"].type = dtype_number
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())


def _prune(graph: InlinedGraph, *, with_control: bool) -> None:
    nodes = {node.name: node for node in graph.graph_def.node}
    kept = map(node_name, (*graph.inputs, *graph.outputs))
    used = reachable(nodes, kept, with_control=with_control)
    if not with_control:
        for node in graph.graph_def.node:
            node.input[:] = [name for name in node.input if not name.startswith("^")]
    replace(graph.graph_def.node, [node for node in ordered(graph.graph_def.node) if node.name in used])


def _without_splats(graph: InlinedGraph) -> None:
    """Constants that are one number, over and over, and large: TensorFlow would fill them."""
    for node in graph.graph_def.node:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        dtype = numpy_dtype(tensor.dtype) if tensor else None
        if tensor is None or dtype is None:
            continue
        shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
        if math.prod(shape) * dtype.itemsize > max(LARGEST_FILLED_BYTES, tensor.ByteSize()):
            kept = type(tensor)()
            kept.CopyFrom(tensor)
            _hide(graph, node, _splat(kept, shape, dtype))


def _splat(tensor: Any, shape: tuple[int, ...], dtype: np.dtype) -> LazyArray:
    if tensor.tensor_content:
        why = f"a constant of {dtype}{list(shape)} has {len(tensor.tensor_content):,} bytes"
        raise SourceError("is truncated or corrupt", where="the graph", why=why, hint=COPY_AGAIN)
    one = type(tensor)()
    one.CopyFrom(tensor)
    one.tensor_shape.CopyFrom(tf.TensorShape([1]).as_proto())
    try:
        number = tf.make_ndarray(one)[0]
    # Several numbers, of which the last stands for all others.
    except ValueError:
        return LazyArray(shape, dtype, lambda: np.asarray(tf.make_ndarray(tensor)))

    def part(start: int, stop: int) -> np.ndarray:
        return np.full(stop - start, number, dtype)

    return LazyArray(shape, dtype, lambda: np.full(shape, number, dtype), part=part)


def _hide(graph: InlinedGraph, node: Any, array: LazyArray) -> None:
    key = f"small/{len(graph.small)}"
    graph.small[key] = array
    node.CopyFrom(hollow_node(node.name, key, array))


def _without_small_weights(graph: InlinedGraph) -> None:
    """Vectors of fractions are weights as well, however short; whole numbers and scalars are shapes and settings."""
    for node in graph.graph_def.node:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        dtype = numpy_dtype(tensor.dtype) if tensor else None
        if tensor is not None and dtype is not None and tensor.tensor_shape.dim and _has_fractions(dtype):
            _hide(graph, node, LazyArray.of(tf.make_ndarray(tensor)))


def _has_fractions(dtype: np.dtype) -> bool:
    return dtype.kind in "fc" or "float" in dtype.name


def fill_bodies(graph_def: tf.compat.v1.GraphDef, value: Callable[[str], LazyArray]) -> None:
    """The bodies of loops and branches keep their constants."""
    for function in graph_def.library.function:
        rename_outputs(function, HOLLOW_OP, HOLLOW_OUTPUT, CONSTANT_OUTPUT)
        for node in function.node_def:
            if node.op == HOLLOW_OP:
                array = value(node.attr["memory_region_name"].s.decode()).real()
                node.op = "Const"
                node.attr.clear()
                node.attr["dtype"].type = tf.dtypes.as_dtype(array.dtype).as_datatype_enum
                node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))


def rename_outputs(function: Any, op: str, old: str, new: str) -> None:
    """Inside of a function the outputs of operations have names, which differ from op to op."""
    names = {f"{node.name}{old}": f"{node.name}{new}" for node in function.node_def if node.op == op}
    if not names:
        return
    for node in function.node_def:
        node.input[:] = [names.get(name, name) for name in node.input]
    for key, tensor in function.ret.items():
        function.ret[key] = names.get(tensor, tensor)


def _mutated(graph: InlinedGraph) -> set[str]:
    """The variables that the graph changes, by their nodes; asked before control inputs are left out."""
    nodes = {node.name: node for node in graph.graph_def.node}
    found = set()

    def before(name: str) -> str | None:
        node = nodes.get(name)
        return node_name(node.input[0]) if node is not None and node.op == "Identity" and node.input else None

    for node in nodes.values():
        if node.op.startswith(MUTATIONS) and node.input:
            found.add(followed(node_name(node.input[0]), before))
    return found


def _judge_mutations(graph: InlinedGraph, mutated: set[str]) -> None:
    """ONNX has no variables: what changes one and computes with it has no such form."""
    if read := sorted(mutated & {node.name for node in graph.graph_def.node}):
        graph.fault = f"it changes the variable {read[0]} and computes with it; ONNX has no state"
    if mutated:
        count = f"{len(mutated)} of its variables" if len(mutated) > 1 else f"its variable {min(mutated)}"
        graph.notes = (f"the graph changes {count} when it runs: the values of the file are described",)


def _name_outputs(graph: InlinedGraph) -> None:
    """A node of its own for each output: one tensor may be several of them, or an input."""
    members = {node.name: node for node in graph.graph_def.node if node.op == "IdentityN"}
    outputs = []
    for place, tensor in enumerate(graph.outputs):
        name, _, output = tensor.partition(":")
        source = data_inputs(members[name])[int(output)] if name in members else tensor
        node = graph.graph_def.node.add(name=OUTPUT.format(place), op="Identity", input=[source.removesuffix(":0")])
        shape, dtype = graph.specs[tensor_name(source)]
        node.attr["T"].type = tf.dtypes.as_dtype(dtype).as_datatype_enum
        outputs.append(f"{node.name}:0")
        graph.specs[outputs[-1]] = shape, dtype
    graph.outputs = tuple(outputs)
    _prune(graph, with_control=False)


def data_inputs(node: Any) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]


def _specs(graph_def: tf.compat.v1.GraphDef) -> dict[str, tuple[Shape | None, str | None]]:
    """Shape and dtype of every tensor, inferred; no kernel runs and nothing is allocated."""
    found: dict[str, tuple[Shape | None, str | None]] = {}
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        for operation in graph.get_operations():
            for tensor in operation.outputs:
                shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
                found[tensor.name] = shape, type_name(tensor.dtype.base_dtype.as_datatype_enum)
    return found
