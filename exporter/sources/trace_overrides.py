"""TensorFlow functions that take a detour around what ONNX says in one op, done directly while a model is traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import tensorflow as tf


@contextmanager
def installed() -> Iterator[None]:
    with mock.patch.object(tf, "tensordot", _broadcasting(tf.tensordot)):
        yield


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
