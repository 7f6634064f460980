"""What TensorFlow and Keras do in a roundabout way, or wrongly in a graph, done directly while a model is traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import keras
import tensorflow as tf


@contextmanager
def installed() -> Iterator[None]:
    each_time = _at_once(keras.layers.TimeDistributed.call)
    with (
        mock.patch.object(tf, "tensordot", _broadcasting(tf.tensordot)),
        mock.patch.object(keras.layers.TimeDistributed, "call", each_time),
    ):
        yield


def _at_once(call_each: Any) -> Any:
    """`TimeDistributed` over an unknown number of steps: all of them as one batch.

    In a graph, Keras 3.15 takes as many steps as there are samples (`ops.arange(input_shape[0])`).
    """

    def call(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        if mask is not None or not isinstance(inputs, tf.Tensor) or inputs.shape.rank is None or inputs.shape[1]:
            return call_each(layer, inputs, training=training, mask=mask)
        sizes = tf.shape(inputs)
        flat = tf.ensure_shape(tf.reshape(inputs, tf.concat([[-1], sizes[2:]], 0)), [None, *inputs.shape[2:]])
        settings = {"training": training} if layer.layer._call_has_training_arg else {}
        found = layer.layer.call(flat, **settings)
        together = tf.reshape(found, tf.concat([sizes[:2], tf.shape(found)[1:]], 0))
        return tf.ensure_shape(together, [*inputs.shape[:2], *found.shape[1:]])

    return call


def _broadcasting(tensordot: Any) -> Any:
    """`tensordot` that multiplies by a matrix in one op, which broadcasts it over the leading axes.

    TensorFlow's own flattens those axes and puts them back: seven ops for each `Dense` on sequences or images.
    """

    def call(a: Any, b: Any, axes: Any, name: str | None = None) -> Any:
        rank = _rank(a)
        if rank is not None and rank > 2 and _rank(b) == 2 and _joins_last_with_first(axes, rank):
            return tf.matmul(a, b, name=name)
        return tensordot(a, b, axes, name)

    return call


def _rank(tensor: Any) -> int | None:
    return tensor.shape.rank if isinstance(tensor, tf.Tensor) else None


def _joins_last_with_first(axes: Any, rank: int) -> bool:
    """Whether the last axis of the left side is summed with the first of the matrix."""
    if isinstance(axes, int):
        return axes == 1
    if isinstance(axes, tf.Tensor):
        return False
    left, right = ([side] if isinstance(side, int) else list(side) for side in axes)
    return [axis % rank for axis in left] == [rank - 1] and [axis % 2 for axis in right] == [0]
