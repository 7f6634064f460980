"""Small Keras models with values that hide nothing, and their conversion in this process.

The product converts one model per process. Here many are converted in one, each in a `HollowScope` of its own, from
a hollow twin of the model that Keras runs: the twin is built again by the same function, and its weights are lazy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime

from exporter.lazy import LazyArray
from exporter.records import ModelGraph, TensorSpec
from exporter.sources.conversion import onnx_structure
from exporter.sources.conversion.tracing import trace
from exporter.sources.keras_models.describe import describe, layer_namespaces, weight_names
from exporter.sources.keras_models.hollow import HollowScope
from exporter.structure import OnnxStructure

Build = Callable[[], Any]


@dataclass(frozen=True)
class Converted:
    """`model` has its weights filled in; `graph` is the description of the hollow twin."""

    model: onnx.ModelProto
    structure: OnnxStructure
    graph: ModelGraph

    @property
    def ops(self) -> list[str]:
        """The types of all nodes, those inside loops included."""
        return [node.op_type for node in all_nodes(self.model.graph)]


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def filled(model: Any, seed: int = 1) -> Any:
    """The model with random values in every weight, such that signals survive the deepest network.

    Freshly initialised ones do not do for comparisons: their norms change nothing and their outputs are all alike.
    """
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(value_for(variable, generator))
    return model


def value_for(variable: Any, generator: np.random.Generator) -> np.ndarray:
    if not keras.backend.is_float_dtype(variable.dtype):
        return np.asarray(variable)
    shape = tuple(variable.shape)
    if "variance" in variable.path or "gamma" in variable.path:
        low, high = (0.8, 2.0) if "variance" in variable.path else (0.5, 1.2)
        return generator.uniform(low, high, shape).astype(np.float32)
    inputs = math.prod(shape[:-1])
    return (generator.standard_normal(shape) * (math.sqrt(2 / inputs) if inputs > 1 else 0.3)).astype(np.float32)


def no_values(variable: Any) -> LazyArray:
    """Stands for a weight; reading it is a failure of the test."""

    def make() -> np.ndarray:
        raise AssertionError(f"{variable.path} was read while the structure was built")

    return LazyArray(tuple(variable.shape), dtype_of(variable), make)


def dtype_of(variable: Any) -> Any:
    import tensorflow as tf

    return tf.as_dtype(variable.dtype).as_numpy_dtype


@contextmanager
def hollow_twin(build: Build) -> Iterator[Any]:
    """The model built again without values, under the same names; the scope is closed at the end."""
    keras.utils.clear_session(free_memory=False)
    with HollowScope():
        yield build()
    keras.utils.clear_session(free_memory=False)


def convert(
    build: Build,
    real: Any = None,
    opset: int = 18,
    shapes: dict[str, tuple[int | None, ...]] | None = None,
    dtype: str = "keep",
) -> Converted:
    """Convert a hollow twin of `real` (without it: without values, and the initializers stay empty).

    Weights of more than 64 bytes must not be read before the structure is complete: reading one then is an error.
    """
    with hollow_twin(build) as model:
        names = weight_names(model)
        gate = Gate()
        values = values_of(real, gate) if real is not None else [no_values(v) for v in model.variables]
        weights = [value.named(names.get(id(v), v.path)) for v, value in zip(model.variables, values, strict=True)]
        graph = describe(model, "m")
        graph = replace(graph, inputs=tuple(reshaped(spec, shapes or {}) for spec in graph.inputs))
        traced = trace(model, graph.inputs, layer_namespaces(model))
        structure = onnx_structure.build(traced, weights, graph, opset, dtype)
        gate.open = True
        return Converted(fill(structure) if real is not None else structure.model, structure, graph)


@dataclass
class Gate:
    """Closed until the structure is built."""

    open: bool = False


def values_of(real: Any, gate: Gate) -> list[LazyArray]:
    return [guarded(np.asarray(variable.numpy()), gate, variable.path) for variable in real.variables]


def guarded(array: np.ndarray, gate: Gate, path: str) -> LazyArray:
    def make() -> np.ndarray:
        assert gate.open or array.nbytes <= 64, f"{path} was read while the structure was built"
        return array

    return LazyArray(array.shape, array.dtype, make)


def reshaped(spec: TensorSpec, shapes: dict[str, tuple[int | None, ...]]) -> TensorSpec:
    return replace(spec, shape=shapes.get(spec.name, spec.shape))


def fill(structure: OnnxStructure) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(structure.model)
    for proto in model.graph.initializer:
        if proto.name in structure.weights:
            proto.CopyFrom(onnx.numpy_helper.from_array(structure.weights[proto.name].real(), proto.name))
    return model


def random_inputs(inputs: Sequence[Any], free: int = 12, seed: int = 2) -> list[np.ndarray]:
    """One array for each Keras input: two samples, `free` in every other open dimension, small whole numbers."""
    generator = np.random.default_rng(seed)
    arrays = []
    for tensor in inputs:
        shape = [(2 if axis == 0 else free) if size is None else size for axis, size in enumerate(tensor.shape)]
        if keras.backend.is_float_dtype(tensor.dtype):
            arrays.append(generator.standard_normal(shape).astype(tensor.dtype))
        else:
            arrays.append(generator.integers(0, 2 if tensor.dtype == "bool" else 5, shape).astype(tensor.dtype))
    return arrays


def run_keras(model: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
    sequential = isinstance(model, keras.Sequential)
    structured = tensors[0] if sequential else keras.tree.pack_sequence_as(model._inputs_struct, tensors)
    return [np.asarray(output) for output in keras.tree.flatten(model(structured, training=False))]


def run_onnx(converted: Converted, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(converted.model.SerializeToString(), options, ["CPUExecutionProvider"])
    feeds = {spec.name: array for spec, array in zip(converted.graph.inputs, arrays, strict=True)}
    return session.run([spec.name for spec in converted.graph.outputs], feeds)
