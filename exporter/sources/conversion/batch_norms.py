"""Batch norms, traced as one multiplication and one addition by vectors that are combined lazily from the weights.

As Keras writes it, a batch norm at inference is some twenty TensorFlow ops, of which two compute with its input and the
others combine its four vectors: two thirds of a traced ResNet, and of the time that tracing takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from exporter.lazy import LazyArray


@dataclass(frozen=True)
class Combination:
    """A value made of weights: `places` says where these are among the variables of the model."""

    places: tuple[int, ...]
    combine: Callable[..., LazyArray]

    def value(self, weights: Sequence[LazyArray]) -> LazyArray:
        return self.combine(*(weights[place] for place in self.places))


class BatchNorms:
    """`combinations` is by the name of the node that stands for the value, once the layers have been called."""

    def __init__(self, variables: Sequence[Any]) -> None:
        self._places = {id(variable): place for place, variable in enumerate(variables)}
        self.combinations: dict[str, Combination] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Entered in the graph of the trace."""
        graph = tf.compat.v1.get_default_graph()
        layer = keras.layers.BatchNormalization
        with mock.patch.object(layer, "call", self._call(layer.call, graph)):
            yield

    def _call(self, original: Callable[..., Any], graph: tf.Graph) -> Callable[..., Any]:
        def call(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
            # Inside of a loop or a branch a node of the main graph cannot be named.
            inside = tf.compat.v1.get_default_graph() is not graph
            variables = _variables(layer)
            if inside or training or mask is not None or not all(id(v) in self._places for v in variables.values()):
                return original(layer, inputs, training=training, mask=mask)
            return self._normalised(layer, inputs, variables)

        return call

    def _normalised(self, layer: Any, inputs: Any, variables: dict[str, Any]) -> Any:
        """`BatchNormalization.call` of Keras 3.15 at inference."""
        dtype = np.dtype(keras.backend.result_type(inputs.dtype, "float32"))
        formula = _Formula(tuple(variables), dtype, layer.epsilon, _shape(layer, inputs))
        places = tuple(self._places[id(variable)] for variable in variables.values())
        scale = self._node(formula, Combination(places, formula.scale))
        shift = self._node(formula, Combination(places, formula.shift))
        return keras.ops.cast(keras.ops.cast(inputs, dtype.name) * scale + shift, layer.compute_dtype)

    def _node(self, formula: _Formula, combination: Combination) -> tf.Tensor:
        tensor = tf.compat.v1.placeholder(formula.dtype, formula.shape)
        self.combinations[tensor.op.name] = combination
        return tensor


@dataclass(frozen=True)
class _Formula:
    """`tf.nn.batch_normalization`: x · s + (beta - mean · s), with s = gamma / √(variance + epsilon).

    `names` are those of the vectors that the functions are given; gamma and beta may be missing.
    """

    names: tuple[str, ...]
    dtype: np.dtype
    epsilon: float
    shape: tuple[int, ...]

    def scale(self, *vectors: LazyArray) -> LazyArray:
        given = self._named(vectors)
        inverse = np.true_divide(self.dtype.type(1), np.sqrt(np.add(given["variance"], self.dtype.type(self.epsilon))))
        return np.multiply(inverse, given["gamma"]) if "gamma" in given else inverse

    def shift(self, *vectors: LazyArray) -> LazyArray:
        given = self._named(vectors)
        moved: Any = np.multiply(given["mean"], self.scale(*vectors))
        return np.subtract(given["beta"], moved) if "beta" in given else np.negative(moved)

    def _named(self, vectors: Sequence[LazyArray]) -> dict[str, Any]:
        shaped = [vector.astype(self.dtype).reshape(self.shape) for vector in vectors]
        return dict(zip(self.names, shaped, strict=True))


def _variables(layer: Any) -> dict[str, Any]:
    found = {
        "mean": layer.moving_mean,
        "variance": layer.moving_variance,
        "gamma": layer.gamma if layer.scale else None,
        "beta": layer.beta if layer.center else None,
    }
    return {name: variable for name, variable in found.items() if variable is not None}


def _shape(layer: Any, inputs: Any) -> tuple[int, ...]:
    """That of the vectors, with ones for the axes around the channels; Keras leaves out those before the last."""
    channels = layer.moving_mean.shape[0]
    if layer.axis == -1:
        return (channels,)
    shape = [1] * len(inputs.shape)
    shape[layer.axis] = channels
    return tuple(shape)
