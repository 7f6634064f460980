"""A Keras model as a TensorFlow graph in which a node without content stands for each weight, and in which each op knows its layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from keras.src.ops.operation import Operation
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow.python.grappler import tf_optimizer

from exporter.errors import UnsupportedError
from exporter.records import TensorSpec

# TensorFlow's own clean-up, cheap because no weight is in the graph: calls are inlined, shape arithmetic is folded.
GRAPPLER_PASSES = ("function", "constfold", "dependency")
# Attributes that keep a function from being inlined; Keras compiles grouped convolutions with XLA.
INLINING_BARRIERS = ("_XlaMustCompile", "_noinline")


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
            if name in self.by_op or name in self.by_scope:
                return self.by_op.get(name, self.by_scope.get(name)), "scope"
            name = name.rpartition("/")[0]
        return None, "none"


@dataclass(frozen=True)
class TracedModel:
    """`weight_nodes[i]` is the node that stands for `variables[i]`; tensor names end in `:0`.

    `constants` are such nodes too: values that a layer computed outside the graph, such as `Normalization`'s mean.
    """

    graph_def: tf.compat.v1.GraphDef
    input_tensors: tuple[str, ...]
    output_tensors: tuple[str, ...]
    weight_nodes: tuple[str, ...]
    variables: tuple[Any, ...]
    constants: Mapping[str, np.ndarray]
    owners: OpOwners


def trace(model: keras.Model, specs: Sequence[TensorSpec], namespaces: Mapping[int, str]) -> TracedModel:
    """Trace the model in inference mode on inputs of the given shapes; `namespaces` maps `id(layer)` to its namespace."""
    variables = tuple(model.variables)
    recorder = CallRecorder(namespaces)

    def call(inputs: list[tf.Tensor], weights: list[tf.Tensor]) -> Any:
        state = list(zip(variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=state), recorder.recording():
            return keras.tree.flatten(model(_as_called(model, inputs), training=False))

    inputs = [tf.TensorSpec(spec.shape, spec.dtype, f"input_{i}") for i, spec in enumerate(specs)]
    weights = [tf.TensorSpec(v.shape, v.dtype, f"weight_{i}") for i, v in enumerate(variables)]
    function = tf.function(call, autograph=False).get_concrete_function(inputs, weights)
    true_inputs = tuple(tensor.name for tensor in function.inputs[: len(specs)])
    outputs = tuple(tensor.name for tensor in function.outputs)
    graph_def = function.graph.as_graph_def(add_shapes=True)
    _hide_from_grappler(graph_def, {tensor.op.name for tensor in function.inputs[len(specs) :]})
    return TracedModel(
        graph_def=inlined(graph_def, [*true_inputs, *outputs]),
        input_tensors=true_inputs,
        output_tensors=outputs,
        weight_nodes=tuple(tensor.op.name for tensor in function.inputs[len(specs) : len(specs) + len(variables)]),
        variables=variables,
        constants={inner.op.name: _captured(outer) for outer, inner in function.graph.captures},
        owners=recorder.owners(function.graph),
    )


def _captured(tensor: tf.Tensor) -> np.ndarray:
    """The value of a tensor that the traced code refers to but was not given."""
    if tensor.dtype in (tf.resource, tf.variant):
        raise UnsupportedError(
            "cannot be converted",
            where=tensor.name,
            why="the model refers to a TensorFlow resource (a variable or table outside Keras's bookkeeping)",
            hint="--to parquet,dot,svg needs no conversion and describes the model all the same",
        )
    return tensor.numpy()


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
            _claim_scope(owners.by_scope, name.rpartition("/")[0], namespace)
        return owners


def _claim_scope(by_scope: dict[str, str], scope: str, namespace: str) -> None:
    """A name scope belongs to the layer of its ops; one with ops of several layers to what their namespaces share."""
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
    """The graph with its function calls replaced by their bodies and constant shape arithmetic done; `kept` stays."""
    nodes = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    for item in [*nodes, *graph_def.library.function]:
        for barrier in INLINING_BARRIERS:
            if barrier in item.attr:
                item.attr[barrier].b = False
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.optimizers[:] = GRAPPLER_PASSES
    meta_graph = meta_graph_pb2.MetaGraphDef(graph_def=graph_def)
    meta_graph.collection_def["train_op"].node_list.value.extend(kept)
    return tf_optimizer.OptimizeGraph(config, meta_graph)
