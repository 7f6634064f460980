"""Operations of types that ONNX, or ONNX Runtime, has no kernel for: the numbers of TensorFlow, overflow included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from onnx import NodeProto, TensorProto, helper
from operations import compared

from exporter.errors import UnsupportedError
from exporter.sources.conversion import kernels

raw = tf.raw_ops
SLOW = pytest.mark.slow


def whole(dtype: str, *shape: int) -> np.ndarray:
    """Over the whole range, its ends included."""
    limits = np.iinfo(dtype)
    numbers = np.random.default_rng(0).integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    numbers.reshape(-1)[:2] = limits.min, limits.max
    return numbers


TYPES = [pytest.param("int8"), *(pytest.param(each, marks=SLOW) for each in ("uint8", "int16", "uint16"))]


@pytest.mark.parametrize("dtype", TYPES)
def test_sums_and_products_wrap_around(tmp_path: Path, dtype: str) -> None:
    def function(x: Any) -> Any:
        sums = tf.reduce_sum(x, 1), tf.reduce_sum(x), tf.cumsum(x, 1), tf.cumsum(x, 0, exclusive=True, reverse=True)
        others = tf.reduce_prod(x, 1), tf.reduce_mean(x, 0), tf.reduce_max(x, 1), tf.reduce_min(x), tf.add_n([x, x, x])
        return *sums, *others, *([] if dtype[0] == "u" else [tf.pow(x, 2)])

    compared(function, whole(dtype, 4, 3), folder=tmp_path)


@SLOW
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_what_is_moved_or_compared_in_other_types(tmp_path: Path, dtype: str) -> None:
    def function(x: Any, y: Any) -> Any:
        found = tf.argmax(x, 1), tf.argmin(x, 0, output_type=tf.int32), tf.where(x > 3), tf.where(x > y, x, y)
        moved = tf.maximum(x, y), tf.minimum(x, y), tf.nn.relu(x), tf.clip_by_value(x, x[0, 0], y[1, 1])
        return *found, *moved, tf.image.resize(x[None, ..., None], (8, 6), "nearest")

    compared(function, whole(dtype, 4, 3), whole(dtype, 4, 3)[::-1].copy(), folder=tmp_path)


@SLOW
@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
def test_large_numbers_without_a_sign(tmp_path: Path, dtype: str) -> None:
    def function(x: Any) -> Any:
        results = [tf.where(x > 3, x, x + 1)]
        return results if dtype == "uint64" else [*results, tf.reduce_sum(x, 1), tf.argmax(x, 1), tf.reduce_max(x, 0)]

    compared(function, whole(dtype, 4, 3), folder=tmp_path)


PADDED = [pytest.param(each, marks=SLOW) for each in ("bool", "int16", "uint16", "int64", "float16", "float64")]


@pytest.mark.parametrize("dtype", ["int8", *PADDED])
def test_padding(tmp_path: Path, dtype: str) -> None:
    def function(x: Any, sizes: Any) -> Any:
        value = tf.cast(1, x.dtype)
        mirrored = [tf.pad(x, [[1, 0], [2, 1]], mode) for mode in ("REFLECT", "SYMMETRIC")]
        return (
            tf.pad(x, [[1, 0], [0, 2]]),
            tf.pad(x, [[1, 0], [0, 2]], constant_values=value),
            tf.pad(x, sizes),
            *mirrored,
        )

    x = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 1]]).astype(dtype)
    compared(function, x, np.array([[0, 1], [2, 0]], "int32"), folder=tmp_path)


def test_truth_values(tmp_path: Path) -> None:
    def function(x: Any, indices: Any) -> Any:
        chosen = tf.where(x, x[0], x[1]), tf.one_hot([1, 5, 0], 3, x[0, 0], x[0, 1])
        return *chosen, tf.argmax(x, 1), tf.scatter_nd(indices, x, [4, 3])

    x = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0]], bool)
    compared(function, x, np.array([[1], [1], [3]], "int32"), folder=tmp_path)


@SLOW
def test_half_precision(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        known = tf.math.is_inf(x), tf.math.is_nan(x), tf.math.is_finite(x), tf.math.log(tf.abs(x))
        return *known, tf.nn.l2_loss(x[0]), tf.bitcast(x, tf.float16)

    compared(function, np.array([[0.5, -2, 3], [np.inf, np.nan, -np.inf]], "float16"), folder=tmp_path)


@SLOW
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_images_of_other_types(tmp_path: Path, dtype: str) -> None:
    def function(x: Any) -> Any:
        boxes = np.array([[0.1, 0, 1, 0.9]], "float32")
        crops = [tf.image.crop_and_resize(x, boxes, [0], (3, 2), each) for each in ("nearest", "bilinear")]
        return *crops, tf.image.extract_patches(x, [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "SAME")

    compared(function, whole("uint8", 1, 5, 4, 3).astype(dtype), folder=tmp_path)


def test_patches_of_large_numbers_are_refused(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        return tf.image.extract_patches(x, [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "SAME")

    with pytest.raises(UnsupportedError, match="more digits"):
        compared(function, whole("int32", 1, 5, 4, 3), folder=tmp_path)


def trained(x: Any, scale: Any, offset: Any, mean: Any, variance: Any) -> Any:
    """The batch's own mean and variance, and with a factor those that training goes on with."""
    norm: Callable[..., Any] = raw.FusedBatchNormV3
    own = norm(x=x, scale=scale, offset=offset, mean=[], variance=[], is_training=True)
    given = {"scale": scale, "offset": offset, "mean": mean, "variance": variance}
    moving = norm(x=x, is_training=True, exponential_avg_factor=0.1, **given)
    fixed = norm(x=x, is_training=False, **given)
    return *own[:3], *moving[:3], *fixed[:3]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=SLOW)])
def test_norms_in_training(tmp_path: Path, dtype: str) -> None:
    generator = np.random.default_rng(0)
    scale, offset, mean = (generator.standard_normal(3).astype("float32") for _ in range(3))
    x = (generator.standard_normal((2, 4, 5, 3)) * 3 + 1).astype(dtype)
    compared(trained, x, scale, offset, mean, np.abs(mean) + 0.5, folder=tmp_path)


@SLOW
def test_losses_and_ranks(tmp_path: Path) -> None:
    def function(x: Any, target: Any) -> Any:
        return tf.nn.l2_loss(x), tf.linalg.cross(x[:, :3], x[:, 1:]), tf.math.in_top_k(target, x, 2)

    x = np.array([[0.1, 2, 2, -1], [3, 2, 1, 0.5], [0, 0, 0, 0]], "float32")
    compared(function, x, np.array([2, 2, 3], "int32"), folder=tmp_path)


def test_a_type_that_nothing_holds_is_refused() -> None:
    node = helper.make_node("ReduceMax", ["x"], ["y"], name="largest")
    assert kernels.detour(node, TensorProto.INT16, ["tensor(int32)", "tensor(float)"]) == TensorProto.INT32
    assert kernels.detour(node, TensorProto.INT32, ["tensor(int32)", "tensor(float)"]) is None
    assert kernels.detour(node, TensorProto.UINT64, ["tensor(uint64)", "tensor(int64)"]) is None
    with pytest.raises(UnsupportedError, match="no ReduceMax of uint64") as caught:
        kernels.detour(NodeProto.FromString(node.SerializeToString()), TensorProto.UINT64, ["tensor(int64)"])
    assert caught.value.where == "node largest"
