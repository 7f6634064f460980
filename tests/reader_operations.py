"""Models whose outputs are operations of `keras.ops`, many in each, so that one file holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

_OF_ONE = """
    abs absolute negative sign round relu relu6 sigmoid softplus silu leaky_relu hard_sigmoid hard_silu elu selu gelu
    celu log_softmax softmax erf rsqrt square sqrt exp expm1 log log1p log2 log10 sin cos tan tanh sinh cosh arcsin
    arctan ceil floor isnan isinf isfinite logical_not reciprocal ones_like zeros_like cumsum cumprod sort argsort sum
    mean max min prod std var any all argmax argmin median logsumexp count_nonzero average nan_to_num tril flip ravel
    transpose squareplus sparse_sigmoid log_sigmoid tanh_shrink hard_tanh soft_shrink hard_shrink sparsemax trunc sinc
    exp2 fabs signbit size normalize amax amin copy erfc ptp diff nansum nanmean
"""
_OF_TWO = """
    add subtract multiply divide true_divide maximum minimum power floor_divide mod equal greater less_equal
    logical_and logical_or arctan2 logaddexp fmax fmod divide_no_nan
"""
DTYPES = ("float32", "float16", "int32", "int64", "bool", "uint8")
PAIRS = (
    *(("float32", "float32"), ("float16", "float32"), ("int32", "float32"), ("int64", "int32"), ("bool", "int32")),
    *(("uint8", "int8"), ("bfloat16", "float16"), ("bool", "bool"), ("int8", "int8")),
)
CONSTANTS = (2, 2.5, True, np.ones((6,), "float64"), np.ones((5, 1, 6), "float32"))


def of_one(dtype: str) -> tuple[Any, dict[str, Any]]:
    """What goes in, and what each operation makes of it that takes numbers of this kind."""
    x = keras.Input((4, 6), dtype=dtype)
    return x, _taken(dict.fromkeys(_OF_ONE.split(), (x,)))


def of_two(one: str, other: str) -> tuple[Any, dict[str, Any]]:
    x, y = keras.Input((6, 6), dtype=one), keras.Input((6, 6), dtype=other)
    return [x, y], _taken(dict.fromkeys((*_OF_TWO.split(), "matmul"), (x, y)))


def of_constants(dtype: str) -> tuple[Any, dict[str, Any]]:
    x = keras.Input((4, 6), dtype=dtype)
    found = {"": _taken(dict.fromkeys(_OF_TWO.split(), (3, x)))}
    for number, constant in enumerate(CONSTANTS):
        found[str(number)] = _taken(dict.fromkeys(_OF_TWO.split(), (x, constant)))
    return x, {f"{name}{number}": y for number, made in found.items() for name, y in made.items()}


def _taken(calls: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    found = {}
    for name, arguments in calls.items():
        try:
            found[name] = getattr(ops, name)(*arguments)
        except (TypeError, ValueError):
            continue
    return found


OTHERS: dict[str, Callable[[Any], Any]] = {
    "where": lambda x: ops.where(x > 0, x, 0.0),
    "where_number": lambda x: ops.where(x > 0, 1, x),
    "clip": lambda x: ops.clip(x, 0, 1),
    "saturate": lambda x: ops.saturate_cast(x, "uint8"),
    "tile": lambda x: ops.tile(x, (1, 2, 1)),
    "repeat": lambda x: ops.repeat(x, 3, axis=1),
    "repeat_all": lambda x: ops.repeat(x, 3),
    "repeat_each": lambda x: ops.repeat(x, [1, 2, 3, 4], axis=1),
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 2], [3, 0]]),
    "pad_all": lambda x: ops.pad(x, 1),
    "take": lambda x: ops.take(x, [0, 2], axis=1),
    "take_one": lambda x: ops.take(x, 1, axis=-1),
    "take_by": lambda x: ops.take(ops.ravel(x), ops.argmax(x, axis=-1), axis=0),
    "take_along": lambda x: ops.take_along_axis(x, ops.argsort(x, axis=-1), axis=-1),
    "one_hot": lambda x: ops.one_hot(ops.cast(x, "int32"), 5, axis=1, dtype="int32"),
    "einsum": lambda x: ops.einsum("bij,bkj->bik", x, x),
    "einsum_constant": lambda x: ops.einsum("bij,jk->bik", x, np.ones((6, 3), "float32")),
    "moveaxis": lambda x: ops.moveaxis(x, 1, -1),
    "rot90": lambda x: ops.rot90(x, axes=(1, 2)),
    "broadcast": lambda x: ops.broadcast_to(x, (5, 4, 6)),
    "outer": lambda x: ops.outer(x, x),
    "hstack": lambda x: ops.hstack([x, x]),
    "vstack": lambda x: ops.vstack([x, x]),
    "concatenate_array": lambda x: ops.concatenate([x, np.ones((1, 4, 6), "float32")], axis=0),
    "concatenate_kinds": lambda x: ops.concatenate([x, ops.cast(x, "int32")], axis=-1),
    "append": lambda x: ops.append(x, x, axis=1),
    "stack": lambda x: ops.stack([x, ops.cast(x, "int32")], axis=1),
    "unstack": lambda x: ops.unstack(x, axis=1),
    "unstack_number": lambda x: ops.unstack(x, num=6, axis=2),
    "hsplit": lambda x: ops.hsplit(x, 2),
    "glu": lambda x: ops.glu(x),
    "norm": lambda x: ops.norm(x, axis=(1, 2), keepdims=True),
    "rfft": lambda x: ops.rfft(x),
    "fft": lambda x: ops.fft((x, x)),
    "sequences": lambda x: ops.extract_sequences(x, 3, 2),
    "logdet": lambda x: ops.logdet(x[:, :, :4]),
    "vector": lambda x: ops.matmul(x, np.ones((6,), "float32")),
    "matrix": lambda x: ops.matmul(x, np.ones((6, 2), "float32")),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "argmax": lambda x: ops.argmax(x, axis=1, keepdims=True),
    "ellipsis": lambda x: x[..., 0],
    "ellipsis_between": lambda x: x[0, ..., 1:],
    "slice": lambda x: ops.slice(x, (0, 0, 1), (2, 2, -1)),
    "attention": lambda x: ops.dot_product_attention(x[:, :, None], x[:, :, None], x[:, :, None]),
    "normalised": lambda x: ops.layer_normalization(x),
    "in_top": lambda x: ops.in_top_k(ops.cast(x[:, 0, 0], "int32"), x[:, 0], 2),
}
IMAGES: dict[str, Callable[[Any], Any]] = {
    "resize": lambda x: ops.image.resize(x, (3, 5)),
    "gray": lambda x: ops.image.rgb_to_grayscale(x[..., :3]),
    "pad": lambda x: ops.image.pad_images(x, 1, 2, 3, 4),
    "pad_to": lambda x: ops.image.pad_images(x, 1, 2, target_height=12, target_width=12),
    "crop": lambda x: ops.image.crop_images(x, 1, 2, 3, 1),
    "max_pool": lambda x: ops.max_pool(x, 2),
    "average_pool": lambda x: ops.average_pool(x, (2, 3), strides=(1, 2), padding="same"),
    "deep": lambda x: ops.space_to_depth(x, 2),
    "spread": lambda x: ops.depth_to_space(x, 2),
    "blur": lambda x: ops.image.gaussian_blur(x),
}


def others() -> tuple[Any, dict[str, Any]]:
    x = keras.Input((4, 6))
    return x, {name: make(x) for name, make in OTHERS.items()}


def of_images() -> tuple[Any, dict[str, Any]]:
    x = keras.Input((8, 8, 4))
    return x, {name: make(x) for name, make in IMAGES.items()}
