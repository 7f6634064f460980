"""A Keras model as a TensorFlow graph: a node without content stands for each weight, and each op knows its layer."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from keras.src.ops.operation import Operation
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.eager.polymorphic_function import function_context
from tensorflow.python.grappler import tf_optimizer

from exporter import memory
from exporter.errors import UnsupportedError
from exporter.records import TensorSpec
from exporter.sources.conversion.batch_norms import BatchNorms, Combination
from exporter.sources.conversion.trace_overrides import installed as overrides
from exporter.sources.graphs.lookup_table import LookupTable, MakeTable, declare, exported

# TensorFlow's own clean-up, cheap because no weight is in the graph: calls are inlined, shape arithmetic is folded.
GRAPPLER_PASSES = ("function", "constfold", "dependency")
# Attributes that keep a function from being inlined; Keras compiles grouped convolutions with XLA.
INLINING_BARRIERS = ("_XlaMustCompile", "_noinline")
# Asks for a loop or branch to be taken apart into `Switch` and `Merge`; tf2onnx knows recurrent layers by whole loops.
LOWERING = "_lower_using_switch_merge"


# Ops that take a table and do not change it.
LOOKING_UP = ("LookupTableFindV2", "LookupTableSizeV2")

# tf2onnx names what it makes after what it came from: `scope/op__123`.
DERIVED = re.compile(r"(__\d+)+$")
# What layers raise when they cannot be called on tensors without values.
TRACING_FAILURES = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    tf.errors.OpError,
)


@dataclass
class OpOwners:
    """Which layer made which TensorFlow op, recorded while the layers were being called.

    What TensorFlow or tf2onnx derives from an op keeps the op's name as a path prefix, perhaps with a number behind it.
    """

    by_op: dict[str, str] = field(default_factory=dict)
    by_scope: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> tuple[str | None, str]:
        """`(namespace, match_kind)` of the op with that name, or of the innermost recorded call that encloses it."""
        for prefix in ("ConstantFolding/", "ArithmeticOptimizer/"):
            name = name.removeprefix(prefix)
        if name in self.by_op:
            return self.by_op[name], "recorded"
        while name:
            origin = DERIVED.sub("", name)
            found = self.by_op.get(name) or self.by_op.get(origin) or self.by_scope.get(name)
            if found:
                return found, "scope"
            name = name.rpartition("/")[0]
        return None, "none"


@dataclass(frozen=True)
class TracedModel:
    """`weight_nodes[i]` is the node that stands for `variables[i]`; tensor names end in `:0`.

    `output_layers[i]` is the namespace of the layer that made output `i`, None for what no layer made.

    `constants` are such nodes too: values that a layer computed outside the graph, such as `Normalization`'s mean.
    So are the `combinations` of weights that batch norms multiply by and add. `tables` has lookup tables by the node
    that stands for each.
    """

    graph_def: tf.compat.v1.GraphDef
    input_tensors: tuple[str, ...]
    output_tensors: tuple[str, ...]
    output_layers: tuple[str | None, ...]
    weight_nodes: tuple[str, ...]
    variables: tuple[Any, ...]
    constants: Mapping[str, np.ndarray]
    combinations: Mapping[str, Combination]
    owners: OpOwners
    tables: Mapping[str, MakeTable] = field(default_factory=dict)


def trace(model: keras.Model, specs: Sequence[TensorSpec], namespaces: Mapping[int, str]) -> TracedModel:
    """Trace the model in inference mode on inputs of the given shapes; `namespaces` is by `id()` of the layer.

    Raises UnsupportedError for what cannot be called on tensors without values and for state outside of the weights.
    """
    traced = _traced(model, specs, namespaces)
    # TensorFlow's Python objects for a graph take ten times the memory of the graph, and are not needed from here on.
    memory.release_unused()
    return replace(traced, graph_def=inlined(traced.graph_def, [*traced.input_tensors, *traced.output_tensors]))


def _traced(model: keras.Model, specs: Sequence[TensorSpec], namespaces: Mapping[int, str]) -> TracedModel:
    """The graph as the layers make it."""
    variables = tuple(model.variables)
    recorder, norms = CallRecorder(namespaces), BatchNorms(variables)

    def call(inputs: list[tf.Tensor], weights: list[tf.Tensor]) -> Any:
        with (
            WeightScope(variables, weights) as scope,
            _fresh_functions(),
            overrides(),
            norms.installed(),
            recorder.recording(),
        ):
            outputs = keras.tree.flatten(model(_as_called(model, inputs), training=False))
            scope.refuse_strangers()
            # A variable that is an output has its value only in here.
            return [tf.convert_to_tensor(output) for output in outputs]

    inputs = [tf.TensorSpec(spec.shape, spec.dtype, f"input_{i}") for i, spec in enumerate(specs)]
    weights = [tf.TensorSpec(v.shape, v.dtype, f"weight_{i}") for i, v in enumerate(variables)]
    try:
        function = tf.function(call, autograph=False).get_concrete_function(inputs, weights)
    except TRACING_FAILURES as error:
        raise UnsupportedError(
            "cannot be traced", where=model.name, why=_first_lines(error), hint="does the model run on these inputs?"
        ) from error
    graph_def = function.graph.as_graph_def(add_shapes=True)
    weight_nodes = {tensor.op.name for tensor in function.inputs[len(specs) :]}
    _hide_from_grappler(graph_def, weight_nodes.union(norms.combinations))
    owners = recorder.owners(function.graph)
    tables = dict(_tables(function.graph))
    others = _declare_captured(graph_def, function.graph, tables)
    return TracedModel(
        graph_def=graph_def,
        input_tensors=tuple(tensor.name for tensor in function.inputs[: len(specs)]),
        output_tensors=tuple(tensor.name for tensor in function.outputs),
        # The function itself puts an `Identity` behind each.
        output_layers=tuple(owners.find(tensor.op.inputs[0].op.name)[0] for tensor in function.outputs),
        weight_nodes=tuple(tensor.op.name for tensor in function.inputs[len(specs) : len(specs) + len(variables)]),
        variables=variables,
        constants={
            inner.op.name: _captured(outer, inner, owners)
            for outer, inner in function.graph.captures
            if inner.op.name in others
        },
        combinations=norms.combinations,
        owners=owners,
        tables=tables,
    )


def _first_lines(error: Exception) -> str:
    # Keras writes the middle of its messages in bold.
    plain = re.sub(r"\x1b\[\d*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3])[:400]}"


class WeightScope(keras.StatelessScope):
    """Gives the model's variables the values of the trace, and notices when the model reads any other.

    Keras silently takes the initial value of those; for the state of random generators it may.
    """

    def __init__(self, variables: Sequence[Any], values: Sequence[tf.Tensor]) -> None:
        super().__init__(state_mapping=list(zip(variables, values, strict=True)))
        self._strangers: dict[str, None] = {}

    def get_current_value(self, variable: Any) -> Any:
        value = super().get_current_value(variable)
        if value is None and keras.backend.is_float_dtype(variable.dtype):
            self._strangers[variable.path] = None
        return value

    def refuse_strangers(self) -> None:
        """Raises UnsupportedError; not where the variable is read, because Keras rewrites what its layers raise."""
        if self._strangers:
            raise UnsupportedError(
                "cannot be converted",
                where=f"variable {', '.join(self._strangers)}",
                why="the model computes with it, but it is not among the model's weights",
                hint="assign the variable to an attribute of a layer of the model",
            )


@contextmanager
def _fresh_functions() -> Iterator[None]:
    """Make every `tf.function` inside the model trace anew: what it remembers of earlier calls has their weights."""
    make, unique = function_context.make_function_context, object()

    def make_context(scope_type: Any = None) -> Any:
        return make((scope_type, unique))

    with mock.patch.object(function_context, "make_function_context", make_context):
        yield


def _tables(graph: tf.Graph) -> Iterator[tuple[str, functools.partial[LookupTable]]]:
    """The tables of the model's layers, by the placeholder of each, where nothing is done but looking up in them."""
    for outer, inner in graph.captures:
        users = inner.consumers() if outer.dtype == tf.resource else []
        found = next((user for user in users if user.type == "LookupTableFindV2"), None)
        if found is not None and all(user.type in LOOKING_UP for user in users):
            yield inner.op.name, functools.partial(exported, outer, found.get_attr("Tin"), found.get_attr("Tout"))


def _declare_captured(graph_def: tf.compat.v1.GraphDef, graph: tf.Graph, tables: Mapping[str, Any]) -> set[str]:
    """Placeholders of tables become nodes that make one, as a SavedModel has them; those of text constants.

    So do those of single whole numbers, which ONNX wants to know. Returns the names of all that are neither.
    """
    captured = {inner.op.name: outer for outer, inner in graph.captures}
    for node in graph_def.node:
        if node.name in tables:
            _, keys, values = tables[node.name].args
            del captured[node.name]
            declare(node, keys.as_datatype_enum, values.as_datatype_enum)
        elif node.name in captured and _is_setting(captured[node.name]):
            proto = tf.make_tensor_proto(captured.pop(node.name).numpy())
            node.op = "Const"
            node.attr.clear()
            node.attr["dtype"].type = proto.dtype
            node.attr["value"].tensor.CopyFrom(proto)
    return set(captured)


def _is_setting(tensor: tf.Tensor) -> bool:
    return tensor.dtype == tf.string or (tensor.dtype.is_integer and tensor.shape.rank == 0)


def _captured(outer: tf.Tensor, inner: tf.Tensor, owners: OpOwners) -> np.ndarray:
    """The value of a tensor that the traced code refers to but was not given; `inner` stands for it in the graph."""
    if outer.dtype in (tf.resource, tf.variant):
        users = inner.consumers()
        layers = {owners.find(user.name)[0] or "?" for user in users}
        raise UnsupportedError(
            f"no ONNX form is known for the TensorFlow op {', '.join(sorted({user.type for user in users}))}",
            where=f"layer {', '.join(sorted(layers))}",
            why="it uses a TensorFlow resource: a table, or a variable outside Keras's bookkeeping",
            hint="--to parquet,dot,svg describes the model without converting it",
        )
    return outer.numpy()


def _as_called(model: keras.Model, inputs: Sequence[tf.Tensor]) -> Any:
    """The inputs in the structure (list, dictionary, nested) that the model was built with."""
    if isinstance(model, keras.Sequential):
        return inputs[0]
    return keras.tree.pack_sequence_as(model._inputs_struct, list(inputs))


class CallRecorder:
    """Notes, for every call of a layer or operation, the span of graph ops that it made.

    A graph numbers its ops in the order of their creation, and `graph.version` is the last number given; a call's ops
    are those numbered during it. Spans nest as calls do, so that painting them in the order of their start leaves
    each op with its innermost layer.
    """

    def __init__(self, namespaces: Mapping[int, str]) -> None:
        self._namespaces = namespaces
        self._spans: list[tuple[tf.Graph, int, int, str]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        with ExitStack() as patches:
            for owner in (keras.Layer, Operation):
                patches.enter_context(mock.patch.object(owner, "__call__", self._recorded(owner.__call__)))
            yield

    def _recorded(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            graph = tf.compat.v1.get_default_graph()
            start, place = graph.version, len(self._spans)
            self._spans.append((graph, start, start, ""))
            result = original(layer, *args, **kwargs)
            self._spans[place] = (graph, start, graph.version, self._namespaces.get(id(layer), ""))
            return result

        return call

    def owners(self, graph: tf.Graph) -> OpOwners:
        """Every op of the graph that was made inside a known layer, and the name scopes that calls opened."""
        owners, operations = OpOwners(), graph.get_operations()
        for made_in, start, end, namespace in self._spans:
            if made_in is graph and namespace:
                for operation in operations[start:end]:
                    owners.by_op[operation.name] = namespace
        for name, namespace in owners.by_op.items():
            claim_scope(owners.by_scope, name.rpartition("/")[0], namespace)
        return owners


def claim_scope(by_scope: dict[str, str], scope: str, namespace: str) -> None:
    """A name scope belongs to the layer of its ops; one with ops of several layers to what their namespaces share.

    That may be nothing: an empty namespace.
    """
    known = by_scope.setdefault(scope, namespace)
    while known and known != namespace and not namespace.startswith(known + "/"):
        known = known.rpartition("/")[0]
    by_scope[scope] = known


def _hide_from_grappler(graph_def: tf.compat.v1.GraphDef, placeholders: set[str]) -> None:
    """Turn the placeholders of weights into `ImmutableConst`, an op that also only has a shape and a dtype.

    For every `Placeholder` grappler allocates a tensor of its shape, which would be all weights at once.
    """
    for node in graph_def.node:
        if node.name in placeholders:
            node.op = "ImmutableConst"
            node.attr["memory_region_name"].s = node.name.encode()
            for name in set(node.attr) - {"dtype", "shape", "memory_region_name", "_output_shapes"}:
                del node.attr[name]


def inlined(graph_def: tf.compat.v1.GraphDef, kept: Sequence[str]) -> tf.compat.v1.GraphDef:
    """The graph with its function calls replaced by their bodies and constant shape arithmetic done; `kept` stays.

    Loops and branches stay whole, their bodies in the function library.
    """
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    for item in [*nodes, *graph_def.library.function]:
        for unwanted in (*INLINING_BARRIERS, LOWERING):
            if unwanted in item.attr:
                item.attr[unwanted].b = False
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.optimizers[:] = GRAPPLER_PASSES
    # Otherwise graphs of three nodes stay as they are, a call among them.
    config.graph_options.rewrite_options.min_graph_nodes = -1
    meta_graph = meta_graph_pb2.MetaGraphDef(graph_def=graph_def)
    meta_graph.collection_def["train_op"].node_list.value.extend(kept)
    return tf_optimizer.OptimizeGraph(config, meta_graph)
